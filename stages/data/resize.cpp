#include "stages/data/resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numbers>
#include <vector>

#include "pipeline/error.hpp"
#include "stages/data/resize_kernels.hpp"
#include "stages/data/stages.hpp"

namespace gp {
namespace {

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double triangle(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double lanczos(double x) {
  const auto sinc = [](double t) {
    return t == 0 ? 1 : std::sin(t * std::numbers::pi) / (t * std::numbers::pi);
  };
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

void append(ResizeWeights& weights, int first, std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  weights.spans.push_back(
      {first, static_cast<int>(values.size()), static_cast<int>(weights.values.size())});
  for (double value : values) {
    if (sum != 0) value /= sum;
    const double fixed = value * (1 << kResizeWeightBits);
    weights.values.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
  }
}

/// The share of each input pixel in [low, high) / n, cut into n footprints.
ResizeWeights area_weights(int in_size, double low, double high, int out_size) {
  ResizeWeights weights;
  std::vector<double> values;
  const double scale = (high - low) / out_size;
  for (int i = 0; i < out_size; ++i) {
    const double from = low + i * scale;
    const double to = i + 1 == out_size ? high : low + (i + 1) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(from)), 0, in_size - 1);
    const int last = std::clamp(static_cast<int>(std::ceil(to)), first + 1, in_size);
    values.clear();
    for (int x = first; x < last; ++x) {
      values.push_back(std::max(0.0, std::min<double>(to, x + 1) - std::max<double>(from, x)));
    }
    append(weights, first, values);
  }
  return weights;
}

/// As in Pillow's precompute_coeffs(), so that results are equal.
template <class Filter>
ResizeWeights filter_weights(int in_size, double low, double high, int out_size, Filter filter,
                             double filter_support) {
  ResizeWeights weights;
  std::vector<double> values;
  const double scale = (high - low) / out_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = filter_support * filter_scale;
  const double inverse = 1.0 / filter_scale;
  for (int i = 0; i < out_size; ++i) {
    const double centre = low + (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + support + 0.5), in_size);
    values.clear();
    for (int x = first; x < last; ++x) values.push_back(filter((x - centre + 0.5) * inverse));
    append(weights, first, values);
  }
  return weights;
}

ResizeWeights make_weights(ResizeFilter filter, int in_size, double low, double high,
                           int out_size) {
  switch (filter) {
    case ResizeFilter::kBox:
      return filter_weights(in_size, low, high, out_size, box, 0.5);
    case ResizeFilter::kBilinear:
      return filter_weights(in_size, low, high, out_size, triangle, 1.0);
    case ResizeFilter::kBicubic:
      return filter_weights(in_size, low, high, out_size, cubic, 2.0);
    case ResizeFilter::kLanczos:
      return filter_weights(in_size, low, high, out_size, lanczos, 3.0);
    case ResizeFilter::kArea:
      break;
  }
  return area_weights(in_size, low, high, out_size);
}

}  // namespace

void resize(ConstImageView in, const RectF& region, ResizeFilter filter, ImageView out) {
  const double left = std::max(region.x, 0.0);
  const double top = std::max(region.y, 0.0);
  const double right = std::min<double>(region.x + region.width, in.width);
  const double bottom = std::min<double>(region.y + region.height, in.height);
  if (!(right > left) || !(bottom > top)) {
    throw SampleError("the region to resize (" + std::to_string(region.width) + "x" +
                      std::to_string(region.height) + " at " + std::to_string(region.x) + "," +
                      std::to_string(region.y) + ") holds nothing of the image of " +
                      std::to_string(in.width) + "x" + std::to_string(in.height));
  }
  const ResizeWeights across = make_weights(filter, in.width, left, right, out.width);
  const ResizeWeights down = make_weights(filter, in.height, top, bottom, out.height);

  // Horizontal first, only the rows that the vertical pass reads.
  int first_row = in.height;
  int end_row = 0;
  for (const ResizeWeights::Span& span : down.spans) {
    first_row = std::min(first_row, span.first);
    end_row = std::max(end_row, span.first + span.count);
  }
  const ResizeKernels& kernels = resize_kernels();
  const std::size_t length = static_cast<std::size_t>(out.width) * kChannels;
  const std::size_t stride = length + 1;
  const int n_rows = end_row - first_row;
  const auto narrow = std::make_unique_for_overwrite<std::uint8_t[]>(n_rows * stride);
  kernels.across(in.row(first_row), in.stride, in.width, n_rows, across, narrow.get(),
                 static_cast<std::ptrdiff_t>(stride));
  for (int y = 0; y < out.height; ++y) {
    const ResizeWeights::Span& span = down.spans[static_cast<std::size_t>(y)];
    kernels.down(narrow.get() + static_cast<std::size_t>(span.first - first_row) * stride,
                 static_cast<std::ptrdiff_t>(stride), down.values.data() + span.offset, span.count,
                 length, out.row(y));
  }
}

void resize_area(ConstImageView in, const RectF& region, ImageView out) {
  resize(in, region, ResizeFilter::kArea, out);
}

void resize_to_square(ConstImageView in, const RectF& region, double pixel_aspect, ResizeFit fit,
                      ResizeFilter filter, ImageView out) {
  const int size = out.width;
  const double aspect = region.width * pixel_aspect / region.height;  // of what is seen
  switch (fit) {
    case ResizeFit::kSquash:
      resize(in, region, filter, out);
      return;
    case ResizeFit::kCrop: {
      RectF square = region;
      if (aspect > 1) {
        square.width = region.width / aspect;
        square.x += (region.width - square.width) / 2;
      } else {
        square.height = region.height * aspect;
        square.y += (region.height - square.height) / 2;
      }
      resize(in, square, filter, out);
      return;
    }
    case ResizeFit::kPad: {
      const auto fitted = [size](double share) {
        return std::max(1, static_cast<int>(std::lround(size * std::min(share, 1.0))));
      };
      const int width = fitted(aspect);
      const int height = fitted(1 / aspect);
      for (int y = 0; y < size; ++y) {
        std::memset(out.row(y), 0, static_cast<std::size_t>(size) * kChannels);
      }
      const int left = (size - width) / 2;
      const int top = (size - height) / 2;
      resize(in, region, filter,
             {out.row(top) + static_cast<std::ptrdiff_t>(left) * kChannels, height, width,
              out.stride});
      return;
    }
  }
}

ResizeFilter resize_filter(const std::string& name) {
  static const std::map<std::string, ResizeFilter> kFilters = {
      {"area", ResizeFilter::kArea},
      {"box", ResizeFilter::kBox},
      {"bilinear", ResizeFilter::kBilinear},
      {"bicubic", ResizeFilter::kBicubic},
      {"lanczos", ResizeFilter::kLanczos}};
  return kFilters.at(name);
}

namespace {

ResizeFit parse_fit(const std::string& name) {
  static const std::map<std::string, ResizeFit> kFits = {
      {"squash", ResizeFit::kSquash}, {"crop", ResizeFit::kCrop}, {"pad", ResizeFit::kPad}};
  return kFits.at(name);
}

class ResizeStage : public TransformStage {
 public:
  explicit ResizeStage(const Params& params)
      : size_(static_cast<int>(params.integer("size"))),
        fit_(parse_fit(params.text("fit"))),
        filter_(resize_filter(params.text("filter"))) {}

  void process(const StageInput& in, Rng& /*rng*/, StageOutput& out) const override {
    const RectF region = in.geometry.region_in(in.image.shape());
    // How many source pixels one pixel of the image is wide and high.
    const double wide = static_cast<double>(in.geometry.source_width) / in.image.width;
    const double high = static_cast<double>(in.geometry.source_height) / in.image.height;
    resize_to_square(in.image, region, wide / high, fit_, filter_, out.image(size_, size_));
  }

  ImageShape output_shape(ImageShape /*in*/) const override { return {size_, size_}; }
  bool reads_region() const override { return true; }

  SizeDemand demand(const SizeDemand& /*of_output*/) const override {
    SizeDemand wanted;
    wanted.full = false;
    wanted.region = {size_, size_};
    return wanted;
  }

 private:
  int size_;
  ResizeFit fit_;
  ResizeFilter filter_;
};

}  // namespace

StageInfo image_resize_info() {
  StageInfo info;
  info.name = "image.resize";
  info.doc = "Resamples the image (or what crops left of it) to a square.";
  info.in = Kind::kImage;
  info.out = Kind::kImage;
  info.params.integer("size", 128, "side of the square, pixels", 1, 8192)
      .choice("fit", "squash", {"squash", "crop", "pad"},
              "squash: stretch to the square; crop: its centred square; pad: all of it, on black")
      .choice("filter", "area", {"area", "box", "bilinear", "bicubic", "lanczos"},
              "area: exact mean of each footprint; the others as in Pillow, antialiased");
  info.create = [](const Params& params) { return std::make_unique<ResizeStage>(params); };
  return info;
}

}  // namespace gp
