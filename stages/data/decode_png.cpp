#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "stages/data/byte_reader.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/exif.hpp"

namespace gp {
namespace {

/// What the chunks say that libpng is not asked to read.
struct PngChunks {
  std::uint64_t width = 0;
  std::uint64_t height = 0;
  bool transparency = false;
  Orientation orientation = Orientation::kNormal;
};

PngChunks scan_chunks(std::span<const std::uint8_t> bytes) {
  const ByteReader reader(bytes, /*big_endian=*/true);
  if (!reader.starts_with("IHDR", 12) || !reader.has(16, 13)) {
    throw SampleError("PNG: the header is missing");
  }
  PngChunks chunks;
  chunks.width = *reader.u32(16);
  chunks.height = *reader.u32(20);
  for (std::uint64_t at = 8; reader.has(at, 8);) {
    const std::uint64_t length = *reader.u32(at);
    if (reader.starts_with("tRNS", at + 4)) chunks.transparency = true;
    if (reader.starts_with("eXIf", at + 4)) {
      chunks.orientation = read_exif_orientation(reader.slice(at + 8, length));
    }
    at += length + 12;
  }
  return chunks;
}

/// One PNG being decoded by libpng. Every call into the library goes through guarded().
class PngReader {
 public:
  explicit PngReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw SampleError("PNG: the decoder got no memory");
    }
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  /// Runs `step`; turns an error in libpng into SampleError. No object with a destructor may be
  /// made within `step`, because longjmp() would skip it.
  template <class Step>
  void guarded(Step step) {
    if (!run(step)) throw SampleError(std::string("PNG: ") + text_);
  }
  /// The same for steps that may fail.
  template <class Step>
  bool run(Step step) {
    if (setjmp(jump_) != 0) return false;
    step(png_, info_);
    return true;
  }

  bool ended_early() const { return ended_early_; }
  std::string text() const { return text_; }

  static void read(png_structp png, png_bytep out, std::size_t count) {
    auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
    if (count > self.bytes_.size() - self.at_) {
      self.ended_early_ = true;
      png_error(png, "the file ended early");
    }
    std::memcpy(out, self.bytes_.data() + self.at_, count);
    self.at_ += count;
  }

 private:
  // libpng's own handlers print to stderr.
  [[noreturn]] static void on_error(png_structp png, png_const_charp text) {
    auto& self = *static_cast<PngReader*>(png_get_error_ptr(png));
    std::snprintf(self.text_, sizeof self.text_, "%s", text);
    std::longjmp(self.jump_, 1);
  }
  static void on_warning(png_structp /*png*/, png_const_charp /*text*/) {}

  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
  bool ended_early_ = false;
  char text_[256] = "";
  std::jmp_buf jump_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

/// Chunks to skip unread. Texts and profiles are compressed and may unpack to anything.
constexpr png_byte kSkipped[] =
    "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0tEXt\0"
    "tIME\0tRNS\0zTXt";

}  // namespace

Geometry decode_png(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                    DecodeTarget& target) {
  const PngChunks chunks = scan_chunks(bytes);
  check_image_size(chunks.width, chunks.height, options);

  PngReader reader(bytes);
  int depth = 0;
  int color = 0;
  reader.guarded([&](png_structp png, png_infop info) {
    png_set_read_fn(png, png_get_error_ptr(png), PngReader::read);
    png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);  // checked above, by area
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, kSkipped, sizeof kSkipped / 5);
    png_read_info(png, info);
    depth = png_get_bit_depth(png, info);
    color = png_get_color_type(png, info);
    png_set_expand(png);  // palettes and less than 8 bits
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != chunks.width * kChannels) {
      png_error(png, "an unexpected pixel layout");
    }
  });

  const ImageShape stored{static_cast<int>(chunks.height), static_cast<int>(chunks.width)};
  const Geometry geometry = upright_geometry(stored, chunks.orientation, options.region);
  const bool turned = chunks.orientation != Orientation::kNormal;
  const bool swapped = swaps_axes(chunks.orientation);
  const ImageView out = swapped ? target.image(stored.width, stored.height)
                                : target.image(stored.height, stored.width);
  Image scratch;
  if (turned) scratch.reshape(stored.height, stored.width);
  const ImageView pixels = turned ? scratch.view() : out;
  std::vector<png_bytep> rows(chunks.height);
  for (int y = 0; y < stored.height; ++y) rows[static_cast<std::size_t>(y)] = pixels.row(y);
  reader.guarded([&](png_structp png, png_infop) { png_read_image(png, rows.data()); });
  // Checks the last checksum. A file that stops after its pixels is complete enough.
  const bool ended = reader.run([](png_structp png, png_infop) { png_read_end(png, nullptr); });
  if (!ended && !reader.ended_early()) throw SampleError("PNG: " + reader.text());
  if (turned) {
    for (int y = 0; y < stored.height; ++y) {
      place_row(pixels.row(y), y, stored, chunks.orientation, out);
    }
    target.count("orientation applied");
  }

  if (color == PNG_COLOR_TYPE_PALETTE) target.count("palette converted");
  if ((color & PNG_COLOR_MASK_COLOR) == 0) target.count("gray converted");
  if ((color & PNG_COLOR_MASK_ALPHA) != 0 || chunks.transparency) target.count("alpha dropped");
  if (depth == 16) target.count("16 bit converted");
  return geometry;
}

}  // namespace gp
