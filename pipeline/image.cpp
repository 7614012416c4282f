#include "pipeline/image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace gp {

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

}  // namespace

void warp_affine(ConstImageView in, const Affine& map, ImageView out) {
  // Coordinates are clamped so that a wild matrix cannot overflow an int.
  constexpr double kFar = 1 << 24;
  for (int y = 0; y < out.height; ++y) {
    std::uint8_t* target = out.row(y);
    for (int x = 0; x < out.width; ++x, target += kChannels) {
      const double xi = std::clamp(map.m[0] * x + map.m[1] * y + map.m[2], -kFar, kFar);
      const double yi = std::clamp(map.m[3] * x + map.m[4] * y + map.m[5], -kFar, kFar);
      const double x_floor = std::floor(xi);
      const double y_floor = std::floor(yi);
      const auto fx = static_cast<float>(xi - x_floor);
      const auto fy = static_cast<float>(yi - y_floor);
      const int x0 = reflect101(static_cast<int>(x_floor), in.width);
      const int x1 = reflect101(static_cast<int>(x_floor) + 1, in.width);
      const std::uint8_t* row0 = in.row(reflect101(static_cast<int>(y_floor), in.height));
      const std::uint8_t* row1 = in.row(reflect101(static_cast<int>(y_floor) + 1, in.height));
      for (int c = 0; c < kChannels; ++c) {
        const float top = row0[x0 * kChannels + c] * (1 - fx) + row0[x1 * kChannels + c] * fx;
        const float bottom = row1[x0 * kChannels + c] * (1 - fx) + row1[x1 * kChannels + c] * fx;
        target[c] = static_cast<std::uint8_t>(top * (1 - fy) + bottom * fy + 0.5F);
      }
    }
  }
}

}  // namespace gp
