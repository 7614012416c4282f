#include "stages/torch/norm_activation_kernels.hpp"

#include <bit>
#include <cstring>

#include "stages/torch/target_clones.hpp"

#define GP_INLINE inline __attribute__((always_inline))

namespace gp {
namespace {

// Vectors of 16 floats, which the compiler makes of whatever registers the instruction set has.
constexpr int kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Words = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using SignedWords = std::int32_t __attribute__((vector_size(4 * kLanes)));
using Halves = std::uint16_t __attribute__((vector_size(2 * kLanes)));
using Signed = std::int16_t __attribute__((vector_size(2 * kLanes)));

// Results go through references: vectors as return values would depend on the instruction set.
GP_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof to); }
GP_INLINE void load(const BF16* from, Floats& to) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof to);
}
GP_INLINE void store(const Floats& from, float* to) { std::memcpy(to, &from, sizeof from); }
/// To the nearest, ties to even. A NaN with all lower bits set would become a zero; none that comes
/// of arithmetic has them.
GP_INLINE void store(const Floats& from, BF16* to) {
  Words words;
  std::memcpy(&words, &from, sizeof words);
  words = (words + 0x7FFF + ((words >> 16) & 1)) >> 16;
  const Halves halves = __builtin_convertvector(words, Halves);
  std::memcpy(to, &halves, sizeof halves);
}
/// 0 where dropped.
GP_INLINE void drop(Kept kept, Floats& value) {
  Signed halves;
  std::memcpy(&halves, kept, sizeof halves);
  Words words;
  std::memcpy(&words, &value, sizeof words);
  words &= (Words) __builtin_convertvector(halves, SignedWords);
  std::memcpy(&value, &words, sizeof words);
}

GP_INLINE float to_float(float value) { return value; }
GP_INLINE float to_float(BF16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}
GP_INLINE void from_float(float value, float& to) { to = value; }
GP_INLINE void from_float(float value, BF16& to) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  to = static_cast<BF16>((word + 0x7FFF + (word >> 16 & 1)) >> 16);
}
GP_INLINE void drop(Kept kept, float& value) {
  if (*kept == 0) value = 0;
}

// The same expressions serve vectors and single values.
template <class Value>
GP_INLINE void activate_value(const Value& scale, const Value& offset, float leak, Value& value) {
  const Value z = value * scale + offset;
  const Value leaked = z * leak;
  value = z > leaked ? z : leaked;
}
/// The gradient of z of that of y, but for what dropout dropped.
template <class Value>
GP_INLINE void to_dz(const Value& x, const Value& scale, const Value& offset, float leak,
                     Value& gradient) {
  const Value z = x * scale + offset;
  gradient = z > 0 ? gradient : gradient * leak;
}

/// Calls `vector(c)` for every whole vector of channels and `single(c)` for those that are left.
template <class Vector, class Single>
GP_INLINE void for_channels(int channels, Vector vector, Single single) {
  int c = 0;
  for (; c + kLanes <= channels; c += kLanes) vector(c);
  for (; c < channels; ++c) single(c);
}

template <class T>
GP_INLINE void add_moments_of(const T* x, std::int64_t pixels, int channels, const float* shift,
                              float* sum, float* square) {
  for_channels(
      channels,
      [&](int c) __attribute__((always_inline)) {
        Floats s, q, around;
        load(sum + c, s);
        load(square + c, q);
        load(shift + c, around);
        const T* at = x + c;
        for (std::int64_t i = 0; i < pixels; ++i, at += channels) {
          Floats value;
          load(at, value);
          value -= around;
          s += value;
          q += value * value;
        }
        store(s, sum + c);
        store(q, square + c);
      },
      [&](int c) __attribute__((always_inline)) {
        for (std::int64_t i = 0; i < pixels; ++i) {
          const float value = to_float(x[i * channels + c]) - shift[c];
          sum[c] += value;
          square[c] += value * value;
        }
      });
}

template <class T, bool kDropout>
GP_INLINE void activate_of(const T* x, Kept kept, std::int64_t pixels, int channels,
                           const ActivationCoefficients& coefficients, T* y) {
  const float leak = coefficients.leak;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const std::int64_t pixel = i * channels;
    for_channels(
        channels,
        [&](int c) __attribute__((always_inline)) {
          Floats scale, offset, value;
          load(coefficients.scale + c, scale);
          load(coefficients.offset + c, offset);
          load(x + pixel + c, value);
          activate_value(scale, offset, leak, value);
          if constexpr (kDropout) drop(kept + pixel + c, value);
          store(value, y + pixel + c);
        },
        [&](int c) __attribute__((always_inline)) {
          float value = to_float(x[pixel + c]);
          activate_value(coefficients.scale[c], coefficients.offset[c], leak, value);
          if constexpr (kDropout) drop(kept + pixel + c, value);
          from_float(value, y[pixel + c]);
        });
  }
}

template <class T, bool kDropout>
GP_INLINE void add_gradient_moments_of(const T* x, const T* dy, Kept kept, std::int64_t pixels,
                                       int channels, const ActivationCoefficients& coefficients,
                                       const float* mean, float* sum, float* product) {
  const float leak = coefficients.leak;
  for_channels(
      channels,
      [&](int c) __attribute__((always_inline)) {
        Floats s, p, scale, offset, around;
        load(sum + c, s);
        load(product + c, p);
        load(coefficients.scale + c, scale);
        load(coefficients.offset + c, offset);
        load(mean + c, around);
        for (std::int64_t i = 0; i < pixels; ++i) {
          Floats value, gradient;
          load(x + i * channels + c, value);
          load(dy + i * channels + c, gradient);
          to_dz(value, scale, offset, leak, gradient);
          if constexpr (kDropout) drop(kept + i * channels + c, gradient);
          s += gradient;
          p += gradient * (value - around);
        }
        store(s, sum + c);
        store(p, product + c);
      },
      [&](int c) __attribute__((always_inline)) {
        for (std::int64_t i = 0; i < pixels; ++i) {
          const float value = to_float(x[i * channels + c]);
          float gradient = to_float(dy[i * channels + c]);
          to_dz(value, coefficients.scale[c], coefficients.offset[c], leak, gradient);
          if constexpr (kDropout) drop(kept + i * channels + c, gradient);
          sum[c] += gradient;
          product[c] += gradient * (value - mean[c]);
        }
      });
}

template <class T, bool kDropout>
GP_INLINE void activate_backward_of(const T* x, const T* dy, Kept kept, std::int64_t pixels,
                                    int channels, const ActivationCoefficients& coefficients,
                                    const GradientCoefficients& gradients, T* dx) {
  const float leak = coefficients.leak;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const std::int64_t pixel = i * channels;
    for_channels(
        channels,
        [&](int c) __attribute__((always_inline)) {
          Floats scale, offset, value, gradient, of_gradient, of_input, constant;
          load(coefficients.scale + c, scale);
          load(coefficients.offset + c, offset);
          load(gradients.of_gradient + c, of_gradient);
          load(gradients.of_input + c, of_input);
          load(gradients.constant + c, constant);
          load(x + pixel + c, value);
          load(dy + pixel + c, gradient);
          to_dz(value, scale, offset, leak, gradient);
          if constexpr (kDropout) drop(kept + pixel + c, gradient);
          store(of_gradient * gradient + of_input * value + constant, dx + pixel + c);
        },
        [&](int c) __attribute__((always_inline)) {
          const float value = to_float(x[pixel + c]);
          float gradient = to_float(dy[pixel + c]);
          to_dz(value, coefficients.scale[c], coefficients.offset[c], leak, gradient);
          if constexpr (kDropout) drop(kept + pixel + c, gradient);
          from_float(gradients.of_gradient[c] * gradient + gradients.of_input[c] * value +
                         gradients.constant[c],
                     dx[pixel + c]);
        });
  }
}

}  // namespace

// target_clones takes no templates; each instance is written out.
#define GP_KERNELS(T)                                                                            \
  template <>                                                                                    \
  GP_CLONES void add_moments(const T* x, std::int64_t pixels, int channels, const float* shift,  \
                             float* sum, float* square) {                                        \
    add_moments_of(x, pixels, channels, shift, sum, square);                                     \
  }                                                                                              \
  template <>                                                                                    \
  GP_CLONES void activate(const T* x, Kept kept, std::int64_t pixels, int channels,              \
                          const ActivationCoefficients& coefficients, T* y) {                    \
    if (kept != nullptr) {                                                                       \
      activate_of<T, true>(x, kept, pixels, channels, coefficients, y);                          \
    } else {                                                                                     \
      activate_of<T, false>(x, kept, pixels, channels, coefficients, y);                         \
    }                                                                                            \
  }                                                                                              \
  template <>                                                                                    \
  GP_CLONES void add_gradient_moments(const T* x, const T* dy, Kept kept, std::int64_t pixels,   \
                                      int channels, const ActivationCoefficients& coefficients,  \
                                      const float* mean, float* sum, float* product) {           \
    if (kept != nullptr) {                                                                       \
      add_gradient_moments_of<T, true>(x, dy, kept, pixels, channels, coefficients, mean, sum,   \
                                       product);                                                 \
    } else {                                                                                     \
      add_gradient_moments_of<T, false>(x, dy, kept, pixels, channels, coefficients, mean, sum,  \
                                        product);                                                \
    }                                                                                            \
  }                                                                                              \
  template <>                                                                                    \
  GP_CLONES void activate_backward(const T* x, const T* dy, Kept kept, std::int64_t pixels,      \
                                   int channels, const ActivationCoefficients& coefficients,     \
                                   const GradientCoefficients& gradient, T* dx) {                \
    if (kept != nullptr) {                                                                       \
      activate_backward_of<T, true>(x, dy, kept, pixels, channels, coefficients, gradient, dx);  \
    } else {                                                                                     \
      activate_backward_of<T, false>(x, dy, kept, pixels, channels, coefficients, gradient, dx); \
    }                                                                                            \
  }

GP_KERNELS(float)
GP_KERNELS(BF16)

}  // namespace gp
