#include "stages/torch/norm_activation.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

namespace gp {
namespace {

at::Tensor random_maps(at::IntArrayRef sizes, const std::string& purpose) {
  return normal_tensor(sizes, {3, purpose, 0}).contiguous(at::MemoryFormat::ChannelsLast);
}

struct Case {
  std::int64_t channels;
  bool norm;
  double leak;
  double dropout;
  bool pad;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.channels << " channels, norm " << c.norm << ", leak " << c.leak << ", dropout "
       << c.dropout << ", pad " << c.pad;
}

/// Everything that one call and its gradient change.
struct Outcome {
  at::Tensor y, dx, dweight, dbias, running_mean, running_var;
};

Outcome run(const Case& c, at::ScalarType type, bool plain, double mean = 0.3) {
  const at::Tensor x = (random_maps({3, c.channels, 6, 10}, "x") + mean)
                           .to(type)
                           .contiguous(at::MemoryFormat::ChannelsLast)
                           .set_requires_grad(true);
  BatchNormState norm{random_maps({1, c.channels, 1, 1}, "weight").view({c.channels}).clone(),
                      random_maps({1, c.channels, 1, 1}, "bias").view({c.channels}).clone(),
                      at::zeros({c.channels}),
                      at::ones({c.channels}),
                      0.2,
                      1e-3};
  norm.weight.set_requires_grad(true);
  norm.bias.set_requires_grad(true);
  std::optional<Dropout> dropout;
  if (c.dropout > 0) dropout = Dropout{c.dropout, {5, "mask", 7}};
  const at::Tensor y = norm_activation(x, c.norm ? std::optional(norm) : std::nullopt, c.leak,
                                       dropout, c.pad, plain);
  const at::Tensor towards = random_maps(y.sizes(), "towards");
  (y.to(at::kFloat) * towards).sum().backward();
  return {y.detach(),       x.grad(),          norm.weight.grad(),
          norm.bias.grad(), norm.running_mean, norm.running_var};
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance,
                  const char* what) {
  ASSERT_EQ(found.defined(), expected.defined()) << what;
  if (!found.defined()) return;
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  EXPECT_EQ(found.scalar_type(), expected.scalar_type()) << what;
  const at::Tensor a = found.to(at::kDouble);
  const at::Tensor b = expected.to(at::kDouble);
  const double worst = (a - b).abs().max().item<double>();
  EXPECT_LE(worst, tolerance * std::max(b.abs().max().item<double>(), 1.0)) << what;
}

class NormActivationTest : public testing::TestWithParam<Case> {};

TEST_P(NormActivationTest, EqualsTorchsOperations) {
  const Outcome fast = run(GetParam(), at::kFloat, false);
  const Outcome plain = run(GetParam(), at::kFloat, true);
  EXPECT_TRUE(fast.y.is_contiguous(at::MemoryFormat::ChannelsLast));
  expect_close(fast.y, plain.y, 1e-6, "y");
  expect_close(fast.dx, plain.dx, 2e-6, "dx");
  expect_close(fast.dweight, plain.dweight, 2e-6, "dweight");
  expect_close(fast.dbias, plain.dbias, 2e-6, "dbias");
  expect_close(fast.running_mean, plain.running_mean, 1e-6, "running mean");
  expect_close(fast.running_var, plain.running_var, 1e-6, "running variance");
}

TEST_P(NormActivationTest, FollowsInBf16) {
  const Outcome fast = run(GetParam(), at::kBFloat16, false);
  const Outcome plain = run(GetParam(), at::kBFloat16, true);
  // torch rounds to bf16 (8 bits) after each operation, this once.
  expect_close(fast.y, plain.y, 0.02, "y");
  expect_close(fast.dx, plain.dx, 0.04, "dx");
  expect_close(fast.dweight, plain.dweight, 0.02, "dweight");
  expect_close(fast.dbias, plain.dbias, 0.02, "dbias");
}

// 16, 32: whole vectors; 20, 3: with a rest.
INSTANTIATE_TEST_SUITE_P(All, NormActivationTest,
                         testing::Values(Case{16, true, 0, 0, false}, Case{32, true, 0.2, 0, true},
                                         Case{20, true, 0.2, 0.25, true},
                                         Case{3, true, 0, 0.5, false},
                                         Case{32, false, 0.2, 0.25, true},
                                         Case{5, false, 0.2, 0, false}));

TEST(NormActivation, RoundsBf16ToTheNearest) {
  // Two batches of one map: no norm, so y is x, or leak * x, rounded.
  const at::Tensor x = random_maps({2, 16, 5, 5}, "x").to(at::kBFloat16);
  const at::Tensor y = norm_activation(x, {}, 0.2, {}, false);
  const at::Tensor exact = at::leaky_relu(x.to(at::kFloat), 0.2);
  EXPECT_TRUE(at::equal(y, exact.to(at::kBFloat16)));
}

TEST(NormActivation, AnInputsBiasMovesTheRunningMeanOnly) {
  const at::Tensor x = random_maps({4, 16, 5, 5}, "x");
  const at::Tensor input_bias = random_maps({1, 16, 1, 1}, "bias").view({16}).clone();
  input_bias.set_requires_grad(true);
  const auto norm = [&](bool with_bias) {
    return BatchNormState{at::ones({16}),
                          at::zeros({16}),
                          at::zeros({16}),
                          at::ones({16}),
                          0.2,
                          1e-3,
                          with_bias ? input_bias : at::Tensor()};
  };
  const BatchNormState before = norm(false);
  const BatchNormState after = norm(true);
  const BatchNormState plain = norm(true);
  const at::Tensor y = norm_activation(x, before, 0.2, {}, false);
  const at::Tensor biased = norm_activation(x, after, 0.2, {}, false);
  biased.square().sum().backward();
  EXPECT_TRUE(at::equal(biased, y));
  EXPECT_TRUE(at::equal(input_bias.grad(), at::zeros({16})));
  EXPECT_TRUE(at::equal(after.running_var, before.running_var));
  expect_close(after.running_mean, before.running_mean + 0.2 * input_bias, 1e-6, "running mean");
  norm_activation(x, plain, 0.2, {}, false, /*plain=*/true);
  expect_close(after.running_mean, plain.running_mean, 1e-6, "running mean");
}

TEST(NormActivation, KeepsItsPrecisionFarFromZero) {
  const Case c{16, true, 0, 0, false};
  const Outcome near = run(c, at::kFloat, false, 0);
  const Outcome far = run(c, at::kFloat, false, 4096);  // x is rounded to 2^-11 there
  expect_close(far.y, near.y, 2e-3, "y");
}

TEST(NormActivation, DoesNotDependOnThreads) {
  const Case c{48, true, 0.2, 0.25, true};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Outcome one = run(c, at::kFloat, false);
  at::set_num_threads(3);
  const Outcome three = run(c, at::kFloat, false);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.y, three.y));
  EXPECT_TRUE(at::equal(one.dx, three.dx));
  EXPECT_TRUE(at::equal(one.dweight, three.dweight));
  EXPECT_TRUE(at::equal(one.running_var, three.running_var));
}

TEST(NormActivation, ShowsNotANumber) {
  at::Tensor x = random_maps({1, 16, 4, 4}, "x");
  x[0][3][2][1] = std::nan("");
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor y = norm_activation(x.to(type), {}, 0.2, {}, false);
    EXPECT_TRUE(std::isnan(y[0][3][2][1].item<float>()));
    EXPECT_EQ(y.isnan().sum().item<int>(), 1);
  }
}

TEST(NormActivation, UsesTheThreadsThatItIsGiven) {
  // at::parallel_for runs on one thread where the code is compiled without OpenMP.
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::atomic<int> pieces = 0;
  at::parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) { ++pieces; });
  at::set_num_threads(threads);
  EXPECT_EQ(pieces, 2);
}

}  // namespace
}  // namespace gp
