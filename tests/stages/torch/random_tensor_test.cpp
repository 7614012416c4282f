#include "stages/torch/random_tensor.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

TEST(RandomTensor, NormalsAndUniformsAreThoseOfRng) {
  const RandomKey key{42, "test", 7};
  const at::Tensor normals = normal_tensor({5, 7}, key);
  at::Tensor uniforms = at::empty({3, 11});
  fill_uniform(uniforms, key, -0.5F, 1.5F);
  Rng normal_rng(42, "test", 7);
  for (int i = 0; i < normals.numel(); ++i) {
    ASSERT_EQ(normals.const_data_ptr<float>()[i], normal_rng.normal()) << i;
  }
  Rng uniform_rng(42, "test", 7);
  for (int i = 0; i < uniforms.numel(); ++i) {
    ASSERT_EQ(uniforms.const_data_ptr<float>()[i], -0.5F + 2.0F * uniform_rng.uniform()) << i;
  }
}

// 3 * 5 * 7 * 11 elements: no multiple of what is computed at once.
at::Tensor odd_maps(at::ScalarType type) {
  return at::zeros({3, 5, 7, 11}, type).contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(DropoutMask, TakesTheHalvesOfRngInNhwcOrder) {
  const double rate = 0.3;
  const auto threshold = static_cast<std::uint32_t>(std::lround(rate * 65536));
  const auto kept = static_cast<float>(1 / (1 - threshold / 65536.0));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor mask = dropout_mask(odd_maps(type), rate, {42, "mask", 1ULL << 40});
    ASSERT_EQ(mask.scalar_type(), type);
    ASSERT_TRUE(mask.is_contiguous(at::MemoryFormat::ChannelsLast));
    const at::Tensor nhwc = mask.permute({0, 2, 3, 1}).contiguous().to(at::kFloat);
    const float expected = type == at::kFloat ? kept : static_cast<float>(at::BFloat16(kept));
    Rng rng(42, "mask", 1ULL << 40);
    std::uint32_t word = 0;
    for (int i = 0; i < nhwc.numel(); ++i) {
      word = i % 2 == 0 ? rng.next_u32() : word >> 16;
      ASSERT_EQ(nhwc.const_data_ptr<float>()[i], (word & 0xFFFF) < threshold ? 0.0F : expected)
          << i;
    }
  }
}

TEST(DropoutMask, DoesNotDependOnThreads) {
  const at::Tensor like = at::zeros({16, 32, 32, 32}).contiguous(at::MemoryFormat::ChannelsLast);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = dropout_mask(like, 0.25, {1, "mask", 0});
  for (const int n : {2, 8}) {
    at::set_num_threads(n);
    EXPECT_TRUE(at::equal(dropout_mask(like, 0.25, {1, "mask", 0}), one)) << n;
  }
  at::set_num_threads(threads);
}

TEST(DropoutMask, DropsTheShareAskedForAndKeepsTheMean) {
  const at::Tensor like = at::zeros({16, 32, 32, 32}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor mask = dropout_mask(like, 0.25, {1, "mask", 0});
  // 524,288 draws: one standard deviation is 0.0006.
  EXPECT_NEAR(mask.eq(0).to(at::kFloat).mean().item<float>(), 0.25, 0.003);
  EXPECT_NEAR(mask.mean().item<float>(), 1, 0.004);
}

TEST(DropoutMask, DiffersBetweenSeedsPurposesAndSteps) {
  const at::Tensor like = odd_maps(at::kFloat);
  const at::Tensor mask = dropout_mask(like, 0.5, {1, "a", 0});
  EXPECT_TRUE(at::equal(mask, dropout_mask(like, 0.5, {1, "a", 0})));
  for (const RandomKey& other :
       {RandomKey{2, "a", 0}, RandomKey{1, "b", 0}, RandomKey{1, "a", 1}}) {
    const double differing =
        mask.ne(dropout_mask(like, 0.5, other)).to(at::kFloat).mean().item<float>();
    EXPECT_NEAR(differing, 0.5, 0.1);
  }
}

}  // namespace
}  // namespace gp
