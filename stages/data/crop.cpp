#include "stages/data/crop.hpp"

#include <sstream>

#include "pipeline/error.hpp"
#include "stages/data/stages.hpp"

namespace gp {

Geometry crop(const Geometry& geometry, const CropMargins& margins) {
  const RectF& region = geometry.region;
  const RectF& frame = geometry.frame;
  Geometry result = geometry;
  result.frame = {frame.x + margins.left, frame.y + margins.top,
                  frame.width - margins.left - margins.right,
                  frame.height - margins.top - margins.bottom};
  result.region = region == frame ? result.frame : intersect(region, result.frame);
  if (!(result.region.width > 0) || !(result.region.height > 0)) {
    std::ostringstream text;
    text << "crop of left " << margins.left << ", top " << margins.top << ", right "
         << margins.right << ", bottom " << margins.bottom << " leaves nothing of an area of "
         << region.width << "x" << region.height << " source pixels";
    throw SampleError(text.str());
  }
  return result;
}

namespace {

class CropStage : public TransformStage {
 public:
  explicit CropStage(const Params& params)
      : margins_{params.real("left"), params.real("top"), params.real("right"),
                 params.real("bottom")} {}

  void process(const StageInput& in, Rng& /*rng*/, StageOutput& out) const override {
    const Geometry narrowed = crop(in.geometry, margins_);
    out.pass_through();
    out.set_geometry(narrowed);
  }

  bool reads_region() const override { return true; }

  SizeDemand demand(const SizeDemand& of_output) const override {
    SizeDemand wanted = of_output;
    wanted.crop_left += margins_.left;
    wanted.crop_top += margins_.top;
    wanted.crop_right += margins_.right;
    wanted.crop_bottom += margins_.bottom;
    return wanted;
  }

 private:
  CropMargins margins_;
};

}  // namespace

StageInfo image_crop_info() {
  StageInfo info;
  info.name = "image.crop";
  info.doc = "Cuts margins off, given in pixels of the source image (before any DCT scaling).";
  info.in = Kind::kImage;
  info.out = Kind::kImage;
  info.params.real("left", 0, "pixels to cut off the left side", 0, 1e6)
      .real("top", 0, "pixels to cut off the top", 0, 1e6)
      .real("right", 0, "pixels to cut off the right side", 0, 1e6)
      .real("bottom", 0, "pixels to cut off the bottom", 0, 1e6);
  info.create = [](const Params& params) { return std::make_unique<CropStage>(params); };
  return info;
}

}  // namespace gp
