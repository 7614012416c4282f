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
