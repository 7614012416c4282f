#include "stages/torch/feature_extractor.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

at::Tensor squash(const std::vector<std::uint8_t>& pixels, ImageShape shape, int size) {
  return squash_bicubic(pixels.data(), shape, 1, size, at::kCPU);
}

TEST(SquashBicubic, OfTheSameSizeChangesNothing) {
  std::vector<std::uint8_t> pixels(2 * 16 * 16 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 37);
  const at::Tensor x = squash_bicubic(pixels.data(), {16, 16}, 2, 16, at::kCPU);
  ASSERT_EQ(x.sizes(), (at::IntArrayRef{2, 3, 16, 16}));
  EXPECT_TRUE(x.is_contiguous(at::MemoryFormat::ChannelsLast));
  const at::Tensor expected = at::tensor(pixels).view({2, 16, 16, 3}).permute({0, 3, 1, 2});
  EXPECT_TRUE(at::equal(x, expected.to(at::kFloat)));
}

TEST(SquashBicubic, KeepsConstantsAndClampsOvershoot) {
  for (const ImageShape shape : {ImageShape{7, 31}, ImageShape{300, 5}}) {
    const at::Tensor x = squash(std::vector<std::uint8_t>(shape.bytes(), 200), shape, 24);
    EXPECT_LT((x - 200).abs().max().item<float>(), 1e-3);
  }
  std::vector<std::uint8_t> edge(8 * 8 * 3, 0);  // black above, white below: bicubic overshoots
  std::fill(edge.begin() + 4 * 8 * 3, edge.end(), 255);
  const at::Tensor x = squash(edge, {8, 8}, 32);
  EXPECT_EQ(x.min().item<float>(), 0);
  EXPECT_EQ(x.max().item<float>(), 255);
}

TEST(SquashBicubic, IsAntialiasedAndNotRounded) {
  // Columns of 0 and 255 in turn, shrunk eightfold: gray without stripes.
  std::vector<std::uint8_t> stripes(64 * 64 * 3);
  for (std::size_t i = 0; i < stripes.size(); ++i) stripes[i] = i / 3 % 2 == 0 ? 0 : 255;
  const at::Tensor inner = squash(stripes, {64, 64}, 8).slice(3, 2, 6);
  EXPECT_LT((inner - 127.5).abs().max().item<float>(), 0.5);
  EXPECT_GT((inner - inner.round()).abs().max().item<float>(), 0.1);
}

TEST(SquashBicubic, IsKeysCubicWithAOfMinusAHalf) {
  // One white column, each pixel grown to two: the kernel at distances 1/4, 3/4, 5/4, 7/4.
  std::vector<std::uint8_t> pixels(16 * 16 * 3, 0);
  for (int y = 0; y < 16; ++y) {
    for (int c = 0; c < 3; ++c) pixels[static_cast<std::size_t>((y * 16 + 8) * 3 + c)] = 255;
  }
  const at::Tensor row = squash(pixels, {16, 16}, 32)[0][0][16] / 255;
  const auto keys = [](double t) {
    constexpr double a = -0.5;
    return t < 1 ? (a + 2) * t * t * t - (a + 3) * t * t + 1
                 : a * t * t * t - 5 * a * t * t + 8 * a * t - 4 * a;
  };
  EXPECT_NEAR(row[17].item<float>(), keys(0.25), 1e-5);
  EXPECT_NEAR(row[18].item<float>(), keys(0.75), 1e-5);
  EXPECT_EQ(row[19].item<float>(), 0);  // negative lobe, clamped
  EXPECT_NEAR(row[16].item<float>(), keys(0.25), 1e-5);
}

TEST(FindWeights, TakesTheFirstPlaceAndListsThemAll) {
  const testing::TemporaryFolder folder;
  const auto file = folder.path() / "net.safetensors";
  const testing::ScopedVariable variable("GAN_PIPELINE_WEIGHTS", folder.path().c_str());
  const auto message = [](const std::string& name, const std::filesystem::path& given) {
    try {
      find_weights(name, given);
    } catch (const DataError& e) {
      EXPECT_EQ(e.exit_code(), ExitCode::kData);
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(message("net", {}).find(file.string()), std::string::npos);
  EXPECT_NE(message("net", {}).find("tools/bootstrap"), std::string::npos);
  write_file(file, std::string_view("x"));
  EXPECT_EQ(find_weights("net", {}), file);
  EXPECT_EQ(find_weights("other", file), file);
  EXPECT_NE(message("net", folder.path() / "none").find("none"), std::string::npos);

  const testing::ScopedVariable unset("GAN_PIPELINE_WEIGHTS", nullptr);
  const std::string places = message("no_such_net", {});
  EXPECT_NE(places.find("share/gan-pipeline/no_such_net.safetensors"), std::string::npos) << places;
  EXPECT_NE(places.find(".deps/no_such_net.safetensors"), std::string::npos) << places;
}

TEST(FeatureExtractor, RefusesAFileThatIsNoWeights) {
  const testing::TemporaryFolder folder;
  const auto file = folder.path() / "net.safetensors";
  write_file(file, std::string_view("this is no safetensors file"));
  EXPECT_THROW(make_feature_extractor("efficientnet_lite0", file), DataError);
}

}  // namespace
}  // namespace gp
