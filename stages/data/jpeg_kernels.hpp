#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace gp {

/// The coefficients of one block, not yet multiplied by their quantisation steps, and where in it
/// the kernels want them. One layout for each size of inverse DCT (2, 4).
struct JpegBlock {
  static constexpr int kPlaces = 64;
  static constexpr int kUnused = 64;  ///< for coefficients that the reduced sizes do not look at

  alignas(32) std::array<std::int16_t, kPlaces + 16> values;

  /// All but kUnused.
  void clear() {
    // A call to memset() takes longer than this.
    using Vector [[gnu::vector_size(16), gnu::may_alias]] = long long;
    auto* vectors = reinterpret_cast<Vector*>(values.data());
    for (int i = 0; i < 8; ++i) vectors[i] = Vector{};
  }

  /// The place of the coefficient of vertical frequency `row` and horizontal frequency `column`.
  static int place(int size, int row, int column);
};

/// Quantisation steps by place.
struct JpegSteps {
  /// Larger values are outside of what the kernels promise. Those of real pictures are below 2,048.
  static constexpr int kLargest = 16383;

  alignas(32) std::array<std::int16_t, JpegBlock::kPlaces> steps{};
  alignas(32) std::array<std::int16_t, JpegBlock::kPlaces> limits{};  ///< kLargest / step

  void set(int place, int step) {
    const auto at = static_cast<std::size_t>(place);
    steps[at] = static_cast<std::int16_t>(step <= 32767 ? step : 0);
    limits[at] = static_cast<std::int16_t>(step == 0 ? 32767 : kLargest / step);
  }
};

/// The inner loops behind entropy decoding. Every implementation gives the bytes of libjpeg-turbo
/// (jidctred.c and jdcolor.c of version 2.1, which agree with its vector versions
/// except for values that no picture holds).
struct JpegKernels {
  /// Dequantises a block, transforms it to size x size pixels. False: there are values for which
  /// libjpeg-turbo's implementations differ, and the pixels are not to be used.
  using InverseDct = bool (*)(const JpegBlock& block, const JpegSteps& steps, std::uint8_t* out,
                              std::ptrdiff_t stride);
  InverseDct idct_2x2;
  InverseDct idct_4x4;
  /// `width` pixels to interleaved RGB.
  void (*ycc_to_rgb)(const std::uint8_t* y, const std::uint8_t* cb, const std::uint8_t* cr,
                     int width, std::uint8_t* rgb);
};

const JpegKernels& portable_jpeg_kernels();
/// With AVX2. May be used only where `has_jpeg_instructions` says so.
const JpegKernels& vector_jpeg_kernels();
bool has_jpeg_instructions();
/// The faster ones of those that this processor has.
const JpegKernels& jpeg_kernels();

}  // namespace gp
