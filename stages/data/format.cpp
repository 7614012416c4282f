#include "stages/data/format.hpp"

#include <array>
#include <string_view>

#include "pipeline/error.hpp"
#include "stages/data/byte_reader.hpp"

namespace gp {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view bytes;
  std::uint64_t at;
  std::string_view name;
};

/// Formats that are known, but not read.
constexpr std::array kUnsupported = {
    Magic{"GIF8"sv, 0, "GIF"},
    Magic{"\0\0\0\x0CjP  "sv, 0, "JPEG 2000"},
    Magic{"\xFF\x4F\xFF\x51"sv, 0, "JPEG 2000"},
    Magic{"\0\0\0\x0CJXL "sv, 0, "JPEG XL"},
    Magic{"\xFF\x0A"sv, 0, "JPEG XL"},
    Magic{"ftypavif"sv, 4, "AVIF"},
    Magic{"ftypavis"sv, 4, "AVIF"},
    Magic{"ftyphei"sv, 4, "HEIC"},
    Magic{"ftyphev"sv, 4, "HEIC"},
    Magic{"ftypmif1"sv, 4, "HEIF"},
    Magic{"ftypmsf1"sv, 4, "HEIF"},
    Magic{"ftyp"sv, 4, "MP4 or QuickTime"},
    Magic{"8BPS"sv, 0, "Photoshop PSD"},
    Magic{"\0\0\x01\0"sv, 0, "ICO"},
    Magic{"\0\0\x02\0"sv, 0, "CUR"},
    Magic{"\x76\x2F\x31\x01"sv, 0, "OpenEXR"},
    Magic{"#?RADIANCE"sv, 0, "Radiance HDR"},
    Magic{"DDS "sv, 0, "DDS"},
    Magic{"qoif"sv, 0, "QOI"},
    Magic{"\x8AMNG"sv, 0, "MNG"},
    Magic{"%PDF"sv, 0, "PDF"},
    Magic{"%!PS"sv, 0, "PostScript"},
    Magic{"<svg"sv, 0, "SVG"},
    Magic{"<?xml"sv, 0, "XML"},
    Magic{"<!DOCTYPE"sv, 0, "HTML"},
    Magic{"<html"sv, 0, "HTML"},
    Magic{"PK\x03\x04"sv, 0, "ZIP"},
    Magic{"\x1F\x8B"sv, 0, "gzip"},
    Magic{"\x89HDF"sv, 0, "HDF5"},
};

/// "P1" to "P7" and white space.
bool is_pnm(std::span<const std::uint8_t> bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '7' &&
         (bytes[2] == '\n' || bytes[2] == ' ' || bytes[2] == '\r' || bytes[2] == '\t');
}

std::string first_bytes(std::span<const std::uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string text;
  for (const std::uint8_t byte : bytes.first(std::min<std::size_t>(bytes.size(), 8))) {
    if (!text.empty()) text += ' ';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

std::string to_string(ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg:
      return "JPEG";
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kWebp:
      return "WebP";
    case ImageFormat::kBmp:
      return "BMP";
    case ImageFormat::kTiff:
      return "TIFF";
  }
  return "?";
}

ImageFormat detect_format(std::span<const std::uint8_t> bytes) {
  const ByteReader reader(bytes);
  if (bytes.empty()) throw SampleError("the file is empty");
  if (reader.starts_with("\xFF\xD8\xFF"sv)) return ImageFormat::kJpeg;
  if (reader.starts_with("\x89PNG\r\n\x1A\n"sv)) return ImageFormat::kPng;
  if (reader.starts_with("RIFF"sv) && reader.starts_with("WEBP"sv, 8)) return ImageFormat::kWebp;
  if (reader.starts_with("BM"sv)) return ImageFormat::kBmp;
  if (reader.starts_with("II*\0"sv) || reader.starts_with("MM\0*"sv) ||
      reader.starts_with("II+\0"sv) || reader.starts_with("MM\0+"sv)) {
    return ImageFormat::kTiff;
  }
  if (reader.starts_with("version https://git-lfs"sv)) {
    throw SampleError("a Git LFS pointer, not the image itself: fetch the data with git lfs pull");
  }
  for (const Magic& magic : kUnsupported) {
    if (reader.starts_with(magic.bytes, magic.at)) {
      throw SampleError("unsupported format " + std::string(magic.name) +
                        "; JPEG, PNG, WebP, BMP and TIFF are read");
    }
  }
  if (is_pnm(bytes)) {
    throw SampleError("unsupported format PNM; JPEG, PNG, WebP, BMP and TIFF are read");
  }
  throw SampleError("not an image in a known format (it begins with " + first_bytes(bytes) +
                    "); JPEG, PNG, WebP, BMP and TIFF are read");
}

}  // namespace gp
