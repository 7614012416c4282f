#include <cstdint>

#include "pipeline/plugin_sdk.hpp"

struct Grayscale {
  static constexpr auto name = "augment.grayscale";
  static constexpr auto doc = "Takes the colour out of the image with probability p.";
  static constexpr bool random = true;

  double p = 0.1;

  static void params(gp::sdk::Params<Grayscale>& params) {
    params.add("p", &Grayscale::p, "probability", 0, 1);
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (!host.chance(p)) return gp::sdk::copy(in, out);
    for (int y = 0; y < in.height; ++y) {
      const std::uint8_t* from = in.row(y);
      std::uint8_t* to = out.row(y);
      for (int x = 0; x < in.width; ++x, from += 3, to += 3) {
        // Luma of ITU-R BT.601 in 15-bit fixed point; the weights add up to 2^15.
        const int luma = 9798 * from[0] + 19235 * from[1] + 3735 * from[2];
        to[0] = to[1] = to[2] = static_cast<std::uint8_t>((luma + (1 << 14)) >> 15);
      }
    }
  }
};

GP_PLUGIN("augment_grayscale", "1.0.0", Grayscale)
