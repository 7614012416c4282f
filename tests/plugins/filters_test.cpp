// The shipped plugins that change colours, cover, blur, compress and distort, against OpenCV: the
// plugin gets chosen random numbers, OpenCV the amounts that follow from them.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "pipeline/error.hpp"
#include "pipeline/plugin_loader.hpp"
#include "tests/plugins/scripted_plugin.hpp"
#include "tests/support/run_stage.hpp"

namespace gp {
namespace {

using testing::make_transform;
using testing::noise_image;
using testing::run_stage;
using testing::ScriptedPlugin;
using testing::smooth_image;

cv::Mat mat(const Image& image) {
  return cv::Mat(image.shape().height, image.shape().width, CV_8UC3,
                 const_cast<std::uint8_t*>(image.pixels().data()))
      .clone();
}

int largest_difference(const Image& image, const cv::Mat& other) {
  EXPECT_EQ(image.shape(), (ImageShape{other.rows, other.cols}));
  cv::Mat difference;
  cv::absdiff(mat(image), other, difference);
  double largest = 0;
  cv::minMaxLoc(difference.reshape(1), nullptr, &largest);
  return static_cast<int>(largest);
}

/// Just below 1: the last of the values that uniform() may give.
constexpr double kAlmostOne = 1 - 1.0 / 4294967296.0;

// ---- Colour

/// The draws that leave the order as it is: each number stays in its place.
const std::vector<double> kInOrder = {0, kAlmostOne, kAlmostOne, kAlmostOne};

std::vector<double> in_order_then(std::vector<double> draws) {
  std::vector<double> all = kInOrder;
  all.insert(all.end(), draws.begin(), draws.end());
  return all;
}

cv::Mat to_float(const Image& image) {
  cv::Mat result;
  mat(image).convertTo(result, CV_32FC3, 1 / 255.0);
  return result;
}

cv::Mat to_bytes(const cv::Mat& image) {
  cv::Mat result;
  image.convertTo(result, CV_8UC3, 255);
  return result;
}

cv::Mat clamped(const cv::Mat& image) {
  cv::Mat result;
  cv::min(image, cv::Scalar::all(1), result);
  cv::max(result, cv::Scalar::all(0), result);
  return result;
}

cv::Mat gray_of(const cv::Mat& image) {
  cv::Mat gray, result;
  cv::cvtColor(image, gray, cv::COLOR_RGB2GRAY);
  cv::cvtColor(gray, result, cv::COLOR_GRAY2RGB);
  return result;
}

cv::Mat turned(const cv::Mat& image, double turns) {
  cv::Mat hsv, result;
  cv::cvtColor(image, hsv, cv::COLOR_RGB2HSV);  // hue in degrees
  for (auto pixel = hsv.begin<cv::Vec3f>(); pixel != hsv.end<cv::Vec3f>(); ++pixel) {
    (*pixel)[0] = static_cast<float>(std::fmod((*pixel)[0] + 360 * (turns + 1), 360.0));
  }
  cv::cvtColor(hsv, result, cv::COLOR_HSV2RGB);
  return result;
}

TEST(Color, EachChangeEqualsOpenCvs) {
  const Image in = noise_image(20, 24);
  const cv::Mat image = to_float(in);
  for (const double draw : {0.0, 0.3, 0.9}) {
    const double factor = 0.5 + draw;  // of an amount of 0.5
    const auto run = [&](const std::map<std::string, double>& amount) {
      std::map<std::string, double> params = {
          {"p", 1}, {"brightness", 0}, {"contrast", 0}, {"saturation", 0}, {"hue", 0}};
      for (const auto& [name, value] : amount) params[name] = value;
      return ScriptedPlugin("augment_color", params)
          .process(in, in_order_then({draw, draw, draw, draw}));
    };
    EXPECT_LE(largest_difference(run({{"brightness", 0.5}}), to_bytes(clamped(image * factor))), 1);
    const cv::Scalar mean = cv::mean(gray_of(image));
    const cv::Mat flat(image.rows, image.cols, CV_32FC3, mean);
    EXPECT_LE(largest_difference(run({{"contrast", 0.5}}),
                                 to_bytes(clamped(image * factor + flat * (1 - factor)))),
              1);
    EXPECT_LE(largest_difference(run({{"saturation", 0.5}}),
                                 to_bytes(clamped(image * factor + gray_of(image) * (1 - factor)))),
              1);
    EXPECT_LE(largest_difference(run({{"hue", 0.5}}), to_bytes(turned(image, -0.5 + draw))), 1);
  }
}

TEST(Color, ChangesFollowEachOtherInTheDrawnOrder) {
  const Image in = noise_image(12, 12);
  const std::map<std::string, double> params = {
      {"p", 1}, {"brightness", 0.5}, {"contrast", 0}, {"saturation", 1}, {"hue", 0}};
  // Brightness 1.4 clips, so it matters whether saturation 0.2 comes before or after it.
  ScriptedPlugin plugin("augment_color", params);
  const cv::Mat image = to_float(in);
  const auto brighter = [](const cv::Mat& m) { return clamped(m * 1.4); };
  const auto paler = [](const cv::Mat& m) { return clamped(m * 0.2 + gray_of(m) * 0.8); };
  const cv::Mat first = to_bytes(paler(brighter(image)));
  const cv::Mat last = to_bytes(brighter(paler(image)));
  const auto with_order = [&](double a, double b, double c) {
    return plugin.process(in, {0, a, b, c, 0.9, 0.5, 0.1, 0.5});
  };
  EXPECT_LE(largest_difference(with_order(kAlmostOne, kAlmostOne, kAlmostOne), first), 1);
  // The second draw swaps saturation (2) to the front.
  EXPECT_LE(largest_difference(with_order(kAlmostOne, 0, kAlmostOne), last), 1);
  EXPECT_GT(largest_difference(with_order(kAlmostOne, 0, kAlmostOne), first), 10);
}

// ---- Cutout

TEST(Cutout, CoversTheDrawnSquares) {
  const Image in = noise_image(20, 40);
  cv::Mat expected = mat(in);
  // Edge 0.4 * 20 = 8; centres (20, 10) and (1, 19), the second one over two edges.
  cv::rectangle(expected, cv::Rect(16, 6, 8, 8), cv::Scalar::all(128), cv::FILLED);
  cv::rectangle(expected, cv::Rect(0, 15, 5, 5), cv::Scalar::all(128), cv::FILLED);
  const std::map<std::string, double> params = {{"p", 1}, {"size", 0.4}, {"holes", 2}};
  const std::vector<double> draws = {0, 0.5, 0.5, 0.03, 0.96};
  EXPECT_EQ(
      largest_difference(ScriptedPlugin("augment_cutout", params).process(in, draws), expected), 0);
  expected.setTo(cv::Scalar::all(0), expected == cv::Scalar::all(128));
  const Image black =
      ScriptedPlugin("augment_cutout", params, {{"fill", "black"}}).process(in, draws);
  EXPECT_EQ(cv::countNonZero(mat(black)(cv::Rect(16, 6, 8, 8)).clone().reshape(1)), 0);
}

// ---- Crop

TEST(Crop, EqualsOpenCvsResizeOfTheDrawnWindow) {
  const Image in = smooth_image(60, 80);
  // Half the area at ratio 1: 49 x 49, at top 0.5 * 12, left 0.25 * 32.
  const std::map<std::string, double> params = {
      {"p", 1}, {"scale_min", 0.5}, {"scale_max", 0.5}, {"ratio_min", 1}, {"ratio_max", 1}};
  const Affine map =
      ScriptedPlugin("augment_crop", params).matrix({60, 80}, {0, 0.7, 0.7, 0.5, 0.25});
  Image out(60, 80);
  warp_affine(in.view(), map, out.view());
  cv::Mat expected;
  cv::resize(mat(in)(cv::Rect(8, 6, 49, 49)), expected, cv::Size(80, 60), 0, 0, cv::INTER_LINEAR);
  // At the edge OpenCV repeats the window's last pixels where we look beyond them.
  const cv::Rect inside(2, 2, 76, 56);
  cv::Mat difference;
  cv::absdiff(mat(out)(inside), expected(inside), difference);
  double largest = 0;
  cv::minMaxLoc(difference.reshape(1), nullptr, &largest);
  EXPECT_LE(largest, 1);
}

TEST(Crop, TakesTheMiddleWhenNoWindowFits) {
  // Nearly the whole of a wide image at ratio 1 can't be: after ten tries 30 x 30 in the middle.
  const std::map<std::string, double> params = {
      {"p", 1}, {"scale_min", 0.9}, {"scale_max", 1}, {"ratio_min", 1}, {"ratio_max", 1}};
  std::vector<double> draws(21, 0.5);
  draws[0] = 0;
  const Affine map = ScriptedPlugin("augment_crop", params).matrix({30, 90}, draws);
  const auto at = [&](double x) { return map.m[0] * x + map.m[2]; };
  EXPECT_NEAR(at(-0.5), 29.5, 1e-9);
  EXPECT_NEAR(at(89.5), 59.5, 1e-9);
  EXPECT_EQ(map.m[4], 1);
}

// ---- Blur

TEST(Blur, EqualsOpenCvsGaussianBlur) {
  const Image in = noise_image(31, 40);
  for (const double sigma : {0.4, 1.0, 2.5}) {
    const Image out =
        ScriptedPlugin("augment_blur", {{"p", 1}, {"sigma_min", sigma}, {"sigma_max", sigma}})
            .process(in, {0, 0.5});
    const int width = 2 * static_cast<int>(std::ceil(3 * sigma)) + 1;
    cv::Mat expected;
    cv::GaussianBlur(mat(in), expected, cv::Size(width, width), sigma, sigma,
                     cv::BORDER_REFLECT_101);
    EXPECT_LE(largest_difference(out, expected), 1) << sigma;
  }
}

TEST(Blur, DrawsSigmaFromItsRange) {
  const Image in = noise_image(16, 16);
  ScriptedPlugin range("augment_blur", {{"p", 1}, {"sigma_min", 1}, {"sigma_max", 3}});
  ScriptedPlugin two("augment_blur", {{"p", 1}, {"sigma_min", 2}, {"sigma_max", 2}});
  EXPECT_EQ(range.process(in, {0, 0.5}).pixels(), two.process(in, {0, 0}).pixels());
}

// ---- JPEG

TEST(Jpeg, EqualsARoundTripThroughOpenCvsCodec) {
  const Image in = smooth_image(45, 52);
  ScriptedPlugin plugin("augment_jpeg", {{"p", 1}, {"quality_min", 10}, {"quality_max", 90}});
  for (const int quality : {10, 50, 90}) {
    cv::Mat bgr, decoded;
    cv::cvtColor(mat(in), bgr, cv::COLOR_RGB2BGR);
    std::vector<std::uint8_t> bytes;
    cv::imencode(".jpg", bgr, bytes, {cv::IMWRITE_JPEG_QUALITY, quality});
    cv::cvtColor(cv::imdecode(bytes, cv::IMREAD_COLOR), decoded, cv::COLOR_BGR2RGB);
    const Image out = plugin.process(in, {0, (quality - 10 + 0.5) / 81});
    EXPECT_LE(largest_difference(out, decoded), 1) << quality;
    EXPECT_GT(largest_difference(out, mat(in)), 2) << quality;
  }
}

// ---- Perspective

TEST(Perspective, EqualsOpenCvsWarpPerspective) {
  const Image in = smooth_image(64, 96);
  const std::vector<double> draws = {0, 0.1, 0.8, 0.9, 0.3, 0.5, 0.0, 0.7, 0.6};
  const Image out =
      ScriptedPlugin("augment_perspective", {{"p", 1}, {"distortion", 0.5}}).process(in, draws);
  const auto in_x = [&](int i) { return static_cast<float>(draws[1 + 2 * i] * 0.5 * 48); };
  const auto in_y = [&](int i) { return static_cast<float>(draws[2 + 2 * i] * 0.5 * 32); };
  const std::vector<cv::Point2f> from = {{0, 0}, {95, 0}, {95, 63}, {0, 63}};
  const std::vector<cv::Point2f> to = {{in_x(0), in_y(0)},
                                       {95 - in_x(1), in_y(1)},
                                       {95 - in_x(2), 63 - in_y(2)},
                                       {in_x(3), 63 - in_y(3)}};
  cv::Mat expected;
  cv::warpPerspective(mat(in), expected, cv::getPerspectiveTransform(from, to), cv::Size(96, 64),
                      cv::INTER_LINEAR, cv::BORDER_REFLECT_101);
  // OpenCV rounds positions to 1/32 pixel.
  EXPECT_LE(largest_difference(out, expected), 3);
}

// ---- All of them

struct Shipped {
  const char* plugin;
  const char* stage;
  std::map<std::string, Value> strong = {};  ///< parameters with which any picture changes
};

const std::vector<Shipped>& shipped() {
  static const std::vector<Shipped> kShipped = {
      {"augment_affine", "augment.affine"},
      {"augment_blur", "augment.blur", {{"sigma_min", 1.0}}},
      {"augment_color", "augment.color"},
      {"augment_crop", "augment.crop", {{"scale_max", 0.9}}},
      {"augment_cutout", "augment.cutout", {{"size", 0.9}}},
      {"augment_flip", "augment.flip"},
      {"augment_grayscale", "augment.grayscale"},
      {"augment_jpeg", "augment.jpeg"},
      {"augment_noise", "augment.noise"},
      {"augment_perspective", "augment.perspective", {{"distortion", 0.5}}}};
  return kShipped;
}

class EveryPlugin : public ::testing::Test {
 protected:
  EveryPlugin() : loader_({}, true) {
    for (const Shipped& one : shipped()) loader_.load_plugin(one.plugin, registry_);
  }
  std::unique_ptr<TransformStage> make(const Shipped& one, double p) {
    std::map<std::string, Value> params = one.strong;
    params["p"] = p;
    return make_transform(*registry_.find(one.stage), params);
  }
  StageRegistry registry_;
  PluginLoader loader_;  // with guards around what plugins write
};

TEST_F(EveryPlugin, ActsWithItsProbability) {
  const Image in = noise_image(24, 20);
  for (const Shipped& one : shipped()) {
    SCOPED_TRACE(one.plugin);
    const auto never = make(one, 0), always = make(one, 1), often = make(one, 0.7);
    int acted = 0;
    for (int i = 0; i < 400; ++i) {
      if (i < 20) {
        EXPECT_EQ(run_stage(*never, in.view(), Rng(1, "t", i)).image.pixels(), in.pixels());
        EXPECT_NE(run_stage(*always, in.view(), Rng(1, "t", i)).image.pixels(), in.pixels());
      }
      acted += run_stage(*often, in.view(), Rng(1, "t", i)).image.pixels() != in.pixels() ? 1 : 0;
    }
    EXPECT_NEAR(acted, 280, 5 * std::sqrt(400 * 0.7 * 0.3));
  }
}

TEST_F(EveryPlugin, GivesTheSameForTheSameRandomNumbersAndForStridedInput) {
  const Image wide = noise_image(24, 40);
  ConstImageView part = wide.view();
  part.width = 20;
  part.data += 3 * 7;
  Image alone(24, 20);
  copy_image(part, alone.view());
  for (const Shipped& one : shipped()) {
    SCOPED_TRACE(one.plugin);
    const auto stage = make(one, 1);
    for (int i = 0; i < 10; ++i) {
      const auto expected = run_stage(*stage, alone.view(), Rng(3, "t", i)).image.pixels();
      EXPECT_EQ(run_stage(*stage, alone.view(), Rng(3, "t", i)).image.pixels(), expected);
      EXPECT_EQ(run_stage(*stage, part, Rng(3, "t", i)).image.pixels(), expected);
    }
  }
}

TEST_F(EveryPlugin, TakesPicturesOfAnySize) {
  for (const Shipped& one : shipped()) {
    SCOPED_TRACE(one.plugin);
    const auto stage = make(one, 1);
    for (const ImageShape shape : {ImageShape{1, 1}, {1, 7}, {9, 1}, {3, 2}, {2, 2}}) {
      for (int i = 0; i < 20; ++i) {
        const Image in = noise_image(shape.height, shape.width);
        EXPECT_EQ(run_stage(*stage, in.view(), Rng(5, "t", i)).image.shape(), shape);
      }
    }
  }
}

TEST_F(EveryPlugin, RefusesRangesThatAreTheWrongWayRound) {
  const auto error = [this](const char* stage, const std::map<std::string, Value>& params) {
    try {
      make_transform(*registry_.find(stage), params);
    } catch (const PluginError& fault) {
      return std::string(fault.what());
    }
    return std::string("none");
  };
  EXPECT_NE(error("augment.blur", {{"sigma_min", 3.0}}).find("sigma_min is greater"),
            std::string::npos);
  EXPECT_NE(
      error("augment.jpeg", {{"quality_max", std::int64_t{5}}}).find("quality_min is greater"),
      std::string::npos);
  EXPECT_NE(error("augment.crop", {{"scale_max", 0.1}}).find("scale_min is greater"),
            std::string::npos);
  EXPECT_NE(error("augment.crop", {{"ratio_min", 3.0}}).find("ratio_min is greater"),
            std::string::npos);
}

TEST(Noise, IsNormal) {
  // Kolmogorov and Smirnov's test of 27,000 values against the normal distribution.
  StageRegistry registry;
  PluginLoader loader;
  loader.load_plugin("augment_noise", registry);
  const auto stage = make_transform(*registry.find("augment.noise"), {{"p", 1.0}, {"sigma", 20.0}});
  Image gray(90, 100);
  std::fill(gray.pixels().begin(), gray.pixels().end(), std::uint8_t{128});
  const Image out = run_stage(*stage, gray.view(), Rng(1, "t", 0)).image;
  std::vector<int> counts(256);
  for (const std::uint8_t value : out.pixels()) ++counts[value];
  const double n = static_cast<double>(out.pixels().size());
  double seen = 0, largest = 0;
  for (int value = 0; value < 255; ++value) {
    seen += counts[value] / n;
    const double expected = 0.5 * (1 + std::erf((value + 0.5 - 128) / 20 / std::sqrt(2.0)));
    largest = std::max(largest, std::abs(seen - expected));
  }
  EXPECT_LT(largest, 1.95 / std::sqrt(n));  // exceeded by chance once in a thousand times
}

}  // namespace
}  // namespace gp
