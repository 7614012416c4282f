#include "stages/data/decode.hpp"

#include <sstream>

#include "pipeline/error.hpp"
#include "stages/data/stages.hpp"

namespace gp {

void check_image_size(std::uint64_t width, std::uint64_t height, const DecodeOptions& options) {
  const std::string size = std::to_string(width) + "x" + std::to_string(height);
  if (width == 0 || height == 0) throw SampleError("an image of " + size + " pixels is empty");
  // Divided, because a product could overflow.
  if (width > static_cast<std::uint64_t>(options.max_pixels) / height) {
    throw SampleError("an image of " + size +
                      " pixels is above max_pixels = " + std::to_string(options.max_pixels));
  }
}

Geometry upright_geometry(ImageShape stored, Orientation orientation,
                          const std::optional<RectF>& region) {
  Geometry geometry =
      Geometry::whole(swaps_axes(orientation) ? ImageShape{stored.width, stored.height} : stored);
  if (!region) return geometry;
  geometry.region = intersect(geometry.frame, turn_upright(*region, stored, orientation));
  if (!(geometry.region.width > 0) || !(geometry.region.height > 0)) {
    std::ostringstream text;
    text << "the box from " << region->x << "," << region->y << " to " << region->x + region->width
         << "," << region->y + region->height << " lies outside the image of " << to_string(stored)
         << " pixels";
    throw SampleError(text.str());
  }
  return geometry;
}

int choose_dct_reduction(const Geometry& upright, const SizeDemand& demand) {
  if (demand.full) return 1;
  const RectF& frame = upright.frame;
  const RectF cropped{frame.x + demand.crop_left, frame.y + demand.crop_top,
                      frame.width - demand.crop_left - demand.crop_right,
                      frame.height - demand.crop_top - demand.crop_bottom};
  const RectF region = intersect(upright.region, cropped);
  for (const int n : {8, 4, 2}) {
    if (region.width >= static_cast<double>(demand.region.width) * n &&
        region.height >= static_cast<double>(demand.region.height) * n) {
      return n;
    }
  }
  return 1;
}

Geometry decode_image(std::span<const std::uint8_t> bytes, const DecodeOptions& options,
                      DecodeTarget& target) {
  const ImageFormat format = detect_format(bytes);
  switch (format) {
    case ImageFormat::kJpeg:
      return decode_jpeg(bytes, options, target);
    case ImageFormat::kPng:
      return decode_png(bytes, options, target);
    default:
      return decode_with_opencv(format, bytes, options, target);
  }
}

namespace {

class MemoryTarget : public DecodeTarget {
 public:
  explicit MemoryTarget(Decoded& decoded) : decoded_(decoded) {}
  ImageView image(int height, int width) override {
    decoded_.image.reshape(height, width);
    return decoded_.image.view();
  }
  void count(const std::string& event) override { decoded_.events.push_back(event); }

 private:
  Decoded& decoded_;
};

class StageTarget : public DecodeTarget {
 public:
  explicit StageTarget(StageOutput& out) : out_(out) {}
  ImageView image(int height, int width) override { return out_.image(height, width); }
  void count(const std::string& event) override { out_.count(event); }

 private:
  StageOutput& out_;
};

class DecodeStage : public TransformStage {
 public:
  explicit DecodeStage(const Params& params) : min_size_(params.integer("min_size")) {
    options_.max_pixels = params.integer("max_pixels");
    options_.accept_truncated = params.text("truncated") == "accept";
    options_.dct_scaling = params.flag("dct_scaling");
    set_demand({});
  }

  void process(const StageInput& in, Rng& /*rng*/, StageOutput& out) const override {
    StageTarget target(out);
    if (in.geometry.region == RectF{}) {
      out.set_geometry(decode_image(in.bytes, options_, target));
      return;
    }
    DecodeOptions options = options_;
    options.region = in.geometry.region;
    out.set_geometry(decode_image(in.bytes, options, target));
  }

  ImageShape output_shape(ImageShape /*in*/) const override { return {}; }

  void set_demand(const SizeDemand& of_output) override {
    options_.demand = of_output;
    if (min_size_ > 0) {
      options_.demand.full = false;
      options_.demand.region = {static_cast<int>(min_size_), static_cast<int>(min_size_)};
    }
  }

 private:
  std::int64_t min_size_;
  DecodeOptions options_;
};

}  // namespace

Decoded decode_image(std::span<const std::uint8_t> bytes, const DecodeOptions& options) {
  Decoded decoded;
  MemoryTarget target(decoded);
  decoded.geometry = decode_image(bytes, options, target);
  return decoded;
}

StageInfo image_decode_info() {
  StageInfo info;
  info.name = "image.decode";
  info.doc = "Decodes JPEG, PNG, WebP, BMP and TIFF to upright RGB; the format is told by content.";
  info.in = Kind::kBytes;
  info.out = Kind::kImage;
  info.params
      .integer("min_size", 0,
               "pixels that both sides must keep after later crops when a JPEG is decoded smaller; "
               "0: what the next image.resize needs",
               0, 65535)
      .flag("dct_scaling", true, "decode JPEGs at 1/2, 1/4 or 1/8 where that is large enough")
      .integer("max_pixels", 100'000'000, "larger images are rejected, pixels", 1, 2'000'000'000)
      .choice("truncated", "reject", {"reject", "accept"},
              "JPEGs whose data is damaged or ends early: a reject, or gray where data is missing");
  info.create = [](const Params& params) { return std::make_unique<DecodeStage>(params); };
  return info;
}

}  // namespace gp
