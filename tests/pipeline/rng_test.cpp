#include "pipeline/rng.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace gp {
namespace {

// Known answers of Random123 (kat_vectors), philox4x32 with 10 rounds.
TEST(Philox, EqualsRandom123) {
  using Block = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Mix64, CanBeUndone) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const std::uint64_t value = i * i * 0x9E3779B97F4A7C15ULL;
    EXPECT_EQ(unmix64(mix64(value)), value);
    EXPECT_EQ(mix64(unmix64(value)), value);
  }
  EXPECT_EQ(unmix64(mix64(~std::uint64_t{0})), ~std::uint64_t{0});
}

TEST(Rng, IsAFunctionOfItsKey) {
  Rng a(1, hash64("augment.flip"), 3, hash64("0045128"));
  Rng b(1, hash64("augment.flip"), 3, hash64("0045128"));
  Rng other_epoch(1, hash64("augment.flip"), 4, hash64("0045128"));
  Rng other_stage(1, hash64("augment.affine"), 3, hash64("0045128"));
  Rng other_seed(2, hash64("augment.flip"), 3, hash64("0045128"));
  for (int i = 0; i < 10; ++i) {
    const auto value = a.next_u32();
    EXPECT_EQ(value, b.next_u32());
    EXPECT_NE(value, other_epoch.next_u32());
    EXPECT_NE(value, other_stage.next_u32());
    EXPECT_NE(value, other_seed.next_u32());
  }
}

TEST(Rng, UniformAndNormalHaveTheirMoments) {
  Rng rng(7, "moments", 0);
  constexpr int kDraws = 200000;
  double sum = 0, squares = 0, normal_sum = 0, normal_squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
    const double z = rng.normal();
    normal_sum += z;
    normal_squares += z * z;
  }
  // Four standard errors.
  EXPECT_NEAR(sum / kDraws, 0.5, 4 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 4 * std::sqrt(4.0 / 45 / kDraws));
  EXPECT_NEAR(normal_sum / kDraws, 0, 4 / std::sqrt(kDraws));
  EXPECT_NEAR(normal_squares / kDraws, 1, 4 * std::sqrt(2.0 / kDraws));
}

TEST(Rng, BelowIsUnbiased) {
  Rng rng(7, "below", 0);
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) ++counts.at(rng.below(6));
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 10000.0) * (count - 10000.0) / 10000.0;
  EXPECT_LT(chi_squared, 20.5);  // 99.9 % point for 5 degrees of freedom
}

}  // namespace
}  // namespace gp
