#include "stages/torch/kernel_distance.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "pipeline/error.hpp"
#include "stages/torch/bootstrap.hpp"
#include "stages/torch/safetensors.hpp"
#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

using testing::bent_features;
using testing::formula_features;
using testing::normal_features;

const char kFixtures[] = GP_SOURCE_DIR "/tests/stages/torch/fixtures/";

class KernelDistanceTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(KernelDistanceTest, EqualsTorchFidelity) {
  std::ifstream text(std::string(kFixtures) + "metrics.json");
  const nlohmann::json file = nlohmann::json::parse(text);
  ASSERT_EQ(file["cases"].size(), 4u);
  for (const nlohmann::json& c : file["cases"]) {
    const std::int64_t d = c["dimensions"];
    const KernelDistance found =
        kernel_distance(formula_features(1, c["counts"][0], d), bent_features(2, c["counts"][1], d),
                        {c["subsets"], c["subset_size"]});
    const double mean = c["kid"]["mean"];
    const double deviation = c["kid"]["std"];
    EXPECT_NEAR(found.mean, mean, 1e-8 * mean) << c;
    EXPECT_NEAR(found.deviation, deviation, 1e-8 * deviation) << c;
    EXPECT_EQ(found.subset_size, c["subset_size"]);
  }
}

TEST_F(KernelDistanceTest, EqualsTorchFidelityOnFeaturesOfPhotos) {
  std::ifstream text(std::string(kFixtures) + "metrics.json");
  const nlohmann::json expected = nlohmann::json::parse(text)["photos_8_against_8"]["kid"];
  const at::Tensor photos =
      read_safetensors(std::string(kFixtures) + "efficientnet_lite0.safetensors")
          .tensors.at("photo_features");
  const KernelDistance found = kernel_distance(photos.slice(0, 0, 8), photos.slice(0, 8), {20, 5});
  EXPECT_NEAR(found.mean, expected["mean"].get<double>(), 1e-9);
  EXPECT_NEAR(found.deviation, expected["std"].get<double>(), 1e-9);
}

TEST_F(KernelDistanceTest, OfTwoHandMadeVectorsEach) {
  // D = 1, k(x, y) = (x y + 1)^3. Fakes 0, 1: k = 1. Reals 2, 3: k = 343. Between: 1, 1, 27, 64.
  const at::Tensor fakes = at::tensor({0.0F, 1.0F}).view({2, 1});
  const at::Tensor reals = at::tensor({2.0F, 3.0F}).view({2, 1});
  const KernelDistance found = kernel_distance(fakes, reals);
  EXPECT_DOUBLE_EQ(found.mean, 1 + 343 - 2 * (1 + 1 + 27 + 64) / 4.0);
  EXPECT_EQ(found.subset_size, 2);  // lowered from 1,000
  EXPECT_NEAR(found.deviation, 0, 1e-12);
  EXPECT_FALSE(found.has_deviation(2, 2));
  EXPECT_TRUE(found.has_deviation(2, 3));
}

TEST_F(KernelDistanceTest, AlikeSetsAreNearZeroOnBothSides) {
  // Twenty pairs from one distribution: an unbiased estimate is not always above zero.
  int below = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto set = [](std::uint64_t seed) {
      return formula_features(seed, 50, 8) - 0.125 * static_cast<double>(seed);
    };
    below += kernel_distance(set(100 + 2 * i), set(101 + 2 * i)).mean < 0;
  }
  EXPECT_GE(below, 4);
  EXPECT_LE(below, 16);
}

TEST_F(KernelDistanceTest, TheIntervalHoldsWhatOtherDrawsGive) {
  constexpr int kDraws = 250;
  std::vector<KernelDistance> found;
  double mean = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    found.push_back(kernel_distance(1.3 * normal_features(2 * i, 80, 6) + 0.4,
                                    normal_features(2 * i + 1, 60, 6)));
    mean += found.back().mean / kDraws;
  }
  int held = 0;
  double squares = 0;
  double error = 0;
  for (const KernelDistance& kid : found) {
    const Interval interval = confidence_interval(kid.mean, kid.standard_error, 100);
    held += interval.low <= mean && mean <= interval.high;
    squares += (kid.mean - mean) * (kid.mean - mean) / (kDraws - 1);
    error += kid.standard_error / kDraws;
  }
  EXPECT_NEAR(held / double{kDraws}, 0.95, 0.05);  // 1.4 % is what 250 draws tell
  EXPECT_NEAR(error, std::sqrt(squares), 0.2 * std::sqrt(squares));
}

TEST_F(KernelDistanceTest, TheErrorIsThatOfDrawnSetsWithoutPairsOfAVectorWithItself) {
  const at::Tensor fakes = formula_features(1, 12, 3);
  const at::Tensor reals = bent_features(2, 9, 3);
  constexpr int kResamples = 6;
  const at::Tensor of_fakes = resample_counts(12, kResamples, "bootstrap fakes");
  const at::Tensor of_reals = resample_counts(9, kResamples, "bootstrap reals");
  const auto kernel = [](const at::Tensor& x, const at::Tensor& y) {
    return std::pow(at::dot(x, y).item<double>() / 3 + 1, 3);
  };
  std::vector<double> values;
  for (int r = 0; r < kResamples; ++r) {
    const auto mean = [&](const at::Tensor& a, const at::Tensor& times_a, const at::Tensor& b,
                          const at::Tensor& times_b, bool one_set) {
      double sum = 0;
      for (std::int64_t i = 0; i < a.size(0); ++i) {
        for (std::int64_t j = 0; j < b.size(0); ++j) {
          if (one_set && i == j) continue;
          sum += kernel(a[i], b[j]) * times_a[i][r].item<double>() * times_b[j][r].item<double>();
        }
      }
      return sum / static_cast<double>(a.size(0) * (one_set ? a.size(0) - 1 : b.size(0)));
    };
    values.push_back(mean(fakes, of_fakes, fakes, of_fakes, true) +
                     mean(reals, of_reals, reals, of_reals, true) -
                     2 * mean(fakes, of_fakes, reals, of_reals, false));
  }
  const double expected = at::tensor(values, at::kDouble).std().item<double>();
  EXPECT_NEAR(kernel_distance(fakes, reals, {1, 9, 2020, kResamples}).standard_error, expected,
              1e-9 * expected);
  EXPECT_EQ(kernel_distance(fakes, reals, {1, 9, 2020, 0}).standard_error, 0);
}

TEST_F(KernelDistanceTest, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(kernel_distance(at::ones({5, 3}), at::ones({5, 4})), DataError);
  EXPECT_THROW(kernel_distance(at::ones({5}), at::ones({5})), DataError);
  EXPECT_THROW(kernel_distance(at::ones({1, 3}), at::ones({5, 3})), DataError);
  EXPECT_THROW(kernel_distance(at::ones({5, 3}), at::ones({5, 3}), {0}), DataError);
}

}  // namespace
}  // namespace gp
