#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

// jpeglib.h needs size_t and FILE.
#include <jpeglib.h>
// After jpeglib.h.
#include <jerror.h>

#include "pipeline/error.hpp"
#include "stages/data/baseline_jpeg.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/exif.hpp"

namespace gp {
namespace {

/// Real files have about ten; each costs a pass over the whole image, however few its bytes.
constexpr int kMaxScans = 100;

/// What libjpeg calls instead of exit() and printf(). It must not throw through libjpeg's C frames,
/// so it jumps to the last JpegReader::guarded().
struct JpegErrors {
  jpeg_error_mgr manager;  // first: libjpeg's pointer to it is a pointer to all
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
  bool accept_damage;
  bool damaged;      ///< pixels are missing or wrong
  bool end_missing;  ///< the file stops without an end marker
  bool warned;
};

JpegErrors& errors_of(j_common_ptr info) { return *reinterpret_cast<JpegErrors*>(info->err); }

[[noreturn]] void fail(j_common_ptr info) {
  JpegErrors& errors = errors_of(info);
  errors.manager.format_message(info, errors.text);
  std::longjmp(errors.jump, 1);
}

[[noreturn]] void fail(JpegErrors& errors, const char* text) {
  std::snprintf(errors.text, sizeof errors.text, "%s", text);
  std::longjmp(errors.jump, 1);
}

void on_error(j_common_ptr info) {
  JpegErrors& errors = errors_of(info);
  if (errors.manager.msg_code != JERR_BAD_PRECISION) fail(info);
  std::snprintf(errors.text, sizeof errors.text, "%d bits a sample are not supported, only 8",
                errors.manager.msg_parm.i[0]);
  std::longjmp(errors.jump, 1);
}

/// Level -1: the data is damaged, but decoding can go on. Higher levels are traces.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  JpegErrors& errors = errors_of(info);
  errors.warned = true;
  const char* damage = nullptr;
  switch (errors.manager.msg_code) {
    case JWRN_HIT_MARKER:
      damage = "the data ended before the last block";
      break;
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
      damage = "the data is corrupt (bad code)";
      break;
    case JWRN_MUST_RESYNC:
      damage = "the data is corrupt (restart marker out of place)";
      break;
    case JWRN_JPEG_EOF:
      errors.end_missing = true;
      break;
    default:
      break;  // nothing of the picture is lost
  }
  if (damage == nullptr) return;
  errors.damaged = true;
  if (!errors.accept_damage) fail(errors, damage);
}

void on_output(j_common_ptr /*info*/) {}

void on_progress(j_common_ptr info) {
  const auto* decompress = reinterpret_cast<j_decompress_ptr>(info);
  if (decompress->input_scan_number > kMaxScans) {
    fail(errors_of(info), "more than 100 scans");
  }
}

/// One JPEG being decoded by libjpeg. Every call into the library goes through guarded().
class JpegReader {
 public:
  explicit JpegReader(bool accept_damage) {
    std::memset(&info_, 0, sizeof info_);
    std::memset(&errors_, 0, sizeof errors_);
    errors_.accept_damage = accept_damage;
    info_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = on_error;
    errors_.manager.emit_message = on_message;
    errors_.manager.output_message = on_output;
    progress_.progress_monitor = on_progress;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }  // also before open()
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  /// Reads up to the first scan. Not done by the constructor: were it to throw, nobody would free
  /// what libjpeg has allocated.
  void open(std::span<const std::uint8_t> bytes) {
    guarded([&] {
      jpeg_create_decompress(&info_);
      info_.progress = &progress_;
      jpeg_mem_src(&info_, bytes.data(), bytes.size());
      jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);
      jpeg_read_header(&info_, TRUE);
    });
  }
  /// Runs `step`; turns an error in libjpeg into SampleError. No object with a destructor may be
  /// made within `step`, because longjmp() would skip it.
  template <class Step>
  void guarded(Step step) {
    if (!run(step)) throw SampleError(std::string("JPEG: ") + errors_.text);
  }

  jpeg_decompress_struct& info() { return info_; }
  JpegErrors& errors() { return errors_; }

  Orientation orientation() const {
    for (const jpeg_marker_struct* marker = info_.marker_list; marker; marker = marker->next) {
      if (marker->marker == JPEG_APP0 + 1 && marker->data_length >= 6 &&
          std::memcmp(marker->data, "Exif\0", 5) == 0) {
        return read_exif_orientation({marker->data, marker->data_length});
      }
    }
    return Orientation::kNormal;
  }

  /// Asked after the last row. libjpeg says nothing about scans that never came.
  bool scans_missing() const {
    for (int c = 0; c < info_.num_components; ++c) {
      // The table is latched when a component's first scan begins.
      if (info_.comp_info[c].quant_table == nullptr) return true;
      if (!errors_.end_missing || !info_.progressive_mode || info_.coef_bits == nullptr) continue;
      for (int k = 0; k < DCTSIZE2; ++k) {
        if (info_.coef_bits[c][k] != 0) return true;  // bits of the coefficient that are to come
      }
    }
    return false;
  }

 private:
  template <class Step>
  bool run(Step step) {
    if (setjmp(errors_.jump) != 0) return false;
    step();
    return true;
  }

  jpeg_decompress_struct info_;
  JpegErrors errors_;
  jpeg_progress_mgr progress_{};
};

/// Adobe's inverted CMYK to RGB without a profile, rounded as Pillow does. `out` may not overlap.
void cmyk_to_rgb(const std::uint8_t* in, int width, std::uint8_t* out) {
  for (int x = 0; x < width; ++x, in += 4, out += kChannels) {
    const int light = in[3];  // inverted: 255 is no black
    for (int c = 0; c < kChannels; ++c) {
      const int product = (255 - in[c]) * light + 128;
      out[c] = static_cast<std::uint8_t>(light - ((product + (product >> 8)) >> 8));
    }
  }
}

/// All rows through libjpeg. `info` of the reader: started.
void read_rows(JpegReader& reader, ImageShape stored, Orientation orientation, ImageView out) {
  jpeg_decompress_struct& info = reader.info();
  const bool cmyk = info.out_color_space == JCS_CMYK;
  if (!cmyk && orientation == Orientation::kNormal) {
    reader.guarded([&] {
      JSAMPROW rows[8];
      while (info.output_scanline < info.output_height) {
        const JDIMENSION left = info.output_height - info.output_scanline;
        const JDIMENSION count = left < 8 ? left : 8;
        for (JDIMENSION i = 0; i < count; ++i) {
          rows[i] = out.row(static_cast<int>(info.output_scanline + i));
        }
        jpeg_read_scanlines(&info, rows, count);
      }
    });
    return;
  }
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(stored.width) * 4);
  std::vector<std::uint8_t> converted(cmyk ? static_cast<std::size_t>(stored.width) * kChannels
                                           : 0);
  reader.guarded([&] {
    while (info.output_scanline < info.output_height) {
      const int y = static_cast<int>(info.output_scanline);
      JSAMPROW row = raw.data();
      jpeg_read_scanlines(&info, &row, 1);
      if (cmyk) {
        cmyk_to_rgb(raw.data(), stored.width, converted.data());
        row = converted.data();
      }
      place_row(row, y, stored, orientation, out);
    }
  });
}

}  // namespace

Geometry decode_jpeg(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                     DecodeTarget& target) {
  JpegReader reader(options.accept_truncated);
  reader.open(bytes);
  jpeg_decompress_struct& info = reader.info();
  check_image_size(info.image_width, info.image_height, options);
  const Orientation orientation = reader.orientation();
  const bool swapped = swaps_axes(orientation);
  Geometry geometry =
      upright_geometry({static_cast<int>(info.image_height), static_cast<int>(info.image_width)},
                       orientation, options.region);

  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  const int reduction = options.dct_scaling ? choose_dct_reduction(geometry, options.demand) : 1;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = static_cast<unsigned>(reduction);
  reader.guarded([&] { jpeg_calc_output_dimensions(&info); });
  const ImageShape stored{static_cast<int>(info.output_height),
                          static_cast<int>(info.output_width)};
  ImageView out;
  const auto make_image = [&] {
    out = swapped ? target.image(stored.width, stored.height)
                  : target.image(stored.height, stored.width);
  };
  bool done = false;
  if (options.baseline_jpeg && is_baseline_jpeg(info)) {
    make_image();
    done = decode_baseline_jpeg(info, orientation, out);
  }
  if (!done) {
    reader.guarded([&] { jpeg_start_decompress(&info); });
    if (out.empty()) make_image();
    read_rows(reader, stored, orientation, out);
    // No jpeg_finish_decompress(): every row is there, rubbish behind them does no harm.
    if (reader.scans_missing()) {
      if (!options.accept_truncated) throw SampleError("JPEG: the data ended before the last scan");
      reader.errors().damaged = true;
    }
  }
  if (reader.errors().damaged) {
    target.count("damaged JPEG accepted");
  } else if (reader.errors().warned) {
    target.count("JPEG decoder warning");
  }
  if (cmyk) target.count("CMYK converted");
  if (info.jpeg_color_space == JCS_GRAYSCALE) target.count("gray converted");
  if (orientation != Orientation::kNormal) target.count("orientation applied");

  // The pixels that reach over the source's right and bottom edges do so on the left and the top of
  // the upright image where its orientation turned it round.
  const int over_x = out.width * reduction - geometry.source_width;
  const int over_y = out.height * reduction - geometry.source_height;
  geometry.source_width += over_x;
  geometry.source_height += over_y;
  const bool x_reversed =
      orientation == Orientation::kMirror || orientation == Orientation::kRotate180 ||
      orientation == Orientation::kRotateRight || orientation == Orientation::kAntiTranspose;
  const bool y_reversed =
      orientation == Orientation::kRotate180 || orientation == Orientation::kFlip ||
      orientation == Orientation::kAntiTranspose || orientation == Orientation::kRotateLeft;
  for (RectF* rectangle : {&geometry.region, &geometry.frame}) {
    if (x_reversed) rectangle->x += over_x;
    if (y_reversed) rectangle->y += over_y;
  }
  return geometry;
}

}  // namespace gp
