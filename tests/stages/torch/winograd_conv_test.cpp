#include "stages/torch/winograd_conv.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

using testing::formula_features;

/// Values around 0 that repeat from run to run.
at::Tensor values(std::uint64_t seed, at::IntArrayRef shape) {
  const at::Tensor x = formula_features(seed, c10::multiply_integers(shape.slice(1)), shape[0]).t();
  return (x - x.mean()).reshape(shape).to(at::kFloat);
}

TEST(WinogradConv, EqualsTheDirectConvolution) {
  at::set_num_threads(1);
  struct Case {
    std::int64_t images, in, out, height, width;
    int padding;
  };
  // Whole tiles; parts of tiles on both sides; smaller than a tile; more tiles than are taken at a
  // time, over several images.
  for (const Case& c :
       {Case{1, 16, 32, 10, 6, 0}, Case{2, 48, 16, 9, 15, 1}, Case{1, 32, 16, 3, 4, 0},
        Case{1, 16, 16, 1, 2, 1}, Case{3, 16, 16, 33, 21, 1}}) {
    const at::Tensor input = values(1, {c.images, c.in, c.height, c.width});
    const at::Tensor weight = values(2, {c.out, c.in, 3, 3});
    const at::Tensor bias = values(3, {c.out, 1}).view({c.out});
    const at::Tensor expected = at::conv2d(input.to(at::kDouble), weight.to(at::kDouble),
                                           bias.to(at::kDouble), 1, c.padding)
                                    .relu();
    ASSERT_TRUE(WinogradConv::takes(weight.sizes()));
    const at::Tensor result = WinogradConv(weight, bias, c.padding)(input);
    ASSERT_EQ(result.sizes(), expected.sizes());
    EXPECT_TRUE(result.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_LT((result - expected).abs().max().item<double>(), 5e-6 * expected.max().item<double>())
        << c.in << " to " << c.out << " of " << c.height << "x" << c.width;
    EXPECT_EQ(result.min().item<float>(), 0) << "ReLU";
  }
}

TEST(WinogradConv, TakesOnlyWhatItIsFor) {
  EXPECT_FALSE(WinogradConv::takes({16, 16, 3, 1}));
  EXPECT_FALSE(WinogradConv::takes({16, 16, 5, 5}));
  EXPECT_FALSE(WinogradConv::takes({16, 3, 3, 3}));
  EXPECT_FALSE(WinogradConv::takes({24, 16, 3, 3}));
  EXPECT_FALSE(WinogradConv::takes({16, 16}));
}

}  // namespace
}  // namespace gp
