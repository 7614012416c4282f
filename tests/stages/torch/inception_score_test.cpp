#include "stages/torch/inception_score.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

using testing::formula_features;

class InceptionScoreTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  static InceptionScore score(const at::Tensor& logits, int splits, std::int64_t block) {
    InceptionScoreAccumulator accumulator(logits.size(0), splits);
    for (std::int64_t i = 0; i < logits.size(0); i += block) {
      accumulator.add(logits.slice(0, i, i + block));
    }
    return accumulator.finish();
  }
};

TEST_F(InceptionScoreTest, EqualsTorchFidelity) {
  std::ifstream text(GP_SOURCE_DIR "/tests/stages/torch/fixtures/metrics.json");
  const nlohmann::json file = nlohmann::json::parse(text);
  ASSERT_EQ(file["isc"].size(), 4u);
  for (const nlohmann::json& c : file["isc"]) {
    const at::Tensor logits = 4 * formula_features(3, c["count"], c["classes"]);
    for (const std::int64_t block : {7, 10'000}) {
      const InceptionScore found = score(logits, c["splits"], block);
      const double mean = c["mean"];
      EXPECT_NEAR(found.mean, mean, 1e-10 * mean) << c << block;
      EXPECT_NEAR(found.deviation, c["std"].get<double>(), 1e-9) << c << block;
    }
  }
}

TEST_F(InceptionScoreTest, IsTheNumberOfClassesWhereEachImageIsSureOfAnother) {
  const at::Tensor sure = 1e4 * at::eye(8, at::kDouble);
  EXPECT_NEAR(score(sure, 1, 8).mean, 8, 1e-9);
  EXPECT_NEAR(score(at::zeros({8, 5}), 2, 3).mean, 1, 1e-12);       // sure of nothing
  EXPECT_NEAR(score(sure[0].expand({8, 8}), 2, 3).mean, 1, 1e-12);  // all the same
  EXPECT_EQ(score(at::zeros({8, 5}), 2, 3).deviation, 0);
}

TEST_F(InceptionScoreTest, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(InceptionScoreAccumulator(9), DataError);  // 10 splits
  InceptionScoreAccumulator accumulator(10);
  accumulator.add(at::ones({9, 5}));
  EXPECT_THROW(accumulator.finish(), DataError);
  EXPECT_THROW(accumulator.add(at::ones({1, 4})), DataError);
  EXPECT_THROW(accumulator.add(at::ones({2, 5})), DataError);
  accumulator.add(at::ones({1, 5}));
  EXPECT_EQ(accumulator.finish().mean, 1);
}

}  // namespace
}  // namespace gp
