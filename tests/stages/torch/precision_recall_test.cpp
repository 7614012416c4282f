#include "stages/torch/precision_recall.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "stages/torch/safetensors.hpp"
#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

using testing::bent_features;
using testing::formula_features;

const char kFixtures[] = GP_SOURCE_DIR "/tests/stages/torch/fixtures/";

class PrecisionRecallTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(PrecisionRecallTest, EqualsTorchFidelity) {
  std::ifstream text(std::string(kFixtures) + "metrics.json");
  const nlohmann::json file = nlohmann::json::parse(text);
  ASSERT_EQ(file["cases"].size(), 4u);
  for (const nlohmann::json& c : file["cases"]) {
    const std::int64_t d = c["dimensions"];
    const PrecisionRecall found = precision_recall(formula_features(1, c["counts"][0], d),
                                                   bent_features(2, c["counts"][1], d));
    // Shares of whole images, which the peer rounds to float.
    EXPECT_NEAR(found.precision, c["prc"]["precision"].get<double>(), 1e-6) << c;
    EXPECT_NEAR(found.recall, c["prc"]["recall"].get<double>(), 1e-6) << c;
  }
}

TEST_F(PrecisionRecallTest, EqualsTorchFidelityOnFeaturesOfPhotos) {
  std::ifstream text(std::string(kFixtures) + "metrics.json");
  const nlohmann::json expected = nlohmann::json::parse(text)["photos_8_against_8"]["prc"];
  const at::Tensor photos =
      read_safetensors(std::string(kFixtures) + "efficientnet_lite0.safetensors")
          .tensors.at("photo_features");
  const PrecisionRecall found = precision_recall(photos.slice(0, 0, 8), photos.slice(0, 8));
  EXPECT_EQ(found.precision, expected["precision"]);
  EXPECT_EQ(found.recall, expected["recall"]);
}

TEST_F(PrecisionRecallTest, OfHandMadeNumbersOnALine) {
  // Two neighbours. Reals 0, 1, 2, 10: balls reach 2, 1, 2, 9. Fakes 4, 20, 21, 23: 17, 3, 2, 3.
  const at::Tensor reals = at::tensor({0.0F, 1.0F, 2.0F, 10.0F}).view({4, 1});
  const at::Tensor fakes = at::tensor({4.0F, 20.0F, 21.0F, 23.0F}).view({4, 1});
  const PrecisionRecall found = precision_recall(fakes, reals, 2);
  EXPECT_EQ(found.precision, 0.25);  // 4 is within 9 of 10; 20 is not
  EXPECT_EQ(found.recall, 1.0);      // all are within 17 of 4
  const PrecisionRecall swapped = precision_recall(reals, fakes, 2);
  EXPECT_EQ(swapped.precision, 1.0);
  EXPECT_EQ(swapped.recall, 0.25);
}

TEST_F(PrecisionRecallTest, EqualSetsAreWhollyPreciseWhateverTheRounding) {
  const at::Tensor x = formula_features(1, 1100, 8) + 1e4;  // more than one block
  EXPECT_EQ(precision_recall(x, x).precision, 1);
  EXPECT_EQ(precision_recall(x, x.flip(0)).recall, 1);
  const at::Tensor constant = at::full({9, 5}, 0.1);  // balls of radius 0
  EXPECT_EQ(precision_recall(constant, constant).precision, 1);
  EXPECT_EQ(precision_recall(constant, constant + 1).precision, 0);
  EXPECT_EQ(precision_recall(constant, constant + 1).recall, 0);
}

TEST_F(PrecisionRecallTest, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(precision_recall(at::ones({5, 3}), at::ones({5, 4})), DataError);
  EXPECT_THROW(precision_recall(at::ones({5}), at::ones({5})), DataError);
  EXPECT_THROW(precision_recall(at::ones({3, 2}), at::ones({9, 2})), DataError);
  EXPECT_THROW(precision_recall(at::ones({9, 2}), at::ones({3, 2})), DataError);
  EXPECT_NO_THROW(precision_recall(at::ones({4, 2}), at::ones({4, 2})));
}

}  // namespace
}  // namespace gp
