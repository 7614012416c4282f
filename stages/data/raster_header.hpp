#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "stages/data/exif.hpp"
#include "stages/data/format.hpp"

namespace gp {

/// What a WebP, BMP or TIFF file says of itself: enough to refuse it before a decoder takes memory
/// for it or misreads it.
struct RasterHeader {
  std::uint64_t width = 0;   ///< as stored, pixels
  std::uint64_t height = 0;  ///< as stored, pixels
  /// Pixels of the largest piece that is decoded at once, where it may exceed the image.
  std::uint64_t block_width = 0;
  std::uint64_t block_height = 0;
  /// TIFF with alpha that the colours are not multiplied by yet: where in the file it says so, and
  /// in how many bytes. libtiff would multiply them.
  std::uint64_t alpha_kind_at = 0;
  std::uint64_t alpha_kind_bytes = 0;
  /// Animated WebP: its first frame as a file of its own, and where on the picture it belongs.
  std::vector<std::uint8_t> first_frame;
  std::uint64_t frame_x = 0;
  std::uint64_t frame_y = 0;
  /// BMP of 16 bits a pixel: 5 or 6 of green beside 5 of red and 5 of blue. Otherwise 0.
  int packed_green_bits = 0;
  Orientation orientation = Orientation::kNormal;
  std::vector<std::string> conversions;  ///< see DecodeTarget::count
};

/// Throws SampleError when the header is broken, or asks for what OpenCV 4.6 cannot read or reads
/// wrongly, or when the data that it points to lies outside of the file.
RasterHeader read_webp_header(std::span<const std::uint8_t> bytes);
RasterHeader read_bmp_header(std::span<const std::uint8_t> bytes);
RasterHeader read_tiff_header(std::span<const std::uint8_t> bytes);

}  // namespace gp
