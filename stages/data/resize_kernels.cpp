#include "stages/data/resize_kernels.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "pipeline/image.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gp {
namespace {

constexpr std::int32_t kHalf = 1 << (kResizeWeightBits - 1);

std::uint8_t round_to_byte(std::int32_t fixed) {
  return static_cast<std::uint8_t>(std::clamp(fixed >> kResizeWeightBits, 0, 255));
}

void across_row(const std::uint8_t* in, const ResizeWeights& weights, std::uint8_t* out) {
  for (const ResizeWeights::Span& span : weights.spans) {
    const std::uint8_t* pixel = in + static_cast<std::size_t>(span.first) * kChannels;
    const std::int32_t* weight = weights.values.data() + span.offset;
    std::int32_t r = kHalf;
    std::int32_t g = kHalf;
    std::int32_t b = kHalf;
    for (int k = 0; k < span.count; ++k, pixel += kChannels) {
      r += pixel[0] * weight[k];
      g += pixel[1] * weight[k];
      b += pixel[2] * weight[k];
    }
    *out++ = round_to_byte(r);
    *out++ = round_to_byte(g);
    *out++ = round_to_byte(b);
  }
}

void across_portable(const std::uint8_t* in, std::ptrdiff_t in_stride, int /*in_width*/, int n_rows,
                     const ResizeWeights& weights, std::uint8_t* out, std::ptrdiff_t out_stride) {
  for (int y = 0; y < n_rows; ++y) across_row(in + y * in_stride, weights, out + y * out_stride);
}

/// Bytes [from, length) of down(), a few at a time, so that their sums stay near.
void down_portable(const std::uint8_t* rows, std::ptrdiff_t stride, const std::int32_t* weights,
                   int count, std::size_t length, std::uint8_t* out) {
  constexpr std::size_t kBlock = 64;
  std::int32_t sums[kBlock];
  for (std::size_t from = 0; from < length; from += kBlock) {
    const std::size_t n = std::min(kBlock, length - from);
    std::fill_n(sums, n, kHalf);
    for (int k = 0; k < count; ++k) {
      const std::uint8_t* row = rows + k * stride + from;
      const std::int32_t weight = weights[k];
      for (std::size_t x = 0; x < n; ++x) sums[x] += row[x] * weight;
    }
    for (std::size_t x = 0; x < n; ++x) out[from + x] = round_to_byte(sums[x]);
  }
}

#if defined(__x86_64__)

#define GP_AVX2 __attribute__((target("avx2")))

/// A pixel and the byte behind it.
inline int load_4(const std::uint8_t* bytes) {
  int value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

/// A pixel that has no byte behind it.
inline int load_3(const std::uint8_t* bytes) { return bytes[0] | bytes[1] << 8 | bytes[2] << 16; }

/// `sum` and one weighted pixel of each of two rows.
GP_AVX2 inline __m256i add_pixels(__m256i sum, int first, int second, __m256i weight) {
  const __m128i both = _mm_insert_epi32(_mm_cvtsi32_si128(first), second, 1);
  return _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(both), weight));
}

GP_AVX2 inline void store_4(std::uint8_t* target, int value) {
  std::memcpy(target, &value, sizeof value);
}

/// Four rows side by side: a weight is loaded once, and what is rounded fills a register.
GP_AVX2 void across_four(const std::uint8_t* in, std::ptrdiff_t in_stride, int in_width,
                         const ResizeWeights& weights, std::uint8_t* out,
                         std::ptrdiff_t out_stride) {
  const std::uint8_t* rows[4] = {in, in + in_stride, in + 2 * in_stride, in + 3 * in_stride};
  for (const ResizeWeights::Span& span : weights.spans) {
    const std::int32_t* weight = weights.values.data() + span.offset;
    __m256i sums_01 = _mm256_set1_epi32(kHalf);
    __m256i sums_23 = sums_01;
    std::ptrdiff_t at = static_cast<std::ptrdiff_t>(span.first) * kChannels;
    const bool to_the_edge = span.count > 0 && span.first + span.count == in_width;
    const int n = span.count - (to_the_edge ? 1 : 0);
    for (int k = 0; k < n; ++k, at += kChannels) {
      const __m256i w = _mm256_set1_epi32(weight[k]);
      sums_01 = add_pixels(sums_01, load_4(rows[0] + at), load_4(rows[1] + at), w);
      sums_23 = add_pixels(sums_23, load_4(rows[2] + at), load_4(rows[3] + at), w);
    }
    if (to_the_edge) {
      const __m256i w = _mm256_set1_epi32(weight[n]);
      sums_01 = add_pixels(sums_01, load_3(rows[0] + at), load_3(rows[1] + at), w);
      sums_23 = add_pixels(sums_23, load_3(rows[2] + at), load_3(rows[3] + at), w);
    }
    // Rows 0 and 2 in the left half, 1 and 3 in the right one. What does not fit a byte is
    // saturated, as round_to_byte() does.
    const __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(sums_01, kResizeWeightBits),
                                             _mm256_srai_epi32(sums_23, kResizeWeightBits));
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const __m128i left = _mm256_castsi256_si128(bytes);
    const __m128i right = _mm256_extracti128_si256(bytes, 1);
    // The fourth byte is the next pixel's, which overwrites it.
    store_4(out, _mm_cvtsi128_si32(left));
    store_4(out + out_stride, _mm_cvtsi128_si32(right));
    store_4(out + 2 * out_stride, _mm_extract_epi32(left, 1));
    store_4(out + 3 * out_stride, _mm_extract_epi32(right, 1));
    out += kChannels;
  }
}

void across_by_vectors(const std::uint8_t* in, std::ptrdiff_t in_stride, int in_width, int n_rows,
                       const ResizeWeights& weights, std::uint8_t* out, std::ptrdiff_t out_stride) {
  int y = 0;
  for (; y + 4 <= n_rows; y += 4) {
    across_four(in + y * in_stride, in_stride, in_width, weights, out + y * out_stride, out_stride);
  }
  across_portable(in + y * in_stride, in_stride, in_width, n_rows - y, weights,
                  out + y * out_stride, out_stride);
}

GP_AVX2 inline __m256i load_8(const std::uint8_t* bytes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
}

GP_AVX2 void down_by_vectors(const std::uint8_t* rows, std::ptrdiff_t stride,
                             const std::int32_t* weights, int count, std::size_t length,
                             std::uint8_t* out) {
  constexpr std::size_t kBlock = 16;
  if (length < kBlock) return down_portable(rows, stride, weights, count, length, out);
  for (std::size_t from = 0; from < length; from += kBlock) {
    // The last block overlaps the one before.
    from = std::min(from, length - kBlock);
    __m256i left = _mm256_set1_epi32(kHalf);
    __m256i right = left;
    const std::uint8_t* row = rows + from;
    for (int k = 0; k < count; ++k, row += stride) {
      const __m256i weight = _mm256_set1_epi32(weights[k]);
      left = _mm256_add_epi32(left, _mm256_mullo_epi32(load_8(row), weight));
      right = _mm256_add_epi32(right, _mm256_mullo_epi32(load_8(row + 8), weight));
    }
    // Packing works on the halves of the registers; the permutation undoes it.
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_srai_epi32(left, kResizeWeightBits),
                                                    _mm256_srai_epi32(right, kResizeWeightBits)),
                                 0xD8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + from),
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
}

#endif

}  // namespace

const ResizeKernels& portable_resize_kernels() {
  static constexpr ResizeKernels kKernels{across_portable, down_portable};
  return kKernels;
}

#if defined(__x86_64__)

bool has_resize_instructions() { return __builtin_cpu_supports("avx2") != 0; }

const ResizeKernels& vector_resize_kernels() {
  static constexpr ResizeKernels kKernels{across_by_vectors, down_by_vectors};
  return kKernels;
}

#else

bool has_resize_instructions() { return false; }
const ResizeKernels& vector_resize_kernels() {
  throw std::logic_error("this processor has no vector instructions that we know of");
}

#endif

const ResizeKernels& resize_kernels() {
  static const ResizeKernels& kernels =
      has_resize_instructions() ? vector_resize_kernels() : portable_resize_kernels();
  return kernels;
}

}  // namespace gp
