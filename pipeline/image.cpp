#include "pipeline/image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace gp {

std::string to_string(ImageShape shape) {
  return std::to_string(shape.width) + "x" + std::to_string(shape.height);
}

RectF intersect(const RectF& a, const RectF& b) {
  const double x = std::max(a.x, b.x);
  const double y = std::max(a.y, b.y);
  return {x, y, std::max(0.0, std::min(a.x + a.width, b.x + b.width) - x),
          std::max(0.0, std::min(a.y + a.height, b.y + b.height) - y)};
}

void copy_image(ConstImageView from, ImageView to) {
  for (int y = 0; y < from.height; ++y) {
    std::memcpy(to.row(y), from.row(y), static_cast<std::size_t>(from.width) * kChannels);
  }
}

Affine compose(const Affine& first, const Affine& second) {
  const double* a = first.m;
  const double* b = second.m;
  return {{a[0] * b[0] + a[1] * b[3], a[0] * b[1] + a[1] * b[4], a[0] * b[2] + a[1] * b[5] + a[2],
           a[3] * b[0] + a[4] * b[3], a[3] * b[1] + a[4] * b[4], a[3] * b[2] + a[4] * b[5] + a[5]}};
}

namespace {

/// Index of the pixel that reflect-101 shows at `i` (...cb|abcdef|edc...).
int reflect101(int i, int size) {
  if (size == 1) return 0;
  const int period = 2 * (size - 1);
  i %= period;
  if (i < 0) i += period;
  return i < size ? i : period - i;
}

/// Blends four neighbouring pixels; fx and fy are the shares of the right and the lower ones.
inline void blend(const std::uint8_t* top_left, const std::uint8_t* top_right,
                  const std::uint8_t* bottom_left, const std::uint8_t* bottom_right, float fx,
                  float fy, std::uint8_t* target) {
  for (int c = 0; c < kChannels; ++c) {
    const float top = top_left[c] * (1 - fx) + top_right[c] * fx;
    const float bottom = bottom_left[c] * (1 - fx) + bottom_right[c] * fx;
    target[c] = static_cast<std::uint8_t>(top * (1 - fy) + bottom * fy + 0.5F);
  }
}

/// The input at (xi, yi), anywhere, with its borders reflected.
void sample_reflected(ConstImageView in, double xi, double yi, std::uint8_t* target) {
  // Coordinates are clamped so that a wild matrix cannot overflow an int.
  constexpr double kFar = 1 << 24;
  xi = std::clamp(xi, -kFar, kFar);
  yi = std::clamp(yi, -kFar, kFar);
  const double x_floor = std::floor(xi);
  const double y_floor = std::floor(yi);
  const int x0 = kChannels * reflect101(static_cast<int>(x_floor), in.width);
  const int x1 = kChannels * reflect101(static_cast<int>(x_floor) + 1, in.width);
  const std::uint8_t* row0 = in.row(reflect101(static_cast<int>(y_floor), in.height));
  const std::uint8_t* row1 = in.row(reflect101(static_cast<int>(y_floor) + 1, in.height));
  blend(row0 + x0, row0 + x1, row1 + x0, row1 + x1, static_cast<float>(xi - x_floor),
        static_cast<float>(yi - y_floor), target);
}

}  // namespace

void warp_affine(ConstImageView in, const Affine& map, ImageView out) {
  const double x_end = in.width - 1;
  const double y_end = in.height - 1;
  for (int y = 0; y < out.height; ++y) {
    std::uint8_t* target = out.row(y);
    for (int x = 0; x < out.width; ++x, target += kChannels) {
      // Each from scratch: steps would add up rounding errors, and mirrors would not be exact.
      const double xi = map.m[0] * x + map.m[1] * y + map.m[2];
      const double yi = map.m[3] * x + map.m[4] * y + map.m[5];
      if (!(xi >= 0 && xi < x_end && yi >= 0 && yi < y_end)) {
        sample_reflected(in, xi, yi, target);
        continue;
      }
      // Inside, where nearly all pixels are: no borders to look at, and truncation is floor.
      const int x0 = static_cast<int>(xi);
      const int y0 = static_cast<int>(yi);
      const std::uint8_t* top = in.row(y0) + static_cast<std::ptrdiff_t>(x0) * kChannels;
      const std::uint8_t* bottom = top + in.stride;
      blend(top, top + kChannels, bottom, bottom + kChannels, static_cast<float>(xi - x0),
            static_cast<float>(yi - y0), target);
    }
  }
}

}  // namespace gp
