#pragma once

#include "pipeline/image.hpp"

namespace gp {

enum class ResizeFilter {
  kArea,      ///< the mean over the exact footprint of each output pixel
  kBox,       ///< the mean of the pixels whose centres lie within the footprint
  kBilinear,  ///< triangle, widened by the scale when shrinking (antialiased)
  kBicubic,   ///< Keys' cubic, a = -0.5, widened by the scale when shrinking (antialiased)
  kLanczos    ///< windowed sinc of 3 lobes, widened by the scale when shrinking (antialiased)
};

/// The filter of a name as in the YAML: "area". Throws std::out_of_range for any other name.
ResizeFilter resize_filter(const std::string& name);

/// Resamples the rectangle `region` of `in` (pixels, edges may be fractional) to the whole of
/// `out`. Nothing outside `in` is sampled: the filter is cut off at the image's edge and
/// normalised, but it does see pixels just outside `region` where its support reaches them.
///
/// All but area give byte for byte what Pillow's `resize(size, filter, box=region)` gives: two
/// passes, horizontal first, 22-bit fixed-point weights, 8 bits between the passes. Area weighs a
/// pixel by how much of it lies within the footprint, not by whether its centre does; it is the
/// same as box where the scale is a whole number, and everywhere within 1/255 of the exact mean.
///
/// Enlarging is allowed. Throws SampleError when the region is empty or not finite; one that
/// reaches over the edge is clipped. `in` and `out` must not overlap.
void resize(ConstImageView in, const RectF& region, ResizeFilter filter, ImageView out);

/// resize() with ResizeFilter::kArea.
void resize_area(ConstImageView in, const RectF& region, ImageView out);

/// How the region of a sample is brought to a square.
enum class ResizeFit {
  kSquash,  ///< both axes scaled on their own; the whole region is seen
  kCrop,    ///< the largest centred square of the region
  kPad      ///< the whole region, its shape kept, centred on black
};

/// The `size` x `size` image of `region` of `in`. `pixel_aspect` is the width of a pixel of `in`
/// over its height, in source pixels (1 but for the rounding of DCT scaling).
void resize_to_square(ConstImageView in, const RectF& region, double pixel_aspect, ResizeFit fit,
                      ResizeFilter filter, ImageView out);

}  // namespace gp
