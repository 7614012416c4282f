#include <string>

#include "pipeline/plugin_sdk.hpp"

struct Flip {
  static constexpr auto name = "augment.flip";
  static constexpr auto doc = "Mirrors the image with probability p.";
  static constexpr bool random = true;

  double p = 0.5;
  std::string direction = "horizontal";

  static void params(gp::sdk::Params<Flip>& params) {
    params.add("p", &Flip::p, "probability", 0, 1);
    params.choice("direction", &Flip::direction, "left with right, or top with bottom",
                  {"horizontal", "vertical"});
  }

  gp::sdk::Matrix matrix(gp::sdk::Host& host, gp::sdk::Size in) const {
    if (!host.chance(p)) return {};
    if (direction == "horizontal") return {{-1, 0, in.width - 1.0, 0, 1, 0}};
    return {{1, 0, 0, 0, -1, in.height - 1.0}};
  }
};

GP_PLUGIN("augment_flip", "1.0.0", Flip)
