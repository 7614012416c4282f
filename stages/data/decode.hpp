#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipeline/image.hpp"
#include "pipeline/stage.hpp"
#include "stages/data/exif.hpp"
#include "stages/data/format.hpp"

namespace gp {

struct DecodeOptions {
  /// Images with more pixels are refused from their header, before memory is taken.
  std::int64_t max_pixels = 100'000'000;
  /// JPEG whose compressed data is damaged or ends early: false refuses it, true keeps what there
  /// is (the rest is gray).
  bool accept_truncated = false;
  /// Whether a JPEG may be decoded smaller than it is, at 1/2, 1/4 or 1/8, where `demand` allows.
  bool dct_scaling = true;
  /// Whether JPEGs of the common kind go through decode_baseline_jpeg(), which gives the same
  /// pixels in less time, or all of them through libjpeg-turbo.
  bool baseline_jpeg = true;
  /// What the stages downstream need.
  SizeDemand demand;
  /// The part of the picture that counts, pixels of the image as it is stored; none: all of it.
  std::optional<RectF> region = {};
};

/// Where a decoder puts its pixels.
class DecodeTarget {
 public:
  virtual ~DecodeTarget() = default;
  /// Called once, when the size is known.
  virtual ImageView image(int height, int width) = 0;
  /// Called for each conversion: "CMYK converted", "gray converted", "palette converted",
  /// "alpha dropped", "16 bit converted", "orientation applied", "damaged JPEG accepted",
  /// "JPEG decoder warning".
  virtual void count(const std::string& event) = 0;
};

/// Decodes JPEG, PNG, WebP, BMP or TIFF (told apart by their first bytes) to upright RGB8. Any
/// bytes may be given. Returns the geometry of the pixels: the whole source, or what lies within
/// `options.region` (turned upright with the image).
///
/// What the formats hold becomes RGB as Pillow's convert("RGB") does it: gray is repeated, palettes
/// are looked up, alpha is dropped (not composited), CMYK is taken as inverted (as Adobe writes it)
/// and converted without a profile. 16 bits: the high byte. The EXIF orientation of JPEG, PNG, WebP
/// and TIFF is applied. Of several pages or frames the first is taken.
///
/// A JPEG that is decoded at 1/n has ceil(size / n) pixels, the last of which may lie partly
/// outside the source. So that positions stay exact, the geometry then says n times the pixels for
/// the size of the source, and the real one as the region.
///
/// Throws SampleError with the reason. Thread-safe. Writes nothing to stderr (WebP, BMP and TIFF:
/// after configure_opencv()).
Geometry decode_image(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                      DecodeTarget& target);

/// The same into memory of its own.
struct Decoded {
  Image image;
  Geometry geometry;
  std::vector<std::string> events;  ///< what count() was told
};
Decoded decode_image(std::span<const std::uint8_t> bytes, const DecodeOptions& options = {});

/// n of the 1/n (8, 4, 2, 1) at which what is wanted of a JPEG, which is `upright` at full size,
/// still covers `demand`.
int choose_dct_reduction(const Geometry& upright, const SizeDemand& demand);

/// Makes OpenCV start no threads of its own and keep silent on stderr: process-wide, called once
/// before threads start. The module does so when it is loaded; for whoever uses the decoders
/// without it.
void configure_opencv();

// The parts, for decode_image().

/// Throws SampleError when the size is empty or above the limit.
void check_image_size(std::uint64_t width, std::uint64_t height, const DecodeOptions& options);

/// The geometry of the upright image that is made of one of `stored` pixels, and of the part of it
/// that counts. Throws SampleError when that part lies outside.
Geometry upright_geometry(ImageShape stored, Orientation orientation,
                          const std::optional<RectF>& region);

Geometry decode_jpeg(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                     DecodeTarget& target);
Geometry decode_png(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                    DecodeTarget& target);
/// WebP, BMP and TIFF through OpenCV, which never sees anything else.
Geometry decode_with_opencv(ImageFormat format, std::span<const std::uint8_t> bytes,
                            const DecodeOptions& options, DecodeTarget& target);

}  // namespace gp
