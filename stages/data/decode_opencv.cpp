#include <algorithm>
#include <iostream>
#include <limits>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <streambuf>

#include "pipeline/error.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/exif.hpp"
#include "stages/data/raster_header.hpp"

namespace gp {
namespace {

RasterHeader read_header(ImageFormat format, std::span<const std::uint8_t> bytes) {
  switch (format) {
    case ImageFormat::kWebp:
      return read_webp_header(bytes);
    case ImageFormat::kBmp:
      return read_bmp_header(bytes);
    case ImageFormat::kTiff:
      return read_tiff_header(bytes);
    default:
      throw std::logic_error(to_string(format) + " does not go through OpenCV");
  }
}

thread_local bool t_muted = false;

/// imdecode() catches what its decoders throw and writes it to std::cerr, a line or more for each
/// bad file. This stands before std::cerr's own buffer and drops what a thread writes while it is
/// muted. It has no state of its own, so that threads may write through it at once.
class MutableBuffer : public std::streambuf {
 public:
  explicit MutableBuffer(std::streambuf* next) : next_(next) {}

 protected:
  int_type overflow(int_type c) override {
    if (t_muted || traits_type::eq_int_type(c, traits_type::eof())) {
      return traits_type::not_eof(c);
    }
    return next_->sputc(traits_type::to_char_type(c));
  }
  std::streamsize xsputn(const char* text, std::streamsize count) override {
    return t_muted ? count : next_->sputn(text, count);
  }
  int sync() override { return next_->pubsync(); }

 private:
  std::streambuf* next_;
};

class Mute {
 public:
  Mute() { t_muted = true; }
  ~Mute() { t_muted = false; }
  Mute(const Mute&) = delete;
  Mute& operator=(const Mute&) = delete;
};

cv::Mat decode(ImageFormat format, std::span<const std::uint8_t> bytes) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw SampleError(to_string(format) + ": a file above 2 GB");
  }
  // imdecode() only reads, but there is no Mat of constant bytes.
  const cv::Mat input(1, static_cast<int>(bytes.size()), CV_8UC1,
                      const_cast<std::uint8_t*>(bytes.data()));
  cv::Mat pixels;
  try {
    const Mute mute;
    pixels = cv::imdecode(input, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const cv::Exception& error) {
    throw SampleError(to_string(format) + ": " + error.err);
  }
  // What went wrong is known to OpenCV's log only.
  if (pixels.empty()) throw SampleError(to_string(format) + ": the data is damaged or incomplete");
  if (pixels.type() != CV_8UC3) throw SampleError(to_string(format) + ": not decoded to 8 bits");
  return pixels;
}

void bgr_to_rgb(const std::uint8_t* in, int width, std::uint8_t* out) {
  for (int x = 0; x < width; ++x, in += kChannels, out += kChannels) {
    out[0] = in[2];
    out[1] = in[1];
    out[2] = in[0];
  }
}

/// Fills the low bits of packed colours, which OpenCV leaves 0: white would be 248.
void spread_packed_colors(std::uint8_t* rgb, int width, int green_bits) {
  const auto spread = [](int value, int bits) {
    const int most = (1 << bits) - 1;
    return static_cast<std::uint8_t>((value >> (8 - bits)) * 255 / most);
  };
  for (int x = 0; x < width; ++x, rgb += kChannels) {
    rgb[0] = spread(rgb[0], 5);
    rgb[1] = spread(rgb[1], green_bits);
    rgb[2] = spread(rgb[2], 5);
  }
}

}  // namespace

void configure_opencv() {
  cv::setNumThreads(0);
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  // Stays until the process ends: std::cerr may be written to until then.
  static MutableBuffer* const buffer = new MutableBuffer(std::cerr.rdbuf());
  std::cerr.rdbuf(buffer);
}

Geometry decode_with_opencv(ImageFormat format, std::span<const std::uint8_t> bytes,
                            const DecodeOptions& options, DecodeTarget& target) {
  const RasterHeader header = read_header(format, bytes);
  check_image_size(header.width, header.height, options);
  if (format == ImageFormat::kTiff) {
    check_image_size(header.block_width, header.block_height, options);
  }
  const Geometry geometry =
      upright_geometry({static_cast<int>(header.height), static_cast<int>(header.width)},
                       header.orientation, options.region);
  std::vector<std::uint8_t> patched;
  if (header.alpha_kind_bytes > 0) {
    // "Some other sample" instead of alpha, so that it is dropped.
    patched.assign(bytes.begin(), bytes.end());
    std::fill_n(patched.begin() + static_cast<std::ptrdiff_t>(header.alpha_kind_at),
                header.alpha_kind_bytes, std::uint8_t{0});
    bytes = patched;
  }
  if (!header.first_frame.empty()) {
    const RasterHeader frame = read_webp_header(header.first_frame);
    if (header.frame_x + frame.width > header.width ||
        header.frame_y + frame.height > header.height) {
      throw SampleError("WebP: the first frame reaches beyond the picture");
    }
    bytes = header.first_frame;
  }
  cv::Mat pixels = decode(format, bytes);
  if (!header.first_frame.empty()) {
    cv::Mat picture(static_cast<int>(header.height), static_cast<int>(header.width), CV_8UC3,
                    cv::Scalar::all(0));
    pixels.copyTo(picture(cv::Rect(static_cast<int>(header.frame_x),
                                   static_cast<int>(header.frame_y), pixels.cols, pixels.rows)));
    pixels = picture;
  }

  // OpenCV turns TIFF upright itself, whatever the flags say.
  const Orientation to_do =
      format == ImageFormat::kTiff ? Orientation::kNormal : header.orientation;
  const ImageShape stored{pixels.rows, pixels.cols};
  const bool swapped = swaps_axes(to_do);
  const ImageView out = swapped ? target.image(stored.width, stored.height)
                                : target.image(stored.height, stored.width);
  std::vector<std::uint8_t> row(static_cast<std::size_t>(stored.width) * kChannels);
  for (int y = 0; y < stored.height; ++y) {
    bgr_to_rgb(pixels.ptr(y), stored.width, row.data());
    if (header.packed_green_bits > 0) {
      spread_packed_colors(row.data(), stored.width, header.packed_green_bits);
    }
    place_row(row.data(), y, stored, to_do, out);
  }
  for (const std::string& conversion : header.conversions) target.count(conversion);
  if (header.orientation != Orientation::kNormal) target.count("orientation applied");
  return geometry;
}

}  // namespace gp
