#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gp {

/// Every image in the pipeline is RGB, 8 bits a channel, rows of interleaved pixels (HWC).
inline constexpr int kChannels = 3;

/// Height and width in pixels; 0 means that it differs from sample to sample.
struct ImageShape {
  int height = 0;
  int width = 0;

  bool fixed() const { return height > 0 && width > 0; }
  std::size_t bytes() const { return static_cast<std::size_t>(height) * width * kChannels; }
  bool operator==(const ImageShape&) const = default;
};
/// "128x96": width first.
std::string to_string(ImageShape shape);

/// Borrowed read-only pixels. `stride` is the distance between rows in bytes.
struct ConstImageView {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t stride = 0;

  ImageShape shape() const { return {height, width}; }
  bool empty() const { return data == nullptr; }
  const std::uint8_t* row(int y) const { return data + y * stride; }
};

/// Borrowed writable pixels.
struct ImageView {
  std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t stride = 0;

  operator ConstImageView() const { return {data, height, width, stride}; }
  ImageShape shape() const { return {height, width}; }
  bool empty() const { return data == nullptr; }
  std::uint8_t* row(int y) const { return data + y * stride; }
};

/// Owned contiguous pixels. `reshape` keeps the memory where it is large enough; contents are then
/// unspecified.
class Image {
 public:
  Image() = default;
  Image(int height, int width) { reshape(height, width); }

  void reshape(int height, int width) {
    shape_ = {height, width};
    pixels_.resize(shape_.bytes());
  }

  ImageView view() {
    return {pixels_.data(), shape_.height, shape_.width,
            static_cast<std::ptrdiff_t>(shape_.width) * kChannels};
  }
  ConstImageView view() const {
    return {pixels_.data(), shape_.height, shape_.width,
            static_cast<std::ptrdiff_t>(shape_.width) * kChannels};
  }
  ImageShape shape() const { return shape_; }
  std::vector<std::uint8_t>& pixels() { return pixels_; }
  const std::vector<std::uint8_t>& pixels() const { return pixels_; }

 private:
  ImageShape shape_;
  std::vector<std::uint8_t> pixels_;
};

/// Copies pixels between views of the same shape.
void copy_image(ConstImageView from, ImageView to);

/// A rectangle in pixels; edges may be fractional. Pixel (0,0) covers [0,1) x [0,1).
struct RectF {
  double x = 0;
  double y = 0;
  double width = 0;
  double height = 0;
  bool operator==(const RectF&) const = default;
};

/// Where an image's pixels come from. `image.crop` only narrows `region`; `image.resize` samples
/// that rectangle exactly, so that a crop of a DCT-scaled JPEG is never rounded to whole pixels.
/// The host cuts the region out (rounded outwards) before stages that do not read it.
struct Geometry {
  /// The upright full-size image, pixels. A JPEG decoded at 1/n of its size reports n times the
  /// decoded size, and its true size as `region`: its last column may reach over the edge.
  int source_width = 0;
  int source_height = 0;
  RectF region;  ///< the part that counts, in source pixels; whole image at first
  /// What `image.crop` counts its margins from: the image less the crops so far. The region is this
  /// and, where the source gave a box, within that box.
  RectF frame = {};

  /// The region in pixels of an image that was decoded to `shape`.
  RectF region_in(ImageShape shape) const {
    const double sx = static_cast<double>(shape.width) / source_width;
    const double sy = static_cast<double>(shape.height) / source_height;
    return {region.x * sx, region.y * sy, region.width * sx, region.height * sy};
  }
  static Geometry whole(ImageShape shape) {
    const RectF all{0, 0, static_cast<double>(shape.width), static_cast<double>(shape.height)};
    return {shape.width, shape.height, all, all};
  }
  bool is_whole() const {
    return region ==
           RectF{0, 0, static_cast<double>(source_width), static_cast<double>(source_height)};
  }
};

/// The part that both cover; of no area where there is none.
RectF intersect(const RectF& a, const RectF& b);

/// Maps output pixel coordinates to input pixel coordinates:
/// x_in = m[0]*x + m[1]*y + m[2], y_in = m[3]*x + m[4]*y + m[5]; pixel centres are integers.
struct Affine {
  double m[6] = {1, 0, 0, 0, 1, 0};

  bool is_identity() const { return *this == Affine{}; }
  bool operator==(const Affine&) const = default;
};

/// The map that first applies `first` to the image and then `second` to its result (so output
/// coordinates go through `second`, then `first`).
Affine compose(const Affine& first, const Affine& second);

/// Resamples `in` bilinearly at `map` of every output pixel, reflect-101 borders
/// (...cb|abcdef|edc...). Before it is rounded to a byte, a result is within 0.04 of the exact one.
/// Integer translations and mirrors are exact. The same bytes on every machine (warp.cpp says how).
/// `map` holds no NaN; what points farther than 2^29 pixels away is as good as random. `in` and
/// `out` must not overlap.
void warp_affine(ConstImageView in, const Affine& map, ImageView out);

}  // namespace gp
