#include "stages/torch/feature_set.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "pipeline/error.hpp"

namespace gp {
namespace {

/// Rows 0 .. n-1, each with its number in the first place.
at::Tensor numbered(std::int64_t n) {
  const at::Tensor numbers = at::arange(n, at::kFloat);
  return at::stack({numbers, numbers.square()}, 1);
}

FeatureSet collect(const at::Tensor& features, std::int64_t capacity, std::int64_t block) {
  FeatureCollector collector(capacity);
  for (std::int64_t first = 0; first < features.size(0); first += block) {
    collector.add(features.slice(0, first, first + block));
  }
  return collector.finish();
}

TEST(FeatureCollector, KeepsAllVectorsInOrderUpToItsCapacity) {
  const at::Tensor x = numbered(50);
  for (const std::int64_t block : {1, 7, 50}) {
    const FeatureSet set = collect(x, 50, block);
    EXPECT_TRUE(at::equal(set.vectors, x)) << block;
    EXPECT_EQ(set.statistics.count, 50);
    EXPECT_TRUE(at::allclose(set.statistics.mean, x.to(at::kDouble).mean(0)));
  }
}

TEST(FeatureCollector, AboveItsCapacityKeepsASampleWhicheverTheBlocks) {
  const at::Tensor x = numbered(400);
  const FeatureSet set = collect(x, 100, 64);
  EXPECT_EQ(set.statistics.count, 400);  // the statistics are of all
  EXPECT_NEAR(set.statistics.mean[0].item<double>(), 199.5, 1e-9);
  ASSERT_EQ(set.vectors.sizes(), (std::vector<std::int64_t>{100, 2}));
  EXPECT_TRUE(at::equal(set.vectors, collect(x, 100, 400).vectors));
  const at::Tensor numbers = set.vectors.select(1, 0);
  EXPECT_TRUE(at::equal(set.vectors.select(1, 1), numbers.square()));  // whole rows
  EXPECT_EQ(std::get<0>(at::_unique(numbers)).size(0), 100);           // none twice
  // From everywhere: each quarter has 25 of them, give or take 3.8; the mean is off by 10.
  for (int quarter = 0; quarter < 4; ++quarter) {
    const auto inside = at::logical_and(numbers >= 100 * quarter, numbers < 100 * (quarter + 1));
    EXPECT_NEAR(inside.sum().item<double>(), 25, 4 * 3.8) << quarter;
  }
  EXPECT_NEAR(numbers.mean().item<double>(), 199.5, 40);
  const std::vector<std::int64_t> places = FeatureCollector::kept_places(400, 100);
  EXPECT_TRUE(at::equal(numbers, at::tensor(places).to(at::kFloat)));
  EXPECT_EQ(FeatureCollector::kept_places(3, 100), (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(FeatureCollector, RefusesWhatHasNoMeaning) {
  FeatureCollector collector;
  collector.add(at::ones({1, 3}));
  EXPECT_THROW(collector.finish(), DataError);
  EXPECT_THROW(collector.add(at::full({1, 3}, std::nan(""))), DataError);
  collector.add(at::empty({0, 3}));
  collector.add(at::zeros({1, 3}));
  EXPECT_EQ(collector.finish().vectors.size(0), 2);
}

}  // namespace
}  // namespace gp
