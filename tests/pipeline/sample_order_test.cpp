#include "pipeline/sample_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

std::vector<std::uint64_t> items(SampleOrder& order, std::uint32_t epoch) {
  order.start_epoch(epoch);
  std::vector<std::uint64_t> result;
  for (std::uint64_t i = 0; i < order.size(); ++i) result.push_back(order.at(i).item);
  return result;
}

TEST(SampleOrder, IsAPermutationThatDependsOnSeedAndEpochOnly) {
  const testing::FakeSource source(1000);
  SampleOrder a(source, 1, true);
  SampleOrder b(source, 1, true);
  SampleOrder other(source, 2, true);
  const auto fifth = items(a, 5);
  items(b, 9);  // wherever it was before
  EXPECT_EQ(items(b, 5), fifth);
  EXPECT_NE(items(other, 5), fifth);
  EXPECT_NE(items(a, 6), fifth);
  auto sorted = fifth;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::uint64_t> all(1000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
}

TEST(SampleOrder, IsTheSameInEveryVersion) {
  // Computed apart from this code: items sorted by mix64(hash64(key) ^ key of the epoch).
  const testing::FakeSource source(12);
  SampleOrder one(source, 1, true);
  EXPECT_EQ(items(one, 0), (std::vector<std::uint64_t>{11, 8, 1, 5, 4, 6, 9, 10, 2, 7, 3, 0}));
  EXPECT_EQ(items(one, 1), (std::vector<std::uint64_t>{3, 1, 2, 5, 6, 10, 4, 11, 7, 9, 0, 8}));
  SampleOrder seven(source, 7, true);
  EXPECT_EQ(items(seven, 3), (std::vector<std::uint64_t>{3, 5, 8, 0, 7, 9, 4, 2, 1, 11, 6, 10}));
}

TEST(SampleOrder, GivesTheHashOfEachKeyInEveryEpoch) {
  const testing::FakeSource source(100);
  for (const bool shuffle : {false, true}) {
    SampleOrder order(source, 5, shuffle);
    for (const std::uint32_t epoch : {0U, 3U, 1U}) {
      order.start_epoch(epoch);
      for (std::uint64_t i = 0; i < order.size(); ++i) {
        ASSERT_EQ(order.at(i).key_hash, hash64(source.key(order.at(i).item)));
      }
    }
  }
}

TEST(SampleOrder, MissingItemsLeaveTheOrderOfTheOthersAlone) {
  const testing::FakeSource source(500);
  SampleOrder all(source, 3, true);
  SampleOrder some(source, 3, true, [](std::uint64_t key) { return key % 4 != 0; });
  ASSERT_LT(some.size(), all.size());
  auto expected = items(all, 2);
  std::erase_if(expected, [&](std::uint64_t item) { return hash64(source.key(item)) % 4 == 0; });
  EXPECT_EQ(items(some, 2), expected);
}

TEST(SampleOrder, WithoutShufflingItIsTheSourcesOwn) {
  const testing::FakeSource source(10);
  SampleOrder order(source, 3, false);
  std::vector<std::uint64_t> expected(10);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(items(order, 7), expected);
}

TEST(HeldOut, TakesItsShareAndNestsWithGrowingFractions) {
  int tenth = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t key = hash64("key" + std::to_string(i));
    if (is_held_out(key, 0.1)) {
      ++tenth;
      EXPECT_TRUE(is_held_out(key, 0.2));
    }
  }
  EXPECT_NEAR(tenth, 2000, 4 * std::sqrt(20000 * 0.1 * 0.9));
}

}  // namespace
}  // namespace gp
