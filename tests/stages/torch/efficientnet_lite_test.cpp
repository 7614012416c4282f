#include "stages/torch/efficientnet_lite.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/feature_extractor.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

const fs::path kFixture =
    GP_SOURCE_DIR "/tests/stages/torch/fixtures/efficientnet_lite0.safetensors";
const fs::path kPhotos = GP_SOURCE_DIR "/../shared/data/fgvc-aircraft-2013b/data/images";
constexpr int kAirliner = 404;

/// Finds the weights, or skips the test: they are made by tools/bootstrap.
#define GP_WEIGHTS_OR_SKIP(file)                   \
  fs::path file;                                   \
  try {                                            \
    file = find_weights("efficientnet_lite0", {}); \
  } catch (const DataError& e) {                   \
    GTEST_SKIP() << e.what();                      \
  }

/// The image of fixtures/make_efficientnet_lite0.py.
Image synthetic(int height, int width) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.view().row(y)[3 * x + c] =
            static_cast<std::uint8_t>((x * x * (c + 1) + 3 * y * y + x * y * (2 - c)) / 64 % 256);
      }
    }
  }
  return image;
}

/// Two images' features agree within 1e-4: each one relative to its size, or where it is below the
/// vector's mean, to that (features are means of clipped values; some are all but zero).
void expect_near(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const at::Tensor scale = at::maximum(expected.abs(), expected.abs().mean());
  const double worst = ((actual - expected).abs() / scale).max().item<double>();
  EXPECT_LT(worst, 1e-4) << what;
}

at::Tensor features_of(FeatureExtractor& extractor, const Image& image) {
  return extractor.features(image.pixels().data(), image.shape(), 1)[0];
}

/// One thread: tests run side by side, and OpenMP's threads wait for each other by spinning.
class EfficientNetLite : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(EfficientNetLite, NetworkEqualsThePythonPackageOnAnExactInput) {
  GP_WEIGHTS_OR_SKIP(weights);
  const Safetensors fixture = read_safetensors(kFixture);
  const EfficientNetLite0 network(read_safetensors(weights), weights.string());
  // 224 x 224 needs no resize, so the two networks see the same bits.
  const Image image = synthetic(224, 224);
  const at::Tensor input = at::tensor(image.pixels()).view({1, 224, 224, 3}).permute({0, 3, 1, 2});
  const at::Tensor features = network.features((input.to(at::kFloat) - 127) / 128);
  expect_near(features[0], fixture.tensors.at("synthetic_features")[1], "features");
  expect_near(network.logits(features)[0], fixture.tensors.at("synthetic_logits")[1], "logits");
}

TEST_F(EfficientNetLite, WholePathEqualsPythonOnSyntheticImagesOfOtherSizes) {
  GP_WEIGHTS_OR_SKIP(weights);
  const at::Tensor expected = read_safetensors(kFixture).tensors.at("synthetic_features");
  const auto extractor = make_feature_extractor("efficientnet_lite0", weights);
  const std::vector<ImageShape> shapes = {{300, 517}, {224, 224}, {61, 97}};
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    expect_near(features_of(*extractor, synthetic(shapes[i].height, shapes[i].width)),
                expected[static_cast<std::int64_t>(i)], std::to_string(shapes[i].height));
  }
}

TEST_F(EfficientNetLite, WholePathEqualsPythonOnPhotosAndMostAreAirliners) {
  GP_WEIGHTS_OR_SKIP(weights);
  if (!fs::is_directory(kPhotos)) GTEST_SKIP() << kPhotos << ": no FGVC-Aircraft here";
  const Safetensors fixture = read_safetensors(kFixture);
  const at::Tensor expected = fixture.tensors.at("photo_features");
  const at::Tensor classes = fixture.tensors.at("photo_classes");
  const auto photos = nlohmann::json::parse(fixture.metadata.at("photos"));
  ASSERT_EQ(photos.size(), 16u);

  const auto extractor = make_feature_extractor("efficientnet_lite0", weights);
  const EfficientNetLite0 network(read_safetensors(weights), weights.string());
  int airliners = 0;
  for (std::int64_t i = 0; i < 16; ++i) {
    const std::string name = photos[static_cast<std::size_t>(i)]["name"];
    cv::Mat pixels = cv::imread((kPhotos / (name + ".jpg")).string(),
                                cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
    ASSERT_FALSE(pixels.empty()) << name;
    cv::cvtColor(pixels, pixels, cv::COLOR_BGR2RGB);
    const std::size_t bytes = pixels.total() * 3;
    ASSERT_EQ(sha256_hex({reinterpret_cast<const char*>(pixels.data), bytes}),
              photos[static_cast<std::size_t>(i)]["pixels_sha256"])
        << name << ": this decoder gives other pixels than the fixture's, nothing to compare";
    const at::Tensor features = extractor->features(pixels.data, {pixels.rows, pixels.cols}, 1);
    expect_near(features[0], expected[i], name);
    const auto best = network.logits(features).argmax().item<std::int64_t>();
    EXPECT_EQ(best, classes[i].item<std::int64_t>()) << name;
    airliners += best == kAirliner;
  }
  EXPECT_GE(airliners, 12);
}

TEST_F(EfficientNetLite, FeaturesDependOnTheImageNotOnItsCompany) {
  GP_WEIGHTS_OR_SKIP(weights);
  const auto extractor = make_feature_extractor("efficientnet_lite0", weights);
  const ImageShape shape{40, 56};
  std::vector<std::uint8_t> images;
  for (int i = 0; i < 6; ++i) {  // more than are taken at a time
    Image image = synthetic(shape.height, shape.width);
    for (std::uint8_t& value : image.pixels()) value = static_cast<std::uint8_t>(value + 31 * i);
    images.insert(images.end(), image.pixels().begin(), image.pixels().end());
  }
  const at::Tensor together = extractor->features(images.data(), shape, 6);
  ASSERT_EQ(together.sizes(), (at::IntArrayRef{6, 1280}));
  for (int i = 0; i < 6; ++i) {
    const at::Tensor alone =
        extractor->features(images.data() + static_cast<std::size_t>(i) * shape.bytes(), shape, 1);
    expect_near(together[i], alone[0], std::to_string(i));
  }
  EXPECT_FALSE(at::allclose(together[0], together[5], 1e-2));
  EXPECT_TRUE(at::equal(together, extractor->features(images.data(), shape, 6)));
  EXPECT_EQ(extractor->features(images.data(), shape, 0).sizes(), (at::IntArrayRef{0, 1280}));
}

TEST_F(EfficientNetLite, RefusesOtherWeights) {
  GP_WEIGHTS_OR_SKIP(weights);
  const Safetensors good = read_safetensors(weights);
  const auto message = [](const Safetensors& contents) -> std::string {
    try {
      const EfficientNetLite0 network(contents, "some.safetensors");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(good), "");
  Safetensors bad = good;
  bad.tensors.erase("_blocks.7._project_conv.weight");
  EXPECT_NE(message(bad).find("'_blocks.7._project_conv.weight' is missing"), std::string::npos);
  bad = good;
  bad.tensors["_fc.weight"] = at::zeros({10, 1280});
  EXPECT_NE(message(bad).find("'_fc.weight' is Float [10, 1280], expected Float [1000, 1280]"),
            std::string::npos)
      << message(bad);
  bad = good;
  bad.tensors["_bn1.bias"] = good.tensors.at("_bn1.bias").clone();
  bad.tensors["_bn1.bias"][3] = NAN;
  EXPECT_NE(message(bad).find("'_bn1.bias' holds NaN"), std::string::npos);
  bad = good;
  bad.tensors["_bn0.running_var"] = at::full({32}, -1.0);
  EXPECT_NE(message(bad).find("negative"), std::string::npos);
  EXPECT_EQ(message({}).rfind("some.safetensors: ", 0), 0u);
}

}  // namespace
}  // namespace gp
