#include "stages/torch/pair_share.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

TEST(PairShare, CountsPairsAndHalvesTies) {
  EXPECT_DOUBLE_EQ(pair_share({3, 5}, {1, 2}), 1);
  EXPECT_DOUBLE_EQ(pair_share({1, 2}, {3, 5}), 0);
  EXPECT_DOUBLE_EQ(pair_share({1, 2, 3}, {2, 2}), 0.5);
  EXPECT_DOUBLE_EQ(pair_share({4, 2}, {2, 3, 1}), (3 + 1.5) / 6);
  EXPECT_DOUBLE_EQ(pair_share({}, {1}), 0);
}

TEST(PairShare, NanIsNeverGreater) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_DOUBLE_EQ(pair_share({nan, 1}, {0, nan}), 0.25);
  EXPECT_DOUBLE_EQ(pair_share({nan}, {0}), 0);
}

TEST(PairShare, EqualsCountingEveryPair) {
  Rng rng(1, "pair_share_test", 0);
  std::vector<double> a;
  std::vector<double> b;
  for (int i = 0; i < 200; ++i) a.push_back(rng.below(50));
  for (int i = 0; i < 150; ++i) b.push_back(rng.below(40));
  double greater = 0;
  for (const double x : a) {
    for (const double y : b) greater += x > y ? 1 : x == y ? 0.5 : 0;
  }
  EXPECT_DOUBLE_EQ(pair_share(a, b), greater / (200 * 150));
}

}  // namespace
}  // namespace gp
