#include "stages/data/resize_kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipeline/image.hpp"
#include "pipeline/rng.hpp"

namespace gp {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes noise(Rng& rng, std::size_t size) {
  Bytes bytes(size);
  for (auto& value : bytes) value = static_cast<std::uint8_t>(rng.next_u32());
  return bytes;
}

/// `count` weights, some negative, that sum to `total` shares of one: outside of [0, 1] what they
/// give has to be cut off.
std::vector<std::int32_t> random_weights(Rng& rng, int count, double total) {
  std::vector<double> shares;
  double sum = 0;
  for (int k = 0; k < count; ++k) {
    shares.push_back(rng.uniform(-0.2, 1));
    sum += std::abs(shares.back());
  }
  std::vector<std::int32_t> weights;
  for (const double share : shares) {
    weights.push_back(static_cast<std::int32_t>(share / sum * total * (1 << kResizeWeightBits)));
  }
  return weights;
}

class ResizeKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_resize_instructions()) GTEST_SKIP() << "this processor has none that we know of";
  }
};

TEST_F(ResizeKernelsTest, VectorsGiveThePortableBytesAcross) {
  Rng rng(1, "across", 0);
  for (int i = 0; i < 300; ++i) {
    const int in_width = 1 + static_cast<int>(rng.below(40));
    const int out_width = 1 + static_cast<int>(rng.below(40));
    const int n_rows = 1 + static_cast<int>(rng.below(9));
    const auto gap = static_cast<std::ptrdiff_t>(rng.below(3));
    ResizeWeights weights;
    for (int x = 0; x < out_width; ++x) {
      const int first = static_cast<int>(rng.below(static_cast<std::uint32_t>(in_width)));
      const int count =
          1 + static_cast<int>(rng.below(static_cast<std::uint32_t>(in_width - first)));
      weights.spans.push_back({first, count, static_cast<int>(weights.values.size())});
      for (const auto weight : random_weights(rng, count, 1.4)) weights.values.push_back(weight);
    }
    // Nothing behind the last pixel: reading over the end is an error under asan.
    const std::ptrdiff_t in_stride = in_width * kChannels + gap;
    const Bytes in = noise(rng, static_cast<std::size_t>(in_stride * n_rows - gap));
    const std::ptrdiff_t length = out_width * kChannels;
    Bytes outs[2];
    const ResizeKernels* kernels[2] = {&portable_resize_kernels(), &vector_resize_kernels()};
    for (int k = 0; k < 2; ++k) {
      outs[k].resize(static_cast<std::size_t>((length + 1) * n_rows));
      kernels[k]->across(in.data(), in_stride, in_width, n_rows, weights, outs[k].data(),
                         length + 1);
    }
    for (int y = 0; y < n_rows; ++y) {
      const auto row = outs[0].begin() + y * (length + 1);
      EXPECT_TRUE(std::equal(row, row + length, outs[1].begin() + y * (length + 1))) << i;
    }
  }
}

TEST_F(ResizeKernelsTest, VectorsGiveThePortableBytesDown) {
  Rng rng(1, "down", 0);
  for (int i = 0; i < 300; ++i) {
    const std::size_t length = 1 + rng.below(100);
    const int count = 1 + static_cast<int>(rng.below(9));
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(length) + rng.below(3);
    const Bytes rows = noise(rng, static_cast<std::size_t>(stride * (count - 1)) + length);
    const auto weights = random_weights(rng, count, 1.4);
    Bytes portable(length);
    Bytes vector(length);
    portable_resize_kernels().down(rows.data(), stride, weights.data(), count, length,
                                   portable.data());
    vector_resize_kernels().down(rows.data(), stride, weights.data(), count, length, vector.data());
    EXPECT_EQ(portable, vector) << i;
  }
}

}  // namespace
}  // namespace gp
