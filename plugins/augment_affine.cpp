#include <cmath>

#include "pipeline/plugin_sdk.hpp"

// The conventions of Albumentations' ShiftScaleRotate (version 1.3.1): the picture is turned about
// its centre (counter-clockwise for positive angles) and scaled, by the same factor in x and y,
// then shifted. Each amount is uniform in its symmetric range. p is 1 here, 0.5 there.
struct ShiftScaleRotate {
  static constexpr auto name = "augment.affine";
  static constexpr auto doc = "Shifts, turns and scales the image; borders are mirrored.";
  static constexpr bool random = true;

  double p = 1;
  double translate = 0.05;
  double rotate = 10;
  double scale = 0.05;

  static void params(gp::sdk::Params<ShiftScaleRotate>& params) {
    using T = ShiftScaleRotate;
    params.add("p", &T::p, "probability", 0, 1);
    params.add("translate", &T::translate, "largest shift, as a share of width and height", 0, 1);
    params.add("rotate", &T::rotate, "largest angle either way, degrees", 0, 180);
    params.add("scale", &T::scale, "largest change of size: 0.05 is 0.95 to 1.05", 0, 0.9);
  }

  gp::sdk::Matrix matrix(gp::sdk::Host& host, gp::sdk::Size in) const {
    if (!host.chance(p)) return {};
    const double angle = host.uniform(-rotate, rotate) * (std::acos(-1.0) / 180);
    const double factor = 1 + host.uniform(-scale, scale);
    const double dx = host.uniform(-translate, translate) * in.width;
    const double dy = host.uniform(-translate, translate) * in.height;
    // Forward: out = A (in - centre) + centre + shift, A = factor * [cos sin; -sin cos].
    // The host wants the way back: in = A^-1 (out - centre - shift) + centre.
    const double c = std::cos(angle) / factor;
    const double s = std::sin(angle) / factor;
    const double cx = (in.width - 1) / 2.0;
    const double cy = (in.height - 1) / 2.0;
    const double x = cx + dx;
    const double y = cy + dy;
    return {{c, -s, cx - c * x + s * y, s, c, cy - s * x - c * y}};
  }
};

GP_PLUGIN("augment_affine", "1.0.0", ShiftScaleRotate)
