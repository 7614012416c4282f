#include "stages/data/exif.hpp"

#include <cstring>

#include "stages/data/byte_reader.hpp"

namespace gp {
namespace {

constexpr std::uint16_t kOrientationTag = 0x0112;
constexpr std::uint16_t kTypeShort = 3;
constexpr std::uint16_t kTypeLong = 4;

}  // namespace

RectF turn_upright(const RectF& rectangle, ImageShape stored, Orientation orientation) {
  const auto [x, y, width, height] = rectangle;
  const double from_right = stored.width - x - width;
  const double from_bottom = stored.height - y - height;
  switch (orientation) {
    case Orientation::kNormal:
      break;
    case Orientation::kMirror:
      return {from_right, y, width, height};
    case Orientation::kRotate180:
      return {from_right, from_bottom, width, height};
    case Orientation::kFlip:
      return {x, from_bottom, width, height};
    case Orientation::kTranspose:
      return {y, x, height, width};
    case Orientation::kRotateRight:
      return {from_bottom, x, height, width};
    case Orientation::kAntiTranspose:
      return {from_bottom, from_right, height, width};
    case Orientation::kRotateLeft:
      return {y, from_right, height, width};
  }
  return rectangle;
}

Orientation read_orientation(std::span<const std::uint8_t> tiff) {
  const ByteReader start(tiff);
  const bool big_endian = start.starts_with("MM");
  if (!big_endian && !start.starts_with("II")) return Orientation::kNormal;
  const ByteReader reader(tiff, big_endian);
  if (reader.u16(2) != 42) return Orientation::kNormal;
  const auto directory = reader.u32(4);
  if (!directory) return Orientation::kNormal;
  const auto count = reader.u16(*directory);
  if (!count) return Orientation::kNormal;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const std::uint64_t entry = std::uint64_t{*directory} + 2 + i * 12;
    const auto tag = reader.u16(entry);
    if (!tag) break;
    if (*tag != kOrientationTag) continue;
    const auto type = reader.u16(entry + 2);
    std::optional<std::uint32_t> value;
    if (type == kTypeShort) {
      value = reader.u16(entry + 8);
    } else if (type == kTypeLong) {
      value = reader.u32(entry + 8);
    }
    if (!value || *value < 1 || *value > 8) break;
    return static_cast<Orientation>(*value);
  }
  return Orientation::kNormal;
}

Orientation read_exif_orientation(std::span<const std::uint8_t> exif) {
  constexpr std::string_view kHead("Exif\0\0", 6);
  const ByteReader reader(exif);
  return read_orientation(reader.starts_with(kHead) ? exif.subspan(kHead.size()) : exif);
}

void place_row(const std::uint8_t* row, int y, ImageShape stored, Orientation orientation,
               ImageView upright) {
  // The upright position of the row's first pixel, and the step from one pixel to the next.
  const int last_x = stored.width - 1;
  const int last_y = stored.height - 1;
  std::uint8_t* target = nullptr;
  std::ptrdiff_t step = 0;
  switch (orientation) {
    case Orientation::kNormal:
    case Orientation::kFlip:
      std::memcpy(upright.row(orientation == Orientation::kFlip ? last_y - y : y), row,
                  static_cast<std::size_t>(stored.width) * kChannels);
      return;
    case Orientation::kMirror:
      target = upright.row(y) + static_cast<std::ptrdiff_t>(last_x) * kChannels;
      step = -kChannels;
      break;
    case Orientation::kRotate180:
      target = upright.row(last_y - y) + static_cast<std::ptrdiff_t>(last_x) * kChannels;
      step = -kChannels;
      break;
    case Orientation::kTranspose:
      target = upright.row(0) + static_cast<std::ptrdiff_t>(y) * kChannels;
      step = upright.stride;
      break;
    case Orientation::kRotateRight:
      target = upright.row(0) + static_cast<std::ptrdiff_t>(last_y - y) * kChannels;
      step = upright.stride;
      break;
    case Orientation::kAntiTranspose:
      target = upright.row(last_x) + static_cast<std::ptrdiff_t>(last_y - y) * kChannels;
      step = -upright.stride;
      break;
    case Orientation::kRotateLeft:
      target = upright.row(last_x) + static_cast<std::ptrdiff_t>(y) * kChannels;
      step = -upright.stride;
      break;
  }
  for (int x = 0; x < stored.width; ++x, row += kChannels) {
    target[0] = row[0];
    target[1] = row[1];
    target[2] = row[2];
    // One past the last pixel would lie outside the image.
    if (x < last_x) target += step;
  }
}

}  // namespace gp
