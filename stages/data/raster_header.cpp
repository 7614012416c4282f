#include "stages/data/raster_header.hpp"

#include <algorithm>
#include <optional>

#include "pipeline/error.hpp"
#include "stages/data/byte_reader.hpp"

namespace gp {
namespace {

/// The number, or SampleError `text` where the file ended before it.
template <class T>
T need(const std::optional<T>& number, const char* text) {
  if (!number) throw SampleError(text);
  return *number;
}

}  // namespace

// WebP: https://developers.google.com/speed/webp/docs/riff_container ------------------------------

namespace {

/// Takes the picture out of an ANMF chunk, whose content begins at `at` and ends at `end`.
void take_first_frame(const ByteReader& reader, std::uint64_t at, std::uint64_t end,
                      RasterHeader& header) {
  constexpr const char* kShort = "WebP: the file ended within the first frame";
  // X, Y, width - 1, height - 1, duration (3 bytes each), flags; then the frame's own chunks.
  header.frame_x = 2 * std::uint64_t{need(reader.u32(at), kShort) & 0xFFFFFF};
  header.frame_y = 2 * std::uint64_t{need(reader.u32(at + 3), kShort) & 0xFFFFFF};
  for (at += 16; at + 8 <= end;) {
    const std::uint32_t size = need(reader.u32(at + 4), kShort);
    const std::uint64_t padded = std::uint64_t{size} + (size & 1);
    // Without its alpha, which would be dropped anyway, the picture is a file of the simple format.
    if (reader.starts_with("VP8 ", at) || reader.starts_with("VP8L", at)) {
      if (!reader.has(at + 8, size)) throw SampleError(kShort);
      const auto chunk = reader.slice(at, 8 + padded);
      header.first_frame = {'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P'};
      header.first_frame.insert(header.first_frame.end(), chunk.begin(), chunk.end());
      header.first_frame.resize(12 + 8 + static_cast<std::size_t>(padded));
      const std::uint64_t riff_size = 4 + 8 + padded;
      for (std::size_t i = 0; i < 4; ++i) {
        header.first_frame[4 + i] = static_cast<std::uint8_t>(riff_size >> (8 * i));
      }
      return;
    }
    at += 8 + padded;
  }
  throw SampleError("WebP: the first frame holds no picture");
}

}  // namespace

RasterHeader read_webp_header(std::span<const std::uint8_t> bytes) {
  constexpr const char* kShort = "WebP: the file ended early";
  const ByteReader reader(bytes);
  const std::uint32_t riff_size = need(reader.u32(4), kShort);
  // OpenCV wants 32 bytes before it looks.
  if (!reader.has(8, riff_size) || !reader.has(0, 32)) throw SampleError(kShort);
  RasterHeader header;
  if (reader.starts_with("VP8 ", 12)) {
    header.width = *reader.u16(26) & 0x3FFF;
    header.height = *reader.u16(28) & 0x3FFF;
  } else if (reader.starts_with("VP8L", 12)) {
    const std::uint32_t bits = *reader.u32(21);
    header.width = (bits & 0x3FFF) + 1;
    header.height = ((bits >> 14) & 0x3FFF) + 1;
    if (((bits >> 28) & 1) != 0) header.conversions.push_back("alpha dropped");
  } else if (reader.starts_with("VP8X", 12)) {
    constexpr std::uint32_t kAnimated = 0x02;
    constexpr std::uint32_t kAlpha = 0x10;
    const std::uint32_t flags = *reader.u32(20);
    if ((flags & kAlpha) != 0) header.conversions.push_back("alpha dropped");
    header.width = (*reader.u32(24) & 0xFFFFFF) + 1;
    header.height = (*reader.u32(26) >> 8) + 1;
    for (std::uint64_t at = 12; reader.has(at, 8);) {
      const std::uint32_t size = *reader.u32(at + 4);
      if (reader.starts_with("EXIF", at)) {
        header.orientation = read_exif_orientation(reader.slice(at + 8, size));
      }
      if ((flags & kAnimated) != 0 && header.first_frame.empty() &&
          reader.starts_with("ANMF", at)) {
        take_first_frame(reader, at + 8, at + 8 + size, header);
      }
      at += 8 + std::uint64_t{size} + (size & 1);
    }
    if ((flags & kAnimated) != 0 && header.first_frame.empty()) {
      throw SampleError("WebP: an animation without a frame");
    }
  } else {
    throw SampleError("WebP: neither VP8, VP8L nor VP8X data");
  }
  return header;
}

// BMP ---------------------------------------------------------------------------------------------

namespace {

constexpr const char* kBmpEndedEarly = "BMP: the data ended before the last row";

enum BmpCompression : std::uint32_t { kBmpRgb = 0, kBmpRle8 = 1, kBmpRle4 = 2, kBmpBitFields = 3 };

/// OpenCV tells of run lengths that end too early only on stderr, so they are walked through here.
void check_run_lengths(const ByteReader& reader, std::uint64_t at, std::uint64_t height,
                       std::uint32_t bits) {
  std::uint64_t row = 0;
  while (row < height) {
    const auto code = reader.u16(at);
    if (!code) throw SampleError(kBmpEndedEarly);
    at += 2;
    const unsigned count = *code & 0xFF;
    const unsigned value = *code >> 8;
    if (count > 0) continue;  // `count` pixels of one colour
    if (value == 0) {
      ++row;
    } else if (value == 1) {
      return;  // the end of the image
    } else if (value == 2) {
      const auto step = reader.u16(at);
      if (!step) throw SampleError(kBmpEndedEarly);
      at += 2;
      row += *step >> 8;
    } else {
      at += (value * bits + 15) / 16 * 2;  // as many pixels as they are, padded to 16 bits
    }
  }
}

}  // namespace

RasterHeader read_bmp_header(std::span<const std::uint8_t> bytes) {
  constexpr const char* kShort = "BMP: the file ended within the header";
  const ByteReader reader(bytes);
  const std::uint64_t pixels_at = need(reader.u32(10), kShort);
  const std::uint32_t header_size = need(reader.u32(14), kShort);
  RasterHeader header;
  std::uint32_t bits = 0;
  std::uint32_t compression = kBmpRgb;
  std::uint64_t colors = 0;
  std::uint64_t color_bytes = 4;
  if (header_size == 12) {
    header.width = need(reader.u16(18), kShort);
    if (header.width == 0) throw SampleError("BMP: a width of 0");
    header.height = need(reader.u16(20), kShort);
    bits = need(reader.u16(24), kShort);
    color_bytes = 3;
  } else if (header_size >= 36 && header_size <= 256) {
    const auto width = static_cast<std::int32_t>(need(reader.u32(18), kShort));
    const auto height = static_cast<std::int32_t>(need(reader.u32(22), kShort));
    if (width <= 0) throw SampleError("BMP: a width of " + std::to_string(width));
    header.width = static_cast<std::uint64_t>(width);
    // Negative: the rows come from top to bottom.
    header.height = static_cast<std::uint64_t>(std::abs(std::int64_t{height}));
    bits = need(reader.u16(28), kShort);
    compression = need(reader.u32(30), kShort);
    colors = need(reader.u32(46), kShort);
  } else {
    throw SampleError("BMP: a header of " + std::to_string(header_size) + " bytes");
  }

  const bool known =
      (compression == kBmpRgb &&
       (bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32)) ||
      (compression == kBmpRle8 && bits == 8) || (compression == kBmpRle4 && bits == 4) ||
      (compression == kBmpBitFields && (bits == 16 || bits == 32));
  if (!known) {
    throw SampleError("BMP: " + std::to_string(bits) + " bits with compression " +
                      std::to_string(compression) + " are not supported");
  }
  if (bits == 16) header.packed_green_bits = 5;
  if (compression == kBmpBitFields) {
    // OpenCV takes any 32-bit masks for these, and knows these two of 16 bits.
    const std::uint32_t red = need(reader.u32(54), kShort);
    const std::uint32_t green = need(reader.u32(58), kShort);
    const std::uint32_t blue = need(reader.u32(62), kShort);
    if (green == 0x7E0) header.packed_green_bits = 6;
    const bool usual = bits == 32 ? red == 0xFF0000 && green == 0xFF00 && blue == 0xFF
                                  : blue == 0x1F && ((red == 0x7C00 && green == 0x3E0) ||
                                                     (red == 0xF800 && green == 0x7E0));
    if (!usual) throw SampleError("BMP: unusual colour masks are not supported");
  }
  if (bits <= 8) {
    if (colors > 256) throw SampleError("BMP: a palette of " + std::to_string(colors) + " colours");
    if (colors == 0) colors = std::uint64_t{1} << bits;
    if (!reader.has(14 + std::uint64_t{header_size}, colors * color_bytes)) {
      throw SampleError("BMP: the file ended within the palette");
    }
    header.conversions.push_back("palette converted");
  }
  if (compression == kBmpRle8 || compression == kBmpRle4) {
    check_run_lengths(reader, pixels_at, header.height, bits);
  } else {
    const std::uint64_t row_bytes = (header.width * bits + 31) / 32 * 4;
    const std::uint64_t there = reader.slice(pixels_at, reader.size()).size();
    if (there / row_bytes < header.height) throw SampleError(kBmpEndedEarly);
  }
  return header;
}

// TIFF 6.0 and BigTIFF ----------------------------------------------------------------------------

namespace {

enum TiffTag : std::uint16_t {
  kTiffWidth = 256,
  kTiffHeight = 257,
  kTiffBits = 258,
  kTiffPhotometric = 262,
  kTiffStripOffsets = 273,
  kTiffOrientation = 274,
  kTiffSamples = 277,
  kTiffRowsPerStrip = 278,
  kTiffStripBytes = 279,
  kTiffPlanar = 284,
  kTiffColorMap = 320,
  kTiffTileWidth = 322,
  kTiffTileHeight = 323,
  kTiffTileOffsets = 324,
  kTiffTileBytes = 325,
  kTiffExtraSamples = 338,
  kTiffSampleFormat = 339
};

constexpr std::uint64_t kTiffUnassociatedAlpha = 2;

enum TiffPhotometric : std::uint64_t {
  kTiffBlackIsZero = 1,
  kTiffRgb = 2,
  kTiffPalette = 3,
  kTiffCmyk = 5
};

/// The numbers of the first directory of a TIFF file.
class TiffDirectory {
 public:
  explicit TiffDirectory(std::span<const std::uint8_t> bytes)
      : reader_(bytes, bytes[0] == 'M'), big_(reader_.u16(2) == 43) {
    constexpr const char* kShort = "TIFF: the file ended within the directory";
    const std::uint64_t at = big_ ? need(reader_.u64(8), kShort) : need(reader_.u32(4), kShort);
    const std::uint64_t count =
        big_ ? need(reader_.u64(at), kShort) : need(reader_.u16(at), kShort);
    entries_ = at + (big_ ? 8 : 2);
    entry_bytes_ = big_ ? 20 : 12;
    // Also keeps later sums from overflowing.
    if (count > 65535 || !reader_.has(entries_, count * entry_bytes_)) throw SampleError(kShort);
    count_ = count;
  }

  /// The values of one tag: whole numbers, all within the file.
  struct Field {
    std::uint64_t count = 0;
    std::uint64_t at = 0;
    std::uint64_t bytes = 0;  ///< of one value
  };

  /// Empty where the tag is missing or broken.
  Field find(TiffTag tag) const {
    for (std::uint64_t i = 0; i < count_; ++i) {
      const std::uint64_t entry = entries_ + i * entry_bytes_;
      if (reader_.u16(entry) != tag) continue;
      const std::uint16_t type = *reader_.u16(entry + 2);
      const std::uint64_t bytes = type == 3 ? 2 : type == 4 ? 4 : type == 16 ? 8 : 0;
      const std::uint64_t count = big_ ? *reader_.u64(entry + 4) : *reader_.u32(entry + 4);
      if (bytes == 0 || count > reader_.size()) return {};
      std::uint64_t at = entry + (big_ ? 12 : 8);
      if (count * bytes > (big_ ? 8 : 4)) at = big_ ? *reader_.u64(at) : *reader_.u32(at);
      if (!reader_.has(at, count * bytes)) return {};
      return Field{count, at, bytes};
    }
    return {};
  }

  /// `index` below field.count.
  std::uint64_t value(const Field& field, std::uint64_t index) const {
    const std::uint64_t at = field.at + index * field.bytes;
    if (field.bytes == 2) return *reader_.u16(at);
    return field.bytes == 4 ? *reader_.u32(at) : *reader_.u64(at);
  }

  /// The first value of a tag, or `otherwise`.
  std::uint64_t value_or(TiffTag tag, std::uint64_t otherwise) const {
    const Field field = find(tag);
    return field.count > 0 ? value(field, 0) : otherwise;
  }

  const ByteReader& reader() const { return reader_; }

 private:
  ByteReader reader_;
  bool big_;
  std::uint64_t entries_ = 0;
  std::uint64_t entry_bytes_ = 0;
  std::uint64_t count_ = 0;
};

/// Every strip or tile must lie within the file: OpenCV would give gray for what is missing.
void check_tiff_data(const TiffDirectory& directory, TiffTag offset_tag, TiffTag size_tag) {
  const TiffDirectory::Field offsets = directory.find(offset_tag);
  const TiffDirectory::Field sizes = directory.find(size_tag);
  if (offsets.count == 0 || sizes.count != offsets.count) {
    throw SampleError("TIFF: the list of strips or tiles is missing or broken");
  }
  for (std::uint64_t i = 0; i < offsets.count; ++i) {
    if (!directory.reader().has(directory.value(offsets, i), directory.value(sizes, i))) {
      throw SampleError("TIFF: the file ended before the last strip");
    }
  }
}

}  // namespace

RasterHeader read_tiff_header(std::span<const std::uint8_t> bytes) {
  const TiffDirectory directory(bytes);
  RasterHeader header;
  header.width = directory.value_or(kTiffWidth, 0);
  header.height = directory.value_or(kTiffHeight, 0);

  const std::uint64_t bits = directory.value_or(kTiffBits, 1);
  const std::uint64_t format = directory.value_or(kTiffSampleFormat, 1);
  if ((bits != 1 && bits != 8 && bits != 16) || format != 1) {
    throw SampleError("TIFF: samples of " + std::to_string(bits) + " bits in format " +
                      std::to_string(format) +
                      " are not supported, only unsigned ones of 1, 8 and 16 bits");
  }
  if (directory.find(kTiffPhotometric).count == 0) {
    throw SampleError("TIFF: the file does not say what its samples mean (tag 262)");
  }
  const std::uint64_t samples = directory.value_or(kTiffSamples, 1);
  const std::uint64_t photometric = directory.value_or(kTiffPhotometric, 0);
  if (bits == 16) {
    // OpenCV hands 8 bits to libtiff, which knows every layout, but reads 16 bits itself.
    const bool plain = directory.value_or(kTiffPlanar, 1) == 1 &&
                       ((photometric == kTiffBlackIsZero && samples == 1) ||
                        (photometric == kTiffRgb && (samples == 3 || samples == 4)));
    if (!plain) throw SampleError("TIFF: 16 bits are supported for plain gray and RGB only");
    header.conversions.push_back("16 bit converted");
  }
  if (photometric <= kTiffBlackIsZero) header.conversions.push_back("gray converted");
  if (photometric == kTiffCmyk) header.conversions.push_back("CMYK converted");
  if (photometric == kTiffPalette) {
    if (directory.find(kTiffColorMap).count != 3U << bits) {
      throw SampleError("TIFF: the palette is missing or broken");
    }
    header.conversions.push_back("palette converted");
  }
  const TiffDirectory::Field extra = directory.find(kTiffExtraSamples);
  if (extra.count > 0) {
    header.conversions.push_back("alpha dropped");
    if (directory.value(extra, 0) == kTiffUnassociatedAlpha) {
      header.alpha_kind_at = extra.at;
      header.alpha_kind_bytes = extra.bytes;
    }
  }

  if (directory.find(kTiffTileOffsets).count > 0) {
    header.block_width = directory.value_or(kTiffTileWidth, 0);
    header.block_height = directory.value_or(kTiffTileHeight, 0);
    check_tiff_data(directory, kTiffTileOffsets, kTiffTileBytes);
  } else {
    constexpr std::uint64_t kAllRows = 0xFFFFFFFF;
    const std::uint64_t rows = directory.value_or(kTiffRowsPerStrip, kAllRows);
    header.block_width = header.width;
    header.block_height = rows == kAllRows ? header.height : rows;
    check_tiff_data(directory, kTiffStripOffsets, kTiffStripBytes);
  }
  const std::uint64_t orientation = directory.value_or(kTiffOrientation, 1);
  if (orientation >= 1 && orientation <= 8) {
    header.orientation = static_cast<Orientation>(orientation);
  }
  return header;
}

}  // namespace gp
