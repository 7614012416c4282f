#include "stages/torch/random_subsets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace gp {
namespace {

using Numbers = std::vector<std::int64_t>;

TEST(RandomSubsets, EqualNumpysChoice) {
  // r = numpy.random.RandomState(2020); r.choice(10, 4, replace=False); .. (numpy 2.4.6)
  RandomSubsets subsets(2020);
  EXPECT_EQ(subsets.next(10, 4), (Numbers{2, 4, 9, 1}));
  EXPECT_EQ(subsets.next(7, 7), (Numbers{4, 3, 1, 2, 5, 6, 0}));
  EXPECT_EQ(subsets.next(1000, 3), (Numbers{137, 472, 829}));
}

TEST(RandomSubsets, HoldEachNumberOnce) {
  RandomSubsets subsets(1);
  EXPECT_EQ(subsets.next(1, 1), Numbers{0});
  EXPECT_EQ(subsets.next(5, 0), Numbers{});
  Numbers all = subsets.next(1025, 1025);
  EXPECT_FALSE(std::is_sorted(all.begin(), all.end()));
  std::sort(all.begin(), all.end());
  for (std::int64_t i = 0; i < 1025; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)], i);
}

}  // namespace
}  // namespace gp
