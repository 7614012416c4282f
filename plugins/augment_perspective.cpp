#include <algorithm>
#include <cmath>
#include <cstdint>

#include "pipeline/plugin_sdk.hpp"

using gp::sdk::mirrored;

// torchvision's RandomPerspective: each corner moves inwards by up to `distortion` of half a side.
// Borders are mirrored instead of black, or a generator would learn to draw black wedges.
struct Perspective {
  static constexpr auto name = "augment.perspective";
  static constexpr auto doc = "Shows the image as if seen at an angle; borders are mirrored.";
  static constexpr bool random = true;

  double p = 0.5, distortion = 0.2;

  static void params(gp::sdk::Params<Perspective>& params) {
    params.add("p", &Perspective::p, "probability", 0, 1);
    params.add("distortion", &Perspective::distortion,
               "largest move of a corner, as a share of half the width and height", 0, 1);
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (!host.chance(p) || in.width < 2 || in.height < 2) return gp::sdk::copy(in, out);
    const double right = in.width - 1, bottom = in.height - 1;
    const auto move = [&](int side) { return host.uniform() * distortion * (side / 2); };
    // Corners of the result, clockwise from the top left one.
    double x[4], y[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = i == 1 || i == 2 ? right - move(in.width) : move(in.width);
      y[i] = i >= 2 ? bottom - move(in.height) : move(in.height);
    }
    // The unit square to that quadrilateral (Heckbert 1989, section 2.2.3).
    const double dx1 = x[1] - x[2], dx2 = x[3] - x[2], sx = x[0] - x[1] + x[2] - x[3];
    const double dy1 = y[1] - y[2], dy2 = y[3] - y[2], sy = y[0] - y[1] + y[2] - y[3];
    const double det = dx1 * dy2 - dx2 * dy1;
    if (std::abs(det) < 1e-9) return gp::sdk::copy(in, out);  // the corners have met
    const double g = (sx * dy2 - dx2 * sy) / det, h = (dx1 * sy - sx * dy1) / det;
    const double a = x[1] - x[0] + g * x[1], b = x[3] - x[0] + h * x[3], c = x[0];
    const double d = y[1] - y[0] + g * y[1], e = y[3] - y[0] + h * y[3], f = y[0];
    for (int row = 0; row < out.height; ++row) {
      for (int column = 0; column < out.width; ++column) {
        // Its inverse (the adjugate) takes a pixel of the result back to the unit square.
        const double w = (d * h - e * g) * column + (b * g - a * h) * row + (a * e - b * d);
        const double u = ((e - f * h) * column + (c * h - b) * row + (b * f - c * e)) / w;
        const double v = ((f * g - d) * column + (a - c * g) * row + (c * d - a * f)) / w;
        // Far outside (distortion near 1) the mirror images are too small to tell apart.
        const double from_x = std::clamp(u, -100.0, 100.0) * right;
        const double from_y = std::clamp(v, -100.0, 100.0) * bottom;
        const int x0 = static_cast<int>(std::floor(from_x)),
                  y0 = static_cast<int>(std::floor(from_y));
        const double tx = from_x - x0, ty = from_y - y0;
        const std::uint8_t* rows[] = {in.row(mirrored(y0, in.height)),
                                      in.row(mirrored(y0 + 1, in.height))};
        const int columns[] = {3 * mirrored(x0, in.width), 3 * mirrored(x0 + 1, in.width)};
        for (int k = 0; k < 3; ++k) {
          const double top = rows[0][columns[0] + k] * (1 - tx) + rows[0][columns[1] + k] * tx;
          const double low = rows[1][columns[0] + k] * (1 - tx) + rows[1][columns[1] + k] * tx;
          out.row(row)[3 * column + k] = static_cast<std::uint8_t>(top * (1 - ty) + low * ty + 0.5);
        }
      }
    }
  }
};

GP_PLUGIN("augment_perspective", "1.0.0", Perspective)
