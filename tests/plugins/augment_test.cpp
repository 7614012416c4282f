// The shipped plugins, loaded over the C ABI, against OpenCV and Albumentations.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/plugin_abi.h"
#include "pipeline/plugin_loader.hpp"
#include "tests/support/run_stage.hpp"

namespace gp {
namespace {

using testing::make_transform;
using testing::noise_image;
using testing::run_stage;
using testing::smooth_image;
using testing::StageResult;

const StageInfo& stage_info(const std::string& plugin, const std::string& stage) {
  static StageRegistry registry;
  static PluginLoader loader({GP_BINARY_DIR "/tests/plugins"});
  loader.load_plugin(plugin, registry);
  return *registry.find(stage);
}

cv::Mat mat(const Image& image) {
  return {image.shape().height, image.shape().width, CV_8UC3,
          const_cast<std::uint8_t*>(image.pixels().data())};
}

struct Difference {
  double mean = 0;
  int max = 0;
};
Difference difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  Difference result;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const int d = std::abs(a[i] - b[i]);
    result.mean += static_cast<double>(d) / static_cast<double>(a.size());
    result.max = std::max(result.max, d);
  }
  return result;
}

/// OpenCV's resampling of `image` by a map from output to input.
std::vector<std::uint8_t> opencv_warp(const Image& image, const Affine& map) {
  const cv::Mat matrix(2, 3, CV_64F, const_cast<double*>(map.m));
  cv::Mat out;
  cv::warpAffine(mat(image), out, matrix, mat(image).size(),
                 cv::INTER_LINEAR | cv::WARP_INVERSE_MAP, cv::BORDER_REFLECT_101);
  return {out.data, out.data + out.total() * 3};
}

TEST(Flip, MirrorsExactlyAndHalfOfTheTime) {
  const Image in = noise_image(9, 14);
  for (const auto& [direction, code] : {std::pair{"horizontal", 1}, std::pair{"vertical", 0}}) {
    const auto stage = make_transform(stage_info("augment_flip", "augment.flip"),
                                      {{"direction", std::string(direction)}, {"p", 1.0}});
    cv::Mat expected;
    cv::flip(mat(in), expected, code);
    EXPECT_EQ(run_stage(*stage, in.view(), Rng(1, "t", 0)).image.pixels(),
              std::vector<std::uint8_t>(expected.data, expected.data + expected.total() * 3));
  }
  const auto stage = make_transform(stage_info("augment_flip", "augment.flip"));
  int flipped = 0;
  for (int i = 0; i < 1000; ++i) {
    flipped += run_stage(*stage, in.view(), Rng(1, "t", i)).passed_through ? 0 : 1;
  }
  EXPECT_NEAR(flipped, 500, 5 * std::sqrt(250));  // five standard deviations
  const auto never = make_transform(stage_info("augment_flip", "augment.flip"), {{"p", 0.0}});
  EXPECT_TRUE(run_stage(*never, in.view(), Rng(1, "t", 0)).passed_through);
}

/// A second, minimal host: hands out the random numbers that the fixture was made with.
struct ScriptedHost {
  std::vector<double> numbers;
  mutable std::size_t used = 0;
  gp_host host{};

  explicit ScriptedHost(std::vector<double> given) : numbers(std::move(given)) {
    host.struct_size = sizeof host;
    host.ctx = this;
    host.uniform = [](const gp_host* h) {
      const auto* self = static_cast<const ScriptedHost*>(h->ctx);
      return self->numbers.at(self->used++);
    };
    host.fail = [](const gp_host*, const char* message) { ADD_FAILURE() << message; };
  }
};

TEST(AffinePlugin, EqualsAlbumentationsShiftScaleRotate) {
  std::ifstream file(GP_SOURCE_DIR "/tests/plugins/fixtures/affine.json");
  const nlohmann::json fixture = nlohmann::json::parse(file);
  ASSERT_GE(fixture["cases"].size(), 6U);
  void* library = dlopen(GP_BINARY_DIR "/lib/gan-pipeline/plugins/augment_affine.so", RTLD_NOW);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto* entry = static_cast<const gp_plugin*>(dlsym(library, "gp_plugin_entry"));
  const gp_stage& stage = *entry->stages[0];
  for (const auto& c : fixture["cases"]) {
    SCOPED_TRACE(c["unit"].dump());
    std::vector<gp_value> values(stage.n_params);
    std::vector<const gp_value*> pointers;
    for (std::size_t i = 0; i < stage.n_params; ++i) {
      const std::string name = stage.params[i]->name;
      values[i].struct_size = sizeof(gp_value);
      values[i].type = GP_TYPE_REAL;
      values[i].real = name == "p" ? 1.0 : c[name].get<double>();
      pointers.push_back(&values[i]);
    }
    std::vector<double> numbers{0.0};  // for p
    for (const double unit : c["unit"]) numbers.push_back(unit);
    const ScriptedHost scripted(numbers);
    void* self = nullptr;
    ASSERT_EQ(stage.create(&scripted.host, pointers.data(), pointers.size(), &self), GP_OK);
    Affine map;
    const int height = c["height"];
    const int width = c["width"];
    ASSERT_EQ(stage.matrix(self, &scripted.host, height, width, map.m), GP_OK);
    stage.destroy(self);
    EXPECT_EQ(scripted.used, numbers.size());
    for (int i = 0; i < 6; ++i) EXPECT_NEAR(map.m[i], c["matrix"][i].get<double>(), 1e-9) << i;

    const Image in = smooth_image(height, width);
    Image out(height, width);
    warp_affine(in.view(), map, out.view());
    // OpenCV rounds coordinates to 1/32 pixel; found: 1 level at most, 0.07 on average.
    const Difference d = difference(out.pixels(), c["pixels"].get<std::vector<std::uint8_t>>());
    EXPECT_LE(d.max, 1);
    EXPECT_LE(d.mean, 0.1);
  }
}

TEST(AffinePlugin, DrawsItsAmountsFromTheirRanges) {
  const auto stage = make_transform(stage_info("augment_affine", "augment.affine"),
                                    {{"translate", 0.1}, {"rotate", 20.0}, {"scale", 0.25}});
  const ImageShape shape{40, 60};
  double lowest[4] = {1e9, 1e9, 1e9, 1e9};
  double highest[4] = {-1e9, -1e9, -1e9, -1e9};
  for (int i = 0; i < 2000; ++i) {
    Rng rng(1, "affine", i);
    const Affine map = stage->matrix(shape, rng);
    // Taken apart again: the inverse of the linear part, and what the centre maps to.
    const double angle = std::atan2(map.m[3], map.m[0]) * 180 / CV_PI;
    const double factor = 1 / std::hypot(map.m[0], map.m[3]);
    cv::Matx23d forward;
    cv::invertAffineTransform(cv::Matx23d(map.m), forward);
    const cv::Vec2d centre = forward * cv::Vec3d(29.5, 19.5, 1);
    const double found[4] = {angle, factor, (centre[0] - 29.5) / 60, (centre[1] - 19.5) / 40};
    for (int k = 0; k < 4; ++k) {
      lowest[k] = std::min(lowest[k], found[k]);
      highest[k] = std::max(highest[k], found[k]);
    }
  }
  const double centre[4] = {0, 1, 0, 0};
  const double reach[4] = {20, 0.25, 0.1, 0.1};
  for (int k = 0; k < 4; ++k) {
    EXPECT_GE(lowest[k], centre[k] - reach[k] - 1e-9);
    EXPECT_LE(highest[k], centre[k] + reach[k] + 1e-9);
    EXPECT_LT(lowest[k], centre[k] - 0.98 * reach[k]);
    EXPECT_GT(highest[k], centre[k] + 0.98 * reach[k]);
  }
}

TEST(AffinePlugin, PixelsEqualOpenCvsWarpAffine) {
  const auto stage = make_transform(stage_info("augment_affine", "augment.affine"));
  const Image smooth = smooth_image(128, 128);
  const Image noise = noise_image(128, 128);
  for (int i = 0; i < 20; ++i) {
    Rng rng(7, "affine", i);
    const Affine map = stage->matrix(smooth.shape(), rng);
    const auto result = [&](const Image& in) {
      return run_stage(*stage, in.view(), Rng(7, "affine", i)).image.pixels();
    };
    const Difference on_smooth = difference(result(smooth), opencv_warp(smooth, map));
    EXPECT_LE(on_smooth.max, 1);
    EXPECT_LE(on_smooth.mean, 0.15);
    // The worst case for coordinates rounded to 1/32: neighbours that differ by up to 255. Found:
    // 6 levels at most, 0.85 on average.
    const Difference on_noise = difference(result(noise), opencv_warp(noise, map));
    EXPECT_LE(on_noise.max, 8);
    EXPECT_LE(on_noise.mean, 0.9);
  }
}

TEST(AffinePlugin, FlipAndAffineMakeOneResampling) {
  const auto flip = make_transform(stage_info("augment_flip", "augment.flip"), {{"p", 1.0}});
  const auto affine = make_transform(stage_info("augment_affine", "augment.affine"));
  const Image in = noise_image(64, 48);
  Rng flip_rng(1, "flip", 0);
  Rng affine_rng(1, "affine", 0);
  Image joined(64, 48);
  warp_affine(in.view(),
              compose(flip->matrix(in.shape(), flip_rng), affine->matrix(in.shape(), affine_rng)),
              joined.view());
  // A mirror is exact, so that doing it first must give the same but for rounding.
  const StageResult mirrored = run_stage(*flip, in.view(), Rng(1, "flip", 0));
  const StageResult both = run_stage(*affine, mirrored.image.view(), Rng(1, "affine", 0));
  EXPECT_LE(difference(joined.pixels(), both.image.pixels()).max, 1);
  EXPECT_GT(difference(joined.pixels(), in.pixels()).mean, 10);
}

TEST(Grayscale, EqualsOpenCvsConversion) {
  const auto stage =
      make_transform(stage_info("augment_grayscale", "augment.grayscale"), {{"p", 1.0}});
  const Image in = noise_image(64, 48);
  cv::Mat gray;
  cv::Mat expected;
  cv::cvtColor(mat(in), gray, cv::COLOR_RGB2GRAY);
  cv::cvtColor(gray, expected, cv::COLOR_GRAY2RGB);
  EXPECT_EQ(run_stage(*stage, in.view(), Rng(1, "t", 0)).image.pixels(),
            std::vector<std::uint8_t>(expected.data, expected.data + expected.total() * 3));
  Image white(1, 1);
  white.pixels() = {255, 255, 255};
  EXPECT_EQ(run_stage(*stage, white.view(), Rng(1, "t", 0)).image.pixels(), white.pixels());
  const auto never =
      make_transform(stage_info("augment_grayscale", "augment.grayscale"), {{"p", 0.0}});
  EXPECT_EQ(run_stage(*never, in.view(), Rng(1, "t", 0)).image.pixels(), in.pixels());
}

TEST(Noise, HasTheAskedForSpreadAndNoBias) {
  const auto stage =
      make_transform(stage_info("augment_noise", "augment.noise"), {{"sigma", 10.0}});
  Image in(100, 100);
  std::fill(in.pixels().begin(), in.pixels().end(), 128);
  const auto out = run_stage(*stage, in.view(), Rng(1, "t", 0)).image.pixels();
  double sum = 0;
  double squares = 0;
  for (const std::uint8_t value : out) {
    sum += value - 128.0;
    squares += (value - 128.0) * (value - 128.0);
  }
  const double n = static_cast<double>(out.size());
  const double mean = sum / n;
  EXPECT_NEAR(mean, 0, 5 * 10 / std::sqrt(n));
  // Rounding to whole levels adds 1/12 to the variance.
  EXPECT_NEAR(squares / n - mean * mean, 100 + 1.0 / 12, 5 * 100 * std::sqrt(2 / n));
  const auto none = make_transform(stage_info("augment_noise", "augment.noise"), {{"p", 0.0}});
  EXPECT_EQ(run_stage(*none, in.view(), Rng(1, "t", 0)).image.pixels(), in.pixels());
}

TEST(Plugins, SameRandomStreamSamePicture) {
  const Image in = noise_image(32, 32);
  for (const char* name : {"flip", "affine", "grayscale", "noise"}) {
    SCOPED_TRACE(name);
    const StageInfo& info =
        stage_info(std::string("augment_") + name, std::string("augment.") + name);
    const auto a = make_transform(info);
    const auto b = make_transform(info);
    bool differ = false;
    for (int i = 0; i < 30; ++i) {
      const auto first = run_stage(*a, in.view(), Rng(1, "t", i)).image.pixels();
      EXPECT_EQ(first, run_stage(*b, in.view(), Rng(1, "t", i)).image.pixels());
      differ = differ || first != run_stage(*a, in.view(), Rng(1, "t", i + 1)).image.pixels();
    }
    EXPECT_TRUE(differ);
  }
}

TEST(Plugins, ParametersAreCheckedLikeThoseOfBuiltInStages) {
  const StageInfo& flip = stage_info("augment_flip", "augment.flip");
  const auto error = [&](const std::map<std::string, Value>& given) -> std::string {
    try {
      make_transform(flip, given);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_EQ(error({{"p", 1.5}}), "p = 1.5 is outside [0, 1]");
  EXPECT_EQ(error({{"p", std::string("often")}}), "p = often is not a number");
  EXPECT_NE(error({{"direction", std::string("horizontl")}}).find("did you mean 'horizontal'"),
            std::string::npos);
  EXPECT_NE(error({{"q", 1.0}}).find("unknown parameter 'q'"), std::string::npos);
}

TEST(Sdk, EveryFeatureWorksFromCpp17) {
  const StageInfo& half = stage_info("sdk_cpp17", "sdk.half");
  EXPECT_FALSE(half.random);
  EXPECT_EQ(half.concurrency, Concurrency::kSerial);
  ASSERT_EQ(half.params.specs().size(), 6U);
  EXPECT_EQ(std::get<std::vector<double>>(*half.params.find("list")->default_value),
            (std::vector<double>{0.5, -0.5}));
  EXPECT_EQ(std::get<std::string>(*half.params.find("text")->default_value), "bad picture");
  EXPECT_EQ(half.params.find("mode")->choices.size(), 4U);

  const Image in = noise_image(6, 8);
  const auto stage = make_transform(half, {{"add", std::int64_t{3}}});
  const StageResult result = run_stage(*stage, in.view(), Rng(1, "t", 0));
  EXPECT_EQ(result.image.shape(), (ImageShape{3, 4}));
  EXPECT_EQ(result.image.view().row(1)[3 * 2 + 1],
            static_cast<std::uint8_t>(in.view().row(2)[3 * 4 + 1] + 3));

  const auto run_mode = [&](const char* mode) {
    return run_stage(*make_transform(half, {{"mode", std::string(mode)}}), in.view(),
                     Rng(1, "t", 0));
  };
  EXPECT_EQ(run_mode("drop").dropped, "bad picture");
  EXPECT_THROW(run_mode("odd"), SampleError);
  try {
    run_mode("throw");
    FAIL();
  } catch (const SampleError& error) {
    EXPECT_STREQ(error.what(), "bad picture");
  }
  try {
    make_transform(half, {{"flag", true}});
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_NE(std::string(error.what()).find("told to fail"), std::string::npos);
  }
  const auto copy = make_transform(stage_info("sdk_cpp17", "sdk.copy"));
  EXPECT_EQ(run_stage(*copy, in.view(), Rng(1, "t", 0)).image.pixels(), in.pixels());
}

}  // namespace
}  // namespace gp
