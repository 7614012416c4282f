#include "stages/data/jpeg_kernels.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "pipeline/image.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gp {
namespace {

// The reduced layouts hold rows in pairs, as the multiply-and-add instruction wants them: rows 1
// and 3 of all columns in turns, then 5 and 7, then 2 and 6, then row 0. Row 4 and column 4 are not
// needed. Columns stand in the order 1, 3, 5, 7, 0, 2, 6, for the same reason in the second pass.
constexpr int kRows13 = 0;
constexpr int kRows57 = 16;
constexpr int kRows26 = 32;
constexpr int kRow0 = 48;
constexpr int kLaneOfColumn[8] = {4, 0, 5, 1, -1, 2, 6, 3};

constexpr int place_when_reduced(int row, int column) {
  const int lane = kLaneOfColumn[column];
  switch (row) {
    case 0:
      return kRow0 + lane;
    case 1:
    case 3:
      return kRows13 + 2 * lane + (row == 3);
    case 5:
    case 7:
      return kRows57 + 2 * lane + (row == 7);
    default:
      return kRows26 + 2 * lane + (row == 6);
  }
}

constexpr bool used_by_2x2(int frequency) { return frequency == 0 || frequency % 2 == 1; }

// Constants of jidctred.c: 13 fractional bits. 2 of them are kept between the
// passes.
constexpr int kConstBits = 13;
constexpr int kPass1Bits = 2;

/// Sample values before the range is limited, around 0: beyond it libjpeg's table wraps.
constexpr int kLargestSample = 511;

bool within(int value, int largest) { return std::abs(value) <= largest; }

int descale(int value, int bits) { return (value + (1 << (bits - 1))) >> bits; }

std::uint8_t to_sample(int value) {
  return static_cast<std::uint8_t>(std::clamp(value + 128, 0, 255));
}

/// Dequantised coefficients of a block, by row and column.
struct Coefficients {
  const JpegBlock& block;
  const JpegSteps& steps;
  bool fine = true;

  int operator()(int row, int column) {
    const auto at = static_cast<std::size_t>(place_when_reduced(row, column));
    fine = fine && within(block.values[at], steps.limits[at]);
    return fine ? block.values[at] * steps.steps[at] : 0;
  }
};

/// One pass of jpeg_idct_2x2(): frequencies 0, 1, 3, 5, 7 to two sums, not yet scaled down.
void reduce_to_2(const int (&in)[8], int (&out)[2]) {
  const int even = in[0] * (1 << (kConstBits + 2));
  const int odd = in[7] * -5906 + in[5] * 6967 + in[3] * -10426 + in[1] * 29692;
  out[0] = even + odd;
  out[1] = even - odd;
}

/// One pass of jpeg_idct_4x4(): all frequencies but 4.
void reduce_to_4(const int (&in)[8], int (&out)[4]) {
  const int base = in[0] * (1 << (kConstBits + 1));
  const int even = in[2] * 15137 + in[6] * -6270;
  const int inner = in[7] * -1730 + in[5] * 11893 + in[3] * -17799 + in[1] * 8697;
  const int outer = in[7] * -4176 + in[5] * -4926 + in[3] * 7373 + in[1] * 20995;
  out[0] = base + even + outer;
  out[3] = base + even - outer;
  out[1] = base - even + inner;
  out[2] = base - even - inner;
}

/// Both passes: the columns of the block, then the rows of what they give.
template <int kSize, class Pass>
bool inverse_dct(const JpegBlock& block, const JpegSteps& steps, Pass pass, std::uint8_t* out,
                 std::ptrdiff_t stride) {
  // How many bits the passes themselves add.
  constexpr int kSizeBits = kSize == 2 ? 2 : 1;
  const auto used = [](int frequency) {
    return kSize == 4 ? frequency != 4 : used_by_2x2(frequency);
  };
  Coefficients coefficient{block, steps};
  int between[kSize][8] = {};
  bool fine = true;
  int in[8] = {};
  int sums[kSize];
  for (int column = 0; column < 8; ++column) {
    if (!used(column)) continue;
    for (int row = 0; row < 8; ++row) {
      if (used(row)) in[row] = coefficient(row, column);
    }
    pass(in, sums);
    for (int y = 0; y < kSize; ++y) {
      between[y][column] = descale(sums[y], kConstBits - kPass1Bits + kSizeBits);
      fine = fine && within(between[y][column], JpegSteps::kLargest);
    }
  }
  if (!fine || !coefficient.fine) return false;
  for (int y = 0; y < kSize; ++y) {
    pass(between[y], sums);
    for (int x = 0; x < kSize; ++x) {
      const int sample = descale(sums[x], kConstBits + kPass1Bits + 3 + kSizeBits);
      fine = fine && within(sample, kLargestSample);
      out[y * stride + x] = to_sample(sample);
    }
  }
  return fine;
}

bool idct_2x2_portable(const JpegBlock& block, const JpegSteps& steps, std::uint8_t* out,
                       std::ptrdiff_t stride) {
  return inverse_dct<2>(block, steps, reduce_to_2, out, stride);
}

bool idct_4x4_portable(const JpegBlock& block, const JpegSteps& steps, std::uint8_t* out,
                       std::ptrdiff_t stride) {
  return inverse_dct<4>(block, steps, reduce_to_4, out, stride);
}

std::uint8_t to_byte(int value) { return static_cast<std::uint8_t>(std::clamp(value, 0, 255)); }

// Of jdcolor.c: 16 fractional bits.
constexpr int kRedOfCr = 91881;
constexpr int kBlueOfCb = 116130;
constexpr int kGreenOfCb = -22554;
constexpr int kGreenOfCr = -46802;

void ycc_to_rgb_portable(const std::uint8_t* y, const std::uint8_t* cb, const std::uint8_t* cr,
                         int width, std::uint8_t* rgb) {
  constexpr int kHalf = 1 << 15;
  for (int x = 0; x < width; ++x, rgb += kChannels) {
    const int blue = cb[x] - 128;
    const int red = cr[x] - 128;
    rgb[0] = to_byte(y[x] + ((kRedOfCr * red + kHalf) >> 16));
    rgb[1] = to_byte(y[x] + ((kGreenOfCb * blue + kGreenOfCr * red + kHalf) >> 16));
    rgb[2] = to_byte(y[x] + ((kBlueOfCb * blue + kHalf) >> 16));
  }
}

#if defined(__x86_64__)

#define GP_AVX2 __attribute__((target("avx2")))

// 16-bit lanes, or pairs of them, named by what stands in the lower half.

GP_AVX2 inline __m256i load(const std::int16_t* values) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
}

GP_AVX2 inline __m256i pairs(int first, int second) {
  return _mm256_set1_epi32(static_cast<int>(static_cast<std::uint32_t>(first) & 0xFFFF) |
                           static_cast<int>(static_cast<std::uint32_t>(second) << 16));
}

/// Adds to `beyond` the lanes whose absolute value is above `limits`.
GP_AVX2 inline __m256i add_beyond(__m256i beyond, __m256i values, __m256i limits) {
  return _mm256_or_si256(beyond, _mm256_cmpgt_epi16(_mm256_abs_epi16(values), limits));
}

/// 16 dequantised coefficients from `at` on.
GP_AVX2 inline __m256i dequantise(const JpegBlock& block, const JpegSteps& steps, int at,
                                  __m256i& beyond) {
  const __m256i values = load(block.values.data() + at);
  beyond = add_beyond(beyond, values, load(steps.limits.data() + at));
  return _mm256_mullo_epi16(values, load(steps.steps.data() + at));
}

template <int kBits>
GP_AVX2 inline __m256i descale(__m256i values) {
  return _mm256_srai_epi32(_mm256_add_epi32(values, _mm256_set1_epi32(1 << (kBits - 1))), kBits);
}

template <int kBits>
GP_AVX2 inline __m128i descale(__m128i values) {
  return _mm_srai_epi32(_mm_add_epi32(values, _mm_set1_epi32(1 << (kBits - 1))), kBits);
}

GP_AVX2 bool idct_2x2_by_vectors(const JpegBlock& block, const JpegSteps& steps, std::uint8_t* out,
                                 std::ptrdiff_t stride) {
  __m256i beyond = _mm256_setzero_si256();
  const __m256i rows_13 = dequantise(block, steps, kRows13, beyond);
  const __m256i rows_57 = dequantise(block, steps, kRows57, beyond);
  const __m256i row_0 = dequantise(block, steps, kRow0, beyond);
  const __m256i even =
      _mm256_slli_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(row_0)), kConstBits + 2);
  const __m256i odd = _mm256_add_epi32(_mm256_madd_epi16(rows_13, pairs(29692, -10426)),
                                       _mm256_madd_epi16(rows_57, pairs(6967, -5906)));
  constexpr int kShift1 = kConstBits - kPass1Bits + 2;
  // Left half: columns 1, 3, 5, 7 of row 0, then of row 1; right half: column 0 of each, zeros.
  const __m256i between = _mm256_packs_epi32(descale<kShift1>(_mm256_add_epi32(even, odd)),
                                             descale<kShift1>(_mm256_sub_epi32(even, odd)));
  beyond = add_beyond(beyond, between, _mm256_set1_epi16(JpegSteps::kLargest));
  const __m256i products = _mm256_madd_epi16(
      between, _mm256_setr_epi16(29692, -10426, 6967, -5906, 29692, -10426, 6967, -5906,  //
                                 16384, 0, 0, 0, 16384, 0, 0, 0));
  const __m256i sums = _mm256_hadd_epi32(products, products);
  const __m128i odd_2 = _mm256_castsi256_si128(sums);
  const __m128i even_2 = _mm_slli_epi32(_mm256_extracti128_si256(sums, 1), 1);
  constexpr int kShift2 = kConstBits + kPass1Bits + 3 + 2;
  const __m128i pixels = descale<kShift2>(
      _mm_unpacklo_epi32(_mm_add_epi32(even_2, odd_2), _mm_sub_epi32(even_2, odd_2)));
  const __m128i words = _mm_packs_epi32(pixels, pixels);
  beyond = add_beyond(beyond, _mm256_castsi128_si256(words), _mm256_set1_epi16(kLargestSample));
  const int bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words)) ^ static_cast<int>(0x80808080);
  std::memcpy(out, &bytes, 2);
  const int second = static_cast<int>(static_cast<unsigned>(bytes) >> 16);
  std::memcpy(out + stride, &second, 2);
  return _mm256_testz_si256(beyond, beyond) != 0;
}

GP_AVX2 bool idct_4x4_by_vectors(const JpegBlock& block, const JpegSteps& steps, std::uint8_t* out,
                                 std::ptrdiff_t stride) {
  __m256i beyond = _mm256_setzero_si256();
  const __m256i rows_13 = dequantise(block, steps, kRows13, beyond);
  const __m256i rows_57 = dequantise(block, steps, kRows57, beyond);
  const __m256i rows_26 = dequantise(block, steps, kRows26, beyond);
  const __m256i row_0 = dequantise(block, steps, kRow0, beyond);
  const __m256i base =
      _mm256_slli_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(row_0)), kConstBits + 1);
  const __m256i even = _mm256_madd_epi16(rows_26, pairs(15137, -6270));
  const __m256i inner = _mm256_add_epi32(_mm256_madd_epi16(rows_13, pairs(8697, -17799)),
                                         _mm256_madd_epi16(rows_57, pairs(11893, -1730)));
  const __m256i outer = _mm256_add_epi32(_mm256_madd_epi16(rows_13, pairs(20995, 7373)),
                                         _mm256_madd_epi16(rows_57, pairs(-4926, -4176)));
  const __m256i sum = _mm256_add_epi32(base, even);
  const __m256i difference = _mm256_sub_epi32(base, even);
  constexpr int kShift1 = kConstBits - kPass1Bits + 1;
  // Left halves: columns 1, 3, 5, 7 of one row, then of the next; right halves: 0, 2, 6, nothing.
  const __m256i rows_a = _mm256_packs_epi32(descale<kShift1>(_mm256_add_epi32(sum, outer)),
                                            descale<kShift1>(_mm256_add_epi32(difference, inner)));
  const __m256i rows_b = _mm256_packs_epi32(descale<kShift1>(_mm256_sub_epi32(difference, inner)),
                                            descale<kShift1>(_mm256_sub_epi32(sum, outer)));
  const __m256i largest = _mm256_set1_epi16(JpegSteps::kLargest);
  beyond = add_beyond(beyond, rows_a, largest);
  beyond = add_beyond(beyond, rows_b, largest);
  const __m256i outer_weights =
      _mm256_setr_epi16(20995, 7373, -4926, -4176, 20995, 7373, -4926, -4176,  //
                        16384, 15137, -6270, 0, 16384, 15137, -6270, 0);
  const __m256i inner_weights =
      _mm256_setr_epi16(8697, -17799, 11893, -1730, 8697, -17799, 11893, -1730,  //
                        16384, -15137, 6270, 0, 16384, -15137, 6270, 0);
  // One lane for each of the four rows; left halves odd frequencies, right halves even ones.
  const __m256i outer_2 = _mm256_hadd_epi32(_mm256_madd_epi16(rows_a, outer_weights),
                                            _mm256_madd_epi16(rows_b, outer_weights));
  const __m256i inner_2 = _mm256_hadd_epi32(_mm256_madd_epi16(rows_a, inner_weights),
                                            _mm256_madd_epi16(rows_b, inner_weights));
  const __m128i outer_odd = _mm256_castsi256_si128(outer_2);
  const __m128i outer_even = _mm256_extracti128_si256(outer_2, 1);
  const __m128i inner_odd = _mm256_castsi256_si128(inner_2);
  const __m128i inner_even = _mm256_extracti128_si256(inner_2, 1);
  constexpr int kShift2 = kConstBits + kPass1Bits + 3 + 1;
  const __m128i columns_01 =
      _mm_packs_epi32(descale<kShift2>(_mm_add_epi32(outer_even, outer_odd)),
                      descale<kShift2>(_mm_add_epi32(inner_even, inner_odd)));
  const __m128i columns_23 =
      _mm_packs_epi32(descale<kShift2>(_mm_sub_epi32(inner_even, inner_odd)),
                      descale<kShift2>(_mm_sub_epi32(outer_even, outer_odd)));
  beyond = add_beyond(beyond, _mm256_set_m128i(columns_23, columns_01),
                      _mm256_set1_epi16(kLargestSample));
  const __m128i columns =
      _mm_xor_si128(_mm_packs_epi16(columns_01, columns_23), _mm_set1_epi8(-128));
  const __m128i rows = _mm_shuffle_epi8(
      columns, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const int row[4] = {_mm_cvtsi128_si32(rows), _mm_extract_epi32(rows, 1),
                      _mm_extract_epi32(rows, 2), _mm_extract_epi32(rows, 3)};
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * stride, &row[i], 4);
  return _mm256_testz_si256(beyond, beyond) != 0;
}

/// Weighted sums of two values, rounded, without the weights' 16 fractional bits.
GP_AVX2 inline __m256i weigh(__m256i first, __m256i second, __m256i weights) {
  const __m256i half = _mm256_set1_epi32(1 << 15);
  const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights);
  const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights);
  return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), 16),
                            _mm256_srai_epi32(_mm256_add_epi32(high, half), 16));
}

GP_AVX2 inline __m256i load_16(const std::uint8_t* bytes) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

/// 16 words to bytes, what does not fit cut off.
GP_AVX2 inline __m128i to_bytes(__m256i words) {
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

GP_AVX2 void ycc_to_rgb_by_vectors(const std::uint8_t* y, const std::uint8_t* cb,
                                   const std::uint8_t* cr, int width, std::uint8_t* rgb) {
  constexpr int kBlock = 16;
  if (width < kBlock) return ycc_to_rgb_portable(y, cb, cr, width, rgb);
  const __m256i middle = _mm256_set1_epi16(128);
  for (int from = 0; from < width; from += kBlock) {
    // The last block overlaps the one before.
    from = std::min(from, width - kBlock);
    const __m256i light = load_16(y + from);
    const __m256i blue = _mm256_sub_epi16(load_16(cb + from), middle);
    const __m256i red = _mm256_sub_epi16(load_16(cr + from), middle);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i r = _mm256_add_epi16(_mm256_add_epi16(light, red),
                                       weigh(red, zero, pairs(kRedOfCr - 65536, 0)));
    const __m256i g = _mm256_add_epi16(_mm256_sub_epi16(light, red),
                                       weigh(blue, red, pairs(kGreenOfCb, kGreenOfCr + 65536)));
    const __m256i b = _mm256_add_epi16(_mm256_add_epi16(light, _mm256_slli_epi16(blue, 1)),
                                       weigh(blue, zero, pairs(kBlueOfCb - 2 * 65536, 0)));
    const __m128i rs = to_bytes(r);
    const __m128i gs = to_bytes(g);
    const __m128i bs = to_bytes(b);
    constexpr char z = -1;
    const __m128i first = _mm_or_si128(
        _mm_or_si128(
            _mm_shuffle_epi8(rs, _mm_setr_epi8(0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z, z, 5)),
            _mm_shuffle_epi8(gs, _mm_setr_epi8(z, 0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z, z))),
        _mm_shuffle_epi8(bs, _mm_setr_epi8(z, z, 0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z)));
    const __m128i second = _mm_or_si128(
        _mm_or_si128(
            _mm_shuffle_epi8(rs, _mm_setr_epi8(z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z, 10, z)),
            _mm_shuffle_epi8(gs, _mm_setr_epi8(5, z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z, 10))),
        _mm_shuffle_epi8(bs, _mm_setr_epi8(z, 5, z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z)));
    const __m128i third = _mm_or_si128(
        _mm_or_si128(_mm_shuffle_epi8(
                         rs, _mm_setr_epi8(z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15, z, z)),
                     _mm_shuffle_epi8(
                         gs, _mm_setr_epi8(z, z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15, z))),
        _mm_shuffle_epi8(bs, _mm_setr_epi8(10, z, z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15)));
    auto* out = reinterpret_cast<__m128i*>(rgb + static_cast<std::ptrdiff_t>(from) * kChannels);
    _mm_storeu_si128(out, first);
    _mm_storeu_si128(out + 1, second);
    _mm_storeu_si128(out + 2, third);
  }
}

#endif

}  // namespace

int JpegBlock::place(int size, int row, int column) {
  const bool used = size == 4 ? row != 4 && column != 4 : used_by_2x2(row) && used_by_2x2(column);
  return used ? place_when_reduced(row, column) : kUnused;
}

const JpegKernels& portable_jpeg_kernels() {
  static constexpr JpegKernels kKernels{idct_2x2_portable, idct_4x4_portable, ycc_to_rgb_portable};
  return kKernels;
}

#if defined(__x86_64__)

bool has_jpeg_instructions() { return __builtin_cpu_supports("avx2") != 0; }

const JpegKernels& vector_jpeg_kernels() {
  static constexpr JpegKernels kKernels{idct_2x2_by_vectors, idct_4x4_by_vectors,
                                        ycc_to_rgb_by_vectors};
  return kKernels;
}

#else

bool has_jpeg_instructions() { return false; }
const JpegKernels& vector_jpeg_kernels() {
  throw std::logic_error("this processor has no vector instructions that we know of");
}

#endif

const JpegKernels& jpeg_kernels() {
  static const JpegKernels& kernels =
      has_jpeg_instructions() ? vector_jpeg_kernels() : portable_jpeg_kernels();
  return kernels;
}

}  // namespace gp
