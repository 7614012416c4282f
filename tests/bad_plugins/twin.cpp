// Two plugins are built from this file. Their structs have the same name, their symbols are all
// visible: they must not get in each other's way.
#include "pipeline/plugin_sdk.hpp"

struct Twin {
  static constexpr auto name = TWIN_STAGE;
  static constexpr auto doc = "Paints the image in one gray.";

  int gray = TWIN_GRAY;

  static void params(gp::sdk::Params<Twin>& params) {
    params.add("gray", &Twin::gray, "level", 0, 255);
  }
  void process(gp::sdk::Host&, gp::sdk::ImageIn, gp::sdk::ImageOut out) const {
    for (int y = 0; y < out.height; ++y) std::memset(out.row(y), gray, out.width * 3U);
  }
};

GP_PLUGIN("twin", "1.0.0", Twin)
