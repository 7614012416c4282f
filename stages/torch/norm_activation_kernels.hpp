#pragma once

#include <cstdint>

namespace gp {

/// Bits of a bf16 number.
enum class BF16 : std::uint16_t {};

/// What the kernels below do to a value x of channel c:
///   z = scale[c] * x + offset[c];  y = kept ? max(z, leak * z) : 0
/// Dropout's scale 1 / (1 - rate) is part of scale and offset, since that is the same.
struct ActivationCoefficients {
  const float* scale = nullptr;   ///< [channels]
  const float* offset = nullptr;  ///< [channels]
  float leak = 0;                 ///< 0..1
};

/// 0xFFFF for a value that dropout keeps, else 0; null: all are kept.
using Kept = const std::uint16_t*;

// Each works on `pixels` pixels that lie one after the other, `channels` values each. `kept`: a
// byte a value, 0 where it is dropped; null: all are kept. T is float or BF16; sums are float,
// taken in the order of the pixels. For float the results equal those of the plain formulas up to
// rounding.

/// Adds to sum[c] and square[c] those of x - shift[c], which is to be near the mean.
template <class T>
void add_moments(const T* x, std::int64_t pixels, int channels, const float* shift, float* sum,
                 float* square);

/// y as above.
template <class T>
void activate(const T* x, Kept kept, std::int64_t pixels, int channels,
              const ActivationCoefficients& coefficients, T* y);

/// With dz, the gradient of z that dy gives: adds to sum[c] and product[c] those of dz and of
/// dz * (x - mean[c]).
template <class T>
void add_gradient_moments(const T* x, const T* dy, Kept kept, std::int64_t pixels, int channels,
                          const ActivationCoefficients& coefficients, const float* mean, float* sum,
                          float* product);

/// dx = of_gradient[c] * dz + of_input[c] * x + constant[c].
struct GradientCoefficients {
  const float* of_gradient = nullptr;
  const float* of_input = nullptr;
  const float* constant = nullptr;
};
template <class T>
void activate_backward(const T* x, const T* dy, Kept kept, std::int64_t pixels, int channels,
                       const ActivationCoefficients& coefficients,
                       const GradientCoefficients& gradient, T* dx);

}  // namespace gp
