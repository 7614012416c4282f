#include "pipeline/image.hpp"

#include <cstring>

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

}  // namespace gp
