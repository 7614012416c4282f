#include "stages/torch/inception_v3.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/image.hpp"
#include "stages/torch/feature_extractor.hpp"
#include "tests/stages/torch/drawn_inception.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::DrawnWeights;

const fs::path kFixture = GP_SOURCE_DIR "/tests/stages/torch/fixtures/inception_v3.safetensors";
/// As in fixtures/make_inception_v3.py.
const std::vector<ImageShape> kShapes = {{61, 97}, {331, 517}, {33, 401}};

Image synthetic(ImageShape shape) {
  Image image(shape.height, shape.width);
  for (int y = 0; y < shape.height; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.view().row(y)[3 * x + c] =
            static_cast<std::uint8_t>((x * x * (c + 1) + 3 * y * y + x * y * (2 - c)) / 64 % 256);
      }
    }
  }
  return image;
}

/// The largest difference of two feature vectors: each element's relative to its size, or where it
/// is below the vector's mean, to that.
double difference(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor scale = at::maximum(expected.abs(), expected.abs().mean());
  return ((actual - expected).abs() / scale).max().item<double>();
}

class InceptionV3Test : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { drawn_ = std::make_unique<DrawnWeights>(); }
  static void TearDownTestSuite() { drawn_.reset(); }
  /// One thread: tests run side by side, and OpenMP's threads wait for each other by spinning.
  void SetUp() override { at::set_num_threads(1); }

  static std::string message(const Safetensors& weights) {
    try {
      const InceptionV3 network(weights, "some.safetensors");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  }
  /// All three images' features by `protocol` against the peer's, and not against the others'.
  static void expect_parity(const std::string& protocol) {
    const Safetensors fixture = read_safetensors(kFixture);
    const auto extractor = make_feature_extractor("inception_v3", drawn_->file(), protocol);
    EXPECT_EQ(extractor->distance(), "FID (Inception, " + protocol + ")");
    for (std::size_t i = 0; i < kShapes.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const at::Tensor features =
          extractor->features(synthetic(kShapes[i]).pixels().data(), kShapes[i], 1);
      ASSERT_EQ(features.sizes(), (at::IntArrayRef{1, InceptionV3::kFeatures}));
      for (const std::string& name : feature_protocol_names()) {
        const double worst = difference(features[0], fixture.tensors.at(name)[row]);
        if (name == protocol) {
          EXPECT_LT(worst, 1e-4) << name << ", image " << i;
        } else {
          EXPECT_GT(worst, 1e-3) << name << ", image " << i;  // else the test could not tell
        }
      }
    }
  }

  static std::unique_ptr<DrawnWeights> drawn_;
};
std::unique_ptr<DrawnWeights> InceptionV3Test::drawn_;

TEST_F(InceptionV3Test, LegacyPytorchGivesPytorchFidsFeatures) { expect_parity("legacy_pytorch"); }

TEST_F(InceptionV3Test, CleanGivesCleanFidsFeatures) { expect_parity("clean"); }

TEST_F(InceptionV3Test, LegacyTensorflowGivesTorchFidelitysFeatures) {
  expect_parity("legacy_tensorflow");
}

TEST_F(InceptionV3Test, ClassScoresAreTorchFidelitys) {
  const Safetensors fixture = read_safetensors(kFixture);
  const auto extractor = make_feature_extractor("inception_v3", drawn_->file());
  const at::Tensor logits = extractor->unbiased_logits(fixture.tensors.at("legacy_tensorflow"));
  const at::Tensor& expected = fixture.tensors.at("legacy_tensorflow_logits_unbiased");
  ASSERT_EQ(logits.sizes(), expected.sizes());
  EXPECT_LT((logits - expected).abs().max().item<double>(),
            1e-5 * expected.abs().mean().item<double>());
}

TEST_F(InceptionV3Test, FeaturesDependOnTheImageNotOnItsCompany) {
  const auto extractor = make_feature_extractor("inception_v3", drawn_->file());
  EXPECT_EQ(extractor->distance(), "FID (Inception, clean)");
  const ImageShape shape{40, 56};
  std::vector<std::uint8_t> images;
  for (int i = 0; i < 5; ++i) {  // more than are taken at a time
    Image image = synthetic(shape);
    for (std::uint8_t& value : image.pixels()) value = static_cast<std::uint8_t>(value + 31 * i);
    images.insert(images.end(), image.pixels().begin(), image.pixels().end());
  }
  const at::Tensor together = extractor->features(images.data(), shape, 5);
  at::set_num_threads(2);
  EXPECT_TRUE(at::equal(extractor->features(images.data(), shape, 5), together));
  at::set_num_threads(1);
  for (const int i : {0, 4}) {
    const at::Tensor alone =
        extractor->features(images.data() + static_cast<std::size_t>(i) * shape.bytes(), shape, 1);
    EXPECT_TRUE(at::equal(together[i], alone[0])) << i;
  }
  EXPECT_GT(difference(together[0], together[4]), 1e-3);
}

TEST_F(InceptionV3Test, NamesEveryTensorThatIsNotRight) {
  Safetensors weights = drawn_->weights();
  weights.tensors["Mixed_5b.branch1x1.bn.num_batches_tracked"] = at::zeros({}, at::kLong);
  EXPECT_EQ(message(weights), "");
  weights.tensors.erase("Mixed_6c.branch7x7_2.conv.weight");
  weights.tensors["fc.weight"] = at::zeros({1000, 2048});  // torchvision's classes
  weights.tensors["Conv2d_1a_3x3.bn.bias"] = at::full({32}, NAN);
  weights.tensors["Mixed_7c.branch_pool.bn.running_var"] = at::full({192}, -1.0);
  weights.tensors["AuxLogits.fc.bias"] = at::zeros({1000});
  const std::string text = message(weights);
  EXPECT_EQ(text.rfind("some.safetensors: ", 0), 0u) << text;
  for (const char* expected :
       {"'Mixed_6c.branch7x7_2.conv.weight' is missing",
        "'fc.weight' is Float [1000, 2048], expected Float [1008, 2048]",
        "'Conv2d_1a_3x3.bn.bias' holds NaN",
        "'Mixed_7c.branch_pool.bn.running_var' holds negative values",
        "'AuxLogits.fc.bias' is not one of the network's", "tools/convert_weights.py"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\n" << text;
  }
  EXPECT_NE(message({}).find("more"), std::string::npos);
}

TEST(FeatureProtocol, IsRefusedWhereTheExtractorDoesNotHaveIt) {
  for (const std::string& name : feature_protocol_names()) {
    EXPECT_NO_THROW(check_feature_protocol("inception_v3", name));
    EXPECT_THROW(check_feature_protocol("efficientnet_lite0", name), ConfigError);
  }
  EXPECT_NO_THROW(check_feature_protocol("efficientnet_lite0", ""));
  EXPECT_THROW(check_feature_protocol("inception_v3", "legacy"), ConfigError);
}

TEST(SquashBilinearTf1, PutsPixelCentresAtIntegers) {
  // A ramp of 2 pixels grown to 4: points 0, 0.5, 1, 1.5; the last is cut at the border.
  const std::vector<std::uint8_t> pixels = {0, 0, 0, 100, 100, 100};
  const at::Tensor x = squash_bilinear_tf1(pixels.data(), {1, 2}, 1, 4, at::kCPU);
  EXPECT_TRUE(at::equal(x[0][0][3], at::tensor({0.0F, 50.0F, 100.0F, 100.0F}))) << x;
}

}  // namespace
}  // namespace gp
