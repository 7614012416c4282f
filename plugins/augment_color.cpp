#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipeline/plugin_sdk.hpp"

// torchvision's ColorJitter on float images: four changes in random order, each clamped to [0, 1].
struct Color {
  static constexpr auto name = "augment.color";
  static constexpr auto doc = "Changes brightness, contrast, saturation and hue, in random order.";
  static constexpr bool random = true;

  double p = 1, brightness = 0.2, contrast = 0.2, saturation = 0.2, hue = 0.05;

  static void params(gp::sdk::Params<Color>& params) {
    params.add("p", &Color::p, "probability", 0, 1);
    const char* range = "factor from 1 - this to 1 + this";
    params.add("brightness", &Color::brightness, range, 0, 10);
    params.add("contrast", &Color::contrast, range, 0, 10);
    params.add("saturation", &Color::saturation, range, 0, 10);
    params.add("hue", &Color::hue, "largest change either way, turns of the colour wheel", 0, 0.5);
  }

  using Pixel = std::array<float, 3>;
  static float gray(const Pixel& v) { return 0.299F * v[0] + 0.587F * v[1] + 0.114F * v[2]; }
  static Pixel blend(Pixel v, float other, float factor) {
    for (float& c : v) c = std::clamp(factor * c + (1 - factor) * other, 0.0F, 1.0F);
    return v;
  }
  /// Turns the hue (HSV) and leaves saturation and value as they are.
  static Pixel turn(const Pixel& v, float turns) {
    const float high = std::max({v[0], v[1], v[2]}), low = std::min({v[0], v[1], v[2]});
    const float span = high - low;
    if (span <= 0) return v;
    const float sixths = high == v[0]   ? (v[1] - v[2]) / span
                         : high == v[1] ? 2 + (v[2] - v[0]) / span
                                        : 4 + (v[0] - v[1]) / span;
    const float h = sixths + 6 * turns;
    const auto channel = [&](float n) {
      const float k = n + h - 6 * std::floor((n + h) / 6);
      return high - span * std::clamp(std::min(k, 4 - k), 0.0F, 1.0F);
    };
    return {channel(5), channel(3), channel(1)};
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (!host.chance(p)) return gp::sdk::copy(in, out);
    int order[] = {0, 1, 2, 3};
    for (int i = 3; i > 0; --i)
      std::swap(order[i], order[static_cast<int>(host.uniform() * (i + 1))]);
    const auto around = [&](double v) { return host.uniform(std::max(0.0, 1 - v), 1 + v); };
    const double factors[] = {around(brightness), around(contrast), around(saturation),
                              host.uniform(-hue, hue)};
    std::vector<Pixel> pixels(static_cast<std::size_t>(in.width) * in.height);
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      const std::uint8_t* from = in.row(static_cast<int>(i / in.width)) + 3 * (i % in.width);
      pixels[i] = {from[0] / 255.0F, from[1] / 255.0F, from[2] / 255.0F};
    }
    for (const int change : order) {
      const auto f = static_cast<float>(factors[change]);
      double mean = 0;
      if (change == 1) {
        for (const Pixel& v : pixels) mean += gray(v);
        mean /= static_cast<double>(pixels.size());
      }
      for (Pixel& v : pixels) {
        v = change == 3   ? turn(v, f)
            : change == 2 ? blend(v, gray(v), f)
                          : blend(v, static_cast<float>(mean), f);  // brightness: towards black
      }
    }
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      std::uint8_t* to = out.row(static_cast<int>(i / in.width)) + 3 * (i % in.width);
      for (int c = 0; c < 3; ++c) to[c] = static_cast<std::uint8_t>(255 * pixels[i][c] + 0.5F);
    }
  }
};

GP_PLUGIN("augment_color", "1.0.0", Color)
