#include "stages/torch/compare_features.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/stages/torch/formula_features.hpp"
#include "tests/support/expect_contains.hpp"

namespace gp {
namespace {

using testing::formula_features;

class CompareFeatures : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  static FeatureSet collect(const at::Tensor& features) {
    FeatureCollector collector;
    collector.add(features);
    return collector.finish();
  }
  /// Of one distribution, whatever the seed.
  static at::Tensor draw(std::uint64_t seed, std::int64_t n, std::int64_t d = 6) {
    return formula_features(seed, n, d) - 0.125 * static_cast<double>(seed);
  }
  static double nearer_than_held_out(const at::Tensor& fakes, const at::Tensor& held_out,
                                     const at::Tensor& train) {
    const FeatureSet training = collect(train);
    return compare_features(collect(fakes), collect(held_out), &training,
                            {false, false, false, true})
        .metrics.at("nearer_than_held_out");
  }
};

TEST_F(CompareFeatures, CopiesAreNearerToTrainingImagesThanHeldOutReals) {
  const at::Tensor train = draw(1, 400);
  const at::Tensor held_out = draw(2, 300);
  // Reals drawn anew are as near as held-out ones: 0.5, known to 2.4 %.
  EXPECT_NEAR(nearer_than_held_out(draw(3, 300), held_out, train), 0.5, 0.08);
  EXPECT_EQ(nearer_than_held_out(train.slice(0, 0, 100), held_out, train), 1);
  EXPECT_GT(nearer_than_held_out(train.slice(0, 0, 100) + 0.01, held_out, train), 0.98);
  EXPECT_LT(nearer_than_held_out(draw(3, 300) + 5, held_out, train), 0.02);  // bad, no copies
  // A tenth of copies among fakes that are like reals.
  const at::Tensor some = at::cat({train.slice(0, 0, 30), draw(3, 270)});
  EXPECT_NEAR(nearer_than_held_out(some, held_out, train),
              0.1 + 0.9 * nearer_than_held_out(draw(3, 270), held_out, train), 1e-9);
}

TEST_F(CompareFeatures, NearerThanHeldOutCountsPairsOnALine) {
  const auto line = [](std::vector<double> x) {
    const auto n = static_cast<std::int64_t>(x.size());
    return at::tensor(x, at::kDouble).view({n, 1});
  };
  // Nearest training images are 0 and 10. Fakes are off by 1, 3; held-out reals by 2, 3, 4: of six
  // pairs the first fake wins three, the second one and a half.
  EXPECT_DOUBLE_EQ(nearer_than_held_out(line({1, 13}), line({2, -3, 14}), line({0, 10})), 4.5 / 6);
}

TEST_F(CompareFeatures, AnIntervalIsAroundItsEstimate) {
  CompareOptions options;
  options.bootstrap = 20;
  const FeatureComparison found =
      compare_features(collect(draw(1, 80)), collect(1.5 * draw(2, 70)), nullptr, options);
  for (const std::string name : {"frechet_distance", "kid"}) {
    const double estimate = found.metrics.at(name);
    const auto interval = found.metrics.at(name + "_ci").get<std::vector<double>>();
    ASSERT_EQ(interval.size(), 2u);
    EXPECT_NEAR((interval[0] + interval[1]) / 2, estimate, 1e-9) << name;
    EXPECT_LT(interval[0], estimate) << name;
  }
  EXPECT_EQ(found.settings.at("bootstrap_resamples"), 20);
  EXPECT_EQ(found.settings.at("confidence"), 0.95);
  EXPECT_FALSE(found.metrics.contains("nearer_than_held_out"));
}

TEST_F(CompareFeatures, TheStopIsAskedForBetweenTheSteps) {
  int calls = 0;
  const auto stop = [&] {
    if (++calls == 3) throw std::string("stopped");
  };
  EXPECT_THROW(compare_features(collect(draw(1, 80)), collect(draw(2, 70)), nullptr, {}, stop),
               std::string);
  EXPECT_EQ(calls, 3);
}

TEST_F(CompareFeatures, SaysWhatFewImagesDo) {
  const auto warning = [](std::int64_t fakes, std::int64_t reals, nlohmann::ordered_json metrics) {
    const auto of = [](std::int64_t n) {
      return FeatureStatistics{n, at::zeros({10}, at::kDouble), at::eye(10, at::kDouble)};
    };
    return few_images_warning("FD-X", of(fakes), of(reals), metrics);
  };
  EXPECT_CONTAINS(warning(10, 999, {{"frechet_distance", 3.0}}), "the covariances are incomplete");
  EXPECT_CONTAINS(warning(99, 10, {{"frechet_distance", 3.0}, {"floor", 1.0}}), "incomplete");
  EXPECT_CONTAINS(warning(49, 999, {{"frechet_distance", 3.0}}), "few for the 10 dimensions");
  EXPECT_EQ(warning(50, 50, {{"frechet_distance", 3.0}}), "");
  EXPECT_CONTAINS(warning(999, 999, {{"frechet_distance", 3.0}, {"floor", 0.6}}),
                  "of FD-X = 3, about 0.6 (the floor, 20 %) is what even perfect fakes would get, "
                  "because 999 fakes and 999 reals are few.");
  EXPECT_CONTAINS(warning(999, 999, {{"frechet_distance", 0.5}, {"floor", 0.6}}),
                  "FD-X = 0.5 is no more than the floor, and 0.6 is what even perfect fakes");
  EXPECT_EQ(warning(11, 11, {{"frechet_distance", 30.0}, {"floor", 0.6}}), "");
  EXPECT_EQ(warning(11, 11, {{"frechet_distance", 0.0}, {"floor", 0.0}}), "");
}

}  // namespace
}  // namespace gp
