#include "stages/torch/frechet.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "stages/torch/bootstrap.hpp"
#include "stages/torch/safetensors.hpp"
#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

const char kFixtures[] = GP_SOURCE_DIR "/tests/stages/torch/fixtures/";

using testing::formula_features;
using testing::normal_features;

FeatureStatistics statistics(const at::Tensor& features, std::int64_t block = 64) {
  FeatureAccumulator accumulator;
  for (std::int64_t first = 0; first < features.size(0); first += block) {
    accumulator.add(features.slice(0, first, first + block));
  }
  return accumulator.finish();
}

/// One thread: tests run side by side, and OpenMP's threads wait for each other by spinning.
class Frechet : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

nlohmann::json fixture() {
  std::ifstream file(std::string(kFixtures) + "frechet.json");
  return nlohmann::json::parse(file);
}

TEST_F(Frechet, EqualsScipysMatrixSquareRoot) {
  const nlohmann::json file = fixture();
  ASSERT_EQ(file["cases"].size(), 4u);
  for (const nlohmann::json& c : file["cases"]) {
    const std::int64_t d = c["dimensions"];
    const FeatureStatistics a = statistics(formula_features(c["seeds"][0], c["counts"][0], d));
    const FeatureStatistics b = statistics(formula_features(c["seeds"][1], c["counts"][1], d));
    const double expected = c["distance"];
    EXPECT_NEAR(frechet_distance(a, b), expected, 1e-9 * expected) << c;
    EXPECT_NEAR(frechet_distance(b, a), expected, 1e-9 * expected) << c;
  }
}

TEST_F(Frechet, EqualsScipyOnFeaturesOfPhotos) {
  const at::Tensor photos =
      read_safetensors(std::string(kFixtures) + "efficientnet_lite0.safetensors")
          .tensors.at("photo_features")
          .narrow(1, 0, 6);
  const double expected = fixture()["photos_first_6_dimensions_8_against_8"];
  EXPECT_NEAR(frechet_distance(statistics(photos.slice(0, 0, 8)), statistics(photos.slice(0, 8))),
              expected, 1e-9 * expected);
}

TEST_F(Frechet, EqualsTheClosedFormForDiagonalCovariances) {
  // d^2 = sum (m1 - m2)^2 + (s1 - s2)^2
  const at::Tensor s1 = at::tensor({1.0, 2.0, 0.0, 5.0}, at::kDouble);
  const at::Tensor s2 = at::tensor({3.0, 2.0, 1.0, 0.0}, at::kDouble);
  const at::Tensor m = at::tensor({1.0, 0.0, -2.0, 0.0}, at::kDouble);
  const FeatureStatistics a{10, at::zeros({4}, at::kDouble), at::diag(s1.square())};
  const FeatureStatistics b{10, m, at::diag(s2.square())};
  EXPECT_NEAR(frechet_distance(a, b), 5.0 + 4 + 0 + 1 + 25, 1e-12);
}

TEST_F(Frechet, OfASetWithItselfIsZeroUpToRounding) {
  const FeatureStatistics full = statistics(formula_features(3, 300, 64));
  const double scale = full.covariance.trace().item<double>();
  EXPECT_LT(frechet_distance(full, full), 1e-12 * scale);
  const FeatureStatistics deficient = statistics(formula_features(3, 20, 64));
  EXPECT_LT(frechet_distance(deficient, deficient), 1e-12 * scale);
  const FeatureStatistics equal = statistics(at::ones({5, 7}, at::kDouble));
  EXPECT_EQ(frechet_distance(equal, equal), 0);
}

TEST_F(Frechet, FewerSamplesThanDimensionsAreExactAndSaid) {
  // 2 x 12 vectors in 64 dimensions: the distance inside the 24-dimensional space that they span is
  // the same, and there nothing is lost.
  const at::Tensor x = formula_features(1, 12, 64);
  const at::Tensor y = formula_features(2, 12, 64);
  const auto qr = at::linalg_qr(at::cat({x, y}).t());
  const at::Tensor& basis = std::get<0>(qr);  // [64,24]
  EXPECT_NEAR(frechet_distance(statistics(x), statistics(y)),
              frechet_distance(statistics(at::mm(x, basis)), statistics(at::mm(y, basis))), 1e-9);

  EXPECT_TRUE(statistics(x).rank_deficient());
  EXPECT_TRUE(statistics(formula_features(1, 64, 64)).rank_deficient());  // rank 63
  EXPECT_FALSE(statistics(formula_features(1, 65, 64)).rank_deficient());
}

TEST_F(Frechet, AccumulatesTheSameHoweverItIsCut) {
  const at::Tensor x = formula_features(5, 101, 10);
  const at::Tensor covariance = at::cov(x.t());  // unbiased
  for (const int block : {1, 7, 64, 101, 1000}) {
    const FeatureStatistics s = statistics(x, block);
    EXPECT_EQ(s.count, 101);
    EXPECT_TRUE(at::allclose(s.mean, x.mean(0), 1e-13, 1e-13)) << block;
    EXPECT_TRUE(at::allclose(s.covariance, covariance, 1e-12, 1e-12)) << block;
  }
}

TEST_F(Frechet, AMeanFarFromZeroCostsNoDigits) {
  const at::Tensor x = formula_features(5, 200, 4);
  const FeatureStatistics near = statistics(x);
  const FeatureStatistics far = statistics(x + 1e6);  // sums of squares would lose 12 digits of 16
  EXPECT_LT((near.covariance - far.covariance).abs().max().item<double>(), 1e-8);
}

TEST_F(Frechet, TheIntervalHoldsWhatOtherDrawsGive) {
  constexpr int kDraws = 300;
  constexpr int kResamples = 20;
  constexpr int kDimensions = 6;
  std::vector<double> distances;
  std::vector<double> errors;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const at::Tensor a = 1.3 * normal_features(2 * i, 80, kDimensions) + 0.4;
    const at::Tensor b = normal_features(2 * i + 1, 60, kDimensions);
    distances.push_back(frechet_distance(feature_statistics(a), feature_statistics(b)));
    errors.push_back(frechet_standard_error(a, b, kResamples));
  }
  const at::Tensor found = at::tensor(distances, at::kDouble);
  const double mean = found.mean().item<double>();
  const double spread = found.std().item<double>();
  // The distance itself: 6 * 0.4^2 + 0.3^2 * (1 + 1/4 + 1/9 + ..). The mean is larger: few images.
  const double exact = 6 * 0.16 + 0.09 * (1 + 1 / 4.0 + 1 / 9.0 + 1 / 16.0 + 1 / 25.0 + 1 / 36.0);
  EXPECT_GT(mean, exact + 4 * spread / std::sqrt(kDraws));
  EXPECT_LT(mean, 1.3 * exact);
  int held = 0;
  for (std::size_t i = 0; i < distances.size(); ++i) {
    const Interval interval = confidence_interval(distances[i], errors[i], kResamples);
    held += interval.low <= mean && mean <= interval.high;
  }
  // 95 %, of which 300 draws tell 1.3 % more or less; 4 of those.
  EXPECT_NEAR(held / double{kDraws}, 0.95, 0.05);
  // And not by being wide: the errors are those of the draws, known to 4 %.
  EXPECT_NEAR(at::tensor(errors, at::kDouble).mean().item<double>(), spread, 0.15 * spread);
}

TEST_F(Frechet, TheBootstrapIsRepeatableStoppableAndRefusesTooLittle) {
  const at::Tensor a = formula_features(1, 30, 2);
  const at::Tensor b = formula_features(2, 20, 2);
  int calls = 0;
  const double error = frechet_standard_error(a, b, 10, [&] { ++calls; });
  EXPECT_EQ(calls, 20);
  EXPECT_EQ(frechet_standard_error(a, b, 10), error);
  const auto stop = [] { throw DataError("stopped"); };
  EXPECT_THROW(frechet_standard_error(a, b, 10, stop), DataError);
  EXPECT_THROW(frechet_standard_error(a, b, 1), DataError);
  EXPECT_THROW(frechet_standard_error(a, formula_features(2, 20, 3), 10), DataError);
  EXPECT_THROW(frechet_standard_error(a, b.slice(0, 0, 3), 2), DataError);
  EXPECT_NO_THROW(frechet_standard_error(a, b.slice(0, 0, 4), 2));
}

TEST_F(Frechet, TheBootstrapEqualsDistancesOfDrawnSets) {
  // With fewer vectors than dimensions, too.
  for (const std::int64_t n : {60, 9}) {
    const at::Tensor a = formula_features(1, n, 12);
    const at::Tensor b = formula_features(2, 40, 12);
    constexpr int kResamples = 5;
    const auto variance = [&](const at::Tensor& varied, const at::Tensor& fixed,
                              const char* purpose) {
      const at::Tensor counts = resample_counts(varied.size(0), kResamples, purpose).to(at::kLong);
      std::vector<double> distances;
      for (int r = 0; r < kResamples; ++r) {
        const at::Tensor drawn = varied.repeat_interleave(counts.select(1, r), 0);
        distances.push_back(frechet_distance(feature_statistics(drawn), feature_statistics(fixed)));
      }
      return at::tensor(distances, at::kDouble).var().item<double>();
    };
    const double expected =
        std::sqrt(variance(a, b, "bootstrap fakes") + variance(b, a, "bootstrap reals"));
    EXPECT_NEAR(frechet_standard_error(a, b, kResamples), expected, 1e-4 * expected) << n;
  }
}

TEST_F(Frechet, RefusesWhatHasNoMeaning) {
  FeatureAccumulator accumulator;
  EXPECT_THROW(accumulator.finish(), DataError);
  accumulator.add(at::empty({0, 3}));
  accumulator.add(at::ones({1, 3}));
  EXPECT_THROW(accumulator.finish(), DataError);
  EXPECT_THROW(accumulator.add(at::ones({1, 4})), DataError);
  EXPECT_THROW(accumulator.add(at::ones({3})), DataError);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor x = at::ones({4, 3});
    x[2][1] = bad;
    EXPECT_THROW(accumulator.add(x), DataError);
  }
  EXPECT_EQ(accumulator.count(), 1);  // what was refused left nothing behind

  const FeatureStatistics a = statistics(formula_features(1, 9, 3));
  EXPECT_THROW(frechet_distance(a, statistics(formula_features(1, 9, 4))), DataError);
  const FeatureStatistics negative{9, at::zeros({3}, at::kDouble), -at::eye(3, at::kDouble)};
  EXPECT_THROW(frechet_distance(a, negative), DataError);
  const FeatureStatistics nan{9, at::zeros({3}, at::kDouble),
                              at::full({3, 3}, std::nan(""), at::kDouble)};
  EXPECT_THROW(frechet_distance(a, nan), DataError);
}

}  // namespace
}  // namespace gp
