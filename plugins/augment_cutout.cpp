#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "pipeline/plugin_sdk.hpp"

// DeVries and Taylor 2017 (arXiv:1708.04552): squares whose centres are anywhere in the image, so
// that they may reach over its edge. Gray is their zero: the middle of the range.
struct Cutout {
  static constexpr auto name = "augment.cutout";
  static constexpr auto doc = "Covers squares of the image.";
  static constexpr bool random = true;

  double p = 0.5;
  double size = 0.25;
  int holes = 1;
  std::string fill = "gray";

  static void params(gp::sdk::Params<Cutout>& params) {
    params.add("p", &Cutout::p, "probability", 0, 1);
    params.add("size", &Cutout::size, "edge of a square, as a share of the shorter side", 0, 1);
    params.add("holes", &Cutout::holes, "number of squares", 1, 64);
    params.choice("fill", &Cutout::fill, "what covers them; noise: each value at random",
                  {"gray", "black", "noise"});
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    gp::sdk::copy(in, out);
    if (!host.chance(p)) return;
    const int edge = static_cast<int>(std::lround(size * std::min(in.width, in.height)));
    for (int hole = 0; hole < holes; ++hole) {
      const int left = static_cast<int>(host.uniform() * in.width) - edge / 2;
      const int top = static_cast<int>(host.uniform() * in.height) - edge / 2;
      for (int y = std::max(top, 0); y < std::min(top + edge, in.height); ++y) {
        for (int i = 3 * std::max(left, 0); i < 3 * std::min(left + edge, in.width); ++i) {
          out.row(y)[i] = fill == "noise"  ? static_cast<std::uint8_t>(host.random_u32() >> 24)
                          : fill == "gray" ? 128
                                           : 0;
        }
      }
    }
  }
};

GP_PLUGIN("augment_cutout", "1.0.0", Cutout)
