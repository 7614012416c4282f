#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gp {

/// Fixed-point weights: 8 bits for the pixel, 2 for the overshoot of the cubic, the rest for these.
inline constexpr int kResizeWeightBits = 32 - 8 - 2;

/// For every output coordinate of one axis, the input coordinates it sees and their weights.
struct ResizeWeights {
  struct Span {
    int first;   ///< input coordinate
    int count;   ///< of input coordinates
    int offset;  ///< into `values`
  };
  std::vector<Span> spans;           ///< one an output coordinate
  std::vector<std::int32_t> values;  ///< fixed point; each span sums to about 1
};

/// The two inner loops of resize(), on rows of interleaved RGB bytes. Every implementation gives
/// the same bytes: sums of 32 bits, rounded once.
struct ResizeKernels {
  /// `n_rows` rows of `in_width` pixels to as many rows of weights.spans.size() pixels. Rows of
  /// `out` need one byte more than their pixels have: it may be overwritten.
  void (*across)(const std::uint8_t* in, std::ptrdiff_t in_stride, int in_width, int n_rows,
                 const ResizeWeights& weights, std::uint8_t* out, std::ptrdiff_t out_stride);
  /// One row of `length` bytes: the sum of `count` rows, each times its weight.
  void (*down)(const std::uint8_t* rows, std::ptrdiff_t stride, const std::int32_t* weights,
               int count, std::size_t length, std::uint8_t* out);
};

const ResizeKernels& portable_resize_kernels();
/// With AVX2. May be used only where `has_resize_instructions` says so.
const ResizeKernels& vector_resize_kernels();
bool has_resize_instructions();
/// The faster ones of those that this processor has.
const ResizeKernels& resize_kernels();

}  // namespace gp
