#include "pipeline/warp.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// All arithmetic after the conversion of the matrix is on integers, so that every machine, with
// vector instructions or without, gives the same bytes:
//
// - The matrix is rounded to 32 fractional bits. Where an output pixel looks is exact in them: no
//   error builds up along a row. The rounding moves the far corner of an image of 8192x8192 by at
//   most 2^-33 * 16385 < 2e-6 pixels.
// - Outside of the image the coordinate itself is reflected. That is reflect-101: bilinear
//   interpolation of the reflected image is the reflection of the interpolated image.
// - The coordinate is rounded to 1/2^14 pixel. The four weights are integers that sum to 2^14, and
//   so does the sum of the pixels: one rounding, to the byte.
//
// Before that last rounding the error is at most 2 * 255 / 2^15 for the coordinates and 510 / 2^15
// for the weights: 0.032 of a level.

namespace gp {
namespace {

constexpr int kPlaceBits = 32;
constexpr int kWeightBits = 14;
constexpr std::int64_t kOne = std::int64_t{1} << kPlaceBits;
constexpr std::int32_t kWeightOne = 1 << kWeightBits;
/// Half of the smallest step of a weight: added before the bits below are cut off.
constexpr std::int64_t kHalfStep = std::int64_t{1} << (kPlaceBits - kWeightBits - 1);

/// Positions in the input in units of 2^-32 pixel: x, y that output pixel (0, 0) looks at, and how
/// they change per column and per row.
struct Path {
  std::int64_t x, y;
  std::int64_t x_per_column, y_per_column;
  std::int64_t x_per_row, y_per_row;

  std::int64_t x_at(int column, int row) const {
    return x + column * x_per_column + row * x_per_row;
  }
  std::int64_t y_at(int column, int row) const {
    return y + column * y_per_column + row * y_per_row;
  }
};

/// `value` in units of 2^-32, saturated.
std::int64_t to_fixed(double value, std::int64_t limit) {
  const double scaled = value * static_cast<double>(kOne);
  if (!(scaled > -static_cast<double>(limit))) return -limit;
  if (!(scaled < static_cast<double>(limit))) return limit;
  return std::llround(scaled);
}

/// A wild matrix is saturated so that no sum of three terms overflows: translations at 2^29 pixels,
/// steps at what reaches that far from one edge of the output to the other.
Path make_path(const Affine& map, ImageShape out) {
  constexpr std::int64_t kFar = std::int64_t{1} << 61;
  const std::int64_t step_x = kFar / std::max(out.width, 1);
  const std::int64_t step_y = kFar / std::max(out.height, 1);
  return {to_fixed(map.m[2], kFar),   to_fixed(map.m[5], kFar),   to_fixed(map.m[0], step_x),
          to_fixed(map.m[3], step_x), to_fixed(map.m[1], step_y), to_fixed(map.m[4], step_y)};
}

/// The last place within a row or a column of `size` pixels.
std::int64_t last_place(int size) { return static_cast<std::int64_t>(size - 1) << kPlaceBits; }

/// The place within [0, last] that reflect-101 shows at `place`.
std::int64_t reflect101(std::int64_t place, std::int64_t last) {
  place = std::abs(place);
  if (place <= last) return place;
  if (last == 0) return 0;
  const std::uint64_t period = 2 * static_cast<std::uint64_t>(last);
  const std::uint64_t rest = static_cast<std::uint64_t>(place) % period;
  return static_cast<std::int64_t>(std::min(rest, period - rest));
}

/// Blends the four pixels around one place in the input.
inline void sample(ConstImageView in, std::int64_t x, std::int64_t y, std::uint8_t* target) {
  x = reflect101(x, last_place(in.width)) + kHalfStep;
  y = reflect101(y, last_place(in.height)) + kHalfStep;
  // The last pixel is the right one of the last pair, with all the weight.
  const int x0 = std::min(static_cast<int>(x >> kPlaceBits), std::max(in.width - 2, 0));
  const int y0 = std::min(static_cast<int>(y >> kPlaceBits), std::max(in.height - 2, 0));
  const auto right = static_cast<std::int32_t>((x - x0 * kOne) >> (kPlaceBits - kWeightBits));
  const auto lower = static_cast<std::int32_t>((y - y0 * kOne) >> (kPlaceBits - kWeightBits));
  const std::int32_t lower_right = (right * lower + kWeightOne / 2) >> kWeightBits;
  const std::int32_t upper_right = right - lower_right;
  const std::int32_t lower_left = lower - lower_right;
  const std::int32_t upper_left = kWeightOne - right - lower_left;
  const std::uint8_t* upper_row = in.row(y0) + static_cast<std::ptrdiff_t>(x0) * kChannels;
  const std::uint8_t* lower_row = in.height > 1 ? upper_row + in.stride : upper_row;
  const int next = in.width > 1 ? kChannels : 0;
  for (int c = 0; c < kChannels; ++c) {
    target[c] = static_cast<std::uint8_t>(
        (upper_row[c] * upper_left + upper_row[c + next] * upper_right + lower_row[c] * lower_left +
         lower_row[c + next] * lower_right + kWeightOne / 2) >>
        kWeightBits);
  }
}

/// Output pixels [from, to) of one row, which begins at `target`.
void warp_span(ConstImageView in, const Path& path, int from, int to, int row,
               std::uint8_t* target) {
  for (int column = from; column < to; ++column) {
    sample(in, path.x_at(column, row), path.y_at(column, row), target + column * kChannels);
  }
}

/// Whether every place of the path is the centre of a pixel and the next one in its row is its
/// neighbour: translations and mirrors by whole pixels. Their rows are copied.
bool copies_pixels(const Path& path) {
  return std::abs(path.x_per_column) == kOne && path.y_per_column == 0 &&
         (path.x | path.y | path.x_per_row | path.y_per_row) % kOne == 0;
}

/// Copies `count` pixels: `from` and those before it.
using CopyReversed = void (*)(const std::uint8_t* from, int count, std::uint8_t* target);

void copy_reversed(const std::uint8_t* from, int count, std::uint8_t* target) {
  for (; count > 0; --count, from -= kChannels, target += kChannels) {
    std::memcpy(target, from, kChannels);
  }
}

/// One row of a path that copies pixels.
void copy_row(ConstImageView in, const Path& path, int row, int width, CopyReversed reversed,
              std::uint8_t* target) {
  const std::int64_t x = path.x_at(0, row) / kOne;
  const std::int64_t y = reflect101(path.y_at(0, row), last_place(in.height)) / kOne;
  const bool forwards = path.x_per_column > 0;
  // The columns that look into the image.
  const std::int64_t first = forwards ? -x : x - (in.width - 1);
  const auto from = static_cast<int>(std::clamp<std::int64_t>(first, 0, width));
  const auto to = static_cast<int>(std::clamp<std::int64_t>(first + in.width, from, width));
  warp_span(in, path, 0, from, row, target);
  warp_span(in, path, to, width, row, target);
  if (from == to) return;
  const std::uint8_t* source =
      in.row(static_cast<int>(y)) + (forwards ? x + from : x - from) * kChannels;
  if (forwards) {
    std::memcpy(target + from * kChannels, source, static_cast<std::size_t>(to - from) * kChannels);
  } else {
    reversed(source, to - from, target + from * kChannels);
  }
}

#if defined(__x86_64__)

#define GP_AVX2 __attribute__((target("avx2")))

// Eight output pixels of a row at a time. The registers of 256 bits are two halves that shuffles do
// not cross: the left one works on pixels 0 to 3, the right one on 4 to 7.

constexpr int kBlock = 8;

/// Eight places of 64 bits: pixels 0, 1, 4, 5 in `a` and 2, 3, 6, 7 in `b`, from which one shuffle
/// takes the upper or the lower 32 bits of each in order.
struct Places {
  __m256i a, b;
};

GP_AVX2 inline Places steps_of(std::int64_t step) {
  return {_mm256_set_epi64x(5 * step, 4 * step, step, 0),
          _mm256_set_epi64x(7 * step, 6 * step, 3 * step, 2 * step)};
}

GP_AVX2 inline Places operator+(Places places, std::int64_t offset) {
  const __m256i all = _mm256_set1_epi64x(offset);
  return {_mm256_add_epi64(places.a, all), _mm256_add_epi64(places.b, all)};
}

/// reflect101() of places within [-last, 2 * last].
GP_AVX2 inline __m256i reflect_once(__m256i place, __m256i last) {
  const __m256i negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), place);
  place = _mm256_sub_epi64(_mm256_xor_si256(place, negative), negative);
  const __m256i beyond = _mm256_cmpgt_epi64(place, last);
  return _mm256_blendv_epi8(place, _mm256_sub_epi64(_mm256_add_epi64(last, last), place), beyond);
}

/// The first pixel of the pair at each place, and the weight of the second one.
struct Pairs {
  __m256i first, weight;
};

template <bool inside>
GP_AVX2 inline Pairs pairs_at(Places places, int size) {
  if constexpr (!inside) {
    const __m256i last = _mm256_set1_epi64x(last_place(size));
    places = {reflect_once(places.a, last), reflect_once(places.b, last)};
  }
  places = places + kHalfStep;
  const __m256 a = _mm256_castsi256_ps(places.a);
  const __m256 b = _mm256_castsi256_ps(places.b);
  const __m256i whole = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
  const __m256i fraction = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
  Pairs pairs{whole, _mm256_srli_epi32(fraction, kPlaceBits - kWeightBits)};
  if constexpr (!inside) {
    pairs.first = _mm256_min_epi32(whole, _mm256_set1_epi32(size - 2));
    pairs.weight = _mm256_add_epi32(
        pairs.weight, _mm256_slli_epi32(_mm256_sub_epi32(whole, pairs.first), kWeightBits));
  }
  return pairs;
}

GP_AVX2 inline __m256i load_into_all(const std::uint8_t* bytes) {
  long long eight;
  std::memcpy(&eight, bytes, sizeof eight);
  return _mm256_set1_epi64x(eight);
}

/// What all eight pixels need to be blended.
struct Blend {
  const std::uint8_t* upper_rows;
  const std::uint8_t* lower_rows;
  alignas(32) std::uint32_t offsets[kBlock];  ///< of the eight bytes that hold each pair
  __m256i shift;         ///< where in these the pair begins, in each of the four bytes
  __m256i upper, lower;  ///< 16-bit weights of the left and the right pixel of the pair
};

/// Pixels i and i + 4: R, G, B and 0, 32 bits each, in units of 1/2^7.
template <int i, bool inside>
GP_AVX2 inline __m256i blend_two(const Blend& blend) {
  // From R G B R G B to 16-bit R R, G G, B B, 0 0. A negative number gives 0.
  constexpr char kZero = -128;
  __m256i upper = _mm256_broadcastsi128_si256(_mm_setr_epi8(  //
      0, kZero, 3, kZero, 1, kZero, 4, kZero, 2, kZero, 5, kZero, kZero, kZero, kZero, kZero));
  __m256i lower = _mm256_broadcastsi128_si256(_mm_setr_epi8(  //
      8, kZero, 11, kZero, 9, kZero, 12, kZero, 10, kZero, 13, kZero, kZero, kZero, kZero, kZero));
  constexpr int kOwn = i * 0x55;  // pixels i and i + 4 of eight, in all four places
  if constexpr (!inside) {
    const __m256i shift = _mm256_shuffle_epi32(blend.shift, kOwn);
    upper = _mm256_add_epi8(upper, shift);
    lower = _mm256_add_epi8(lower, shift);
  }
  const std::uint32_t left = blend.offsets[i];
  const std::uint32_t right = blend.offsets[i + 4];
  // Upper row, lower row of pixel i; the same of pixel i + 4.
  const __m256i bytes =
      _mm256_blend_epi32(_mm256_blend_epi32(load_into_all(blend.upper_rows + left),
                                            load_into_all(blend.lower_rows + left), 0xCC),
                         _mm256_blend_epi32(load_into_all(blend.upper_rows + right),
                                            load_into_all(blend.lower_rows + right), 0xCC),
                         0xF0);
  const __m256i sum = _mm256_add_epi32(
      _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, upper), _mm256_shuffle_epi32(blend.upper, kOwn)),
      _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, lower),
                        _mm256_shuffle_epi32(blend.lower, kOwn)));
  return _mm256_srai_epi32(sum, kWeightBits / 2);
}

/// The other half of the shift, of 16 bits, to the nearest: (v + 64) >> 7.
GP_AVX2 inline __m256i to_nearest(__m256i values) {
  return _mm256_mulhrs_epi16(values, _mm256_set1_epi16(1 << (15 - kWeightBits / 2)));
}

/// Eight pixels. `inside`: every place has a pixel below and two to its right, so that neither
/// coordinates nor loads of eight bytes leave the image.
template <bool inside>
GP_AVX2 inline void warp_block(ConstImageView in, Places x_places, Places y_places,
                               std::uint8_t* target) {
  const Pairs x = pairs_at<inside>(x_places, in.width);
  const Pairs y = pairs_at<inside>(y_places, in.height);

  Blend blend;
  __m256i column = _mm256_add_epi32(x.first, _mm256_add_epi32(x.first, x.first));
  blend.shift = _mm256_setzero_si256();
  if constexpr (!inside) {
    const __m256i first_byte = column;
    column = _mm256_min_epi32(first_byte, _mm256_set1_epi32(in.width * kChannels - 8));
    blend.shift =
        _mm256_mullo_epi32(_mm256_sub_epi32(first_byte, column), _mm256_set1_epi32(0x01010101));
  }
  // Offsets from the lowest address, so that they are not negative where the stride is.
  const std::ptrdiff_t lowest = std::min<std::ptrdiff_t>((in.height - 1) * in.stride, 0);
  blend.upper_rows = in.data + lowest;
  blend.lower_rows = blend.upper_rows + in.stride;
  const __m256i row = _mm256_sub_epi32(
      _mm256_mullo_epi32(y.first, _mm256_set1_epi32(static_cast<std::int32_t>(in.stride))),
      _mm256_set1_epi32(static_cast<std::int32_t>(lowest)));
  _mm256_store_si256(reinterpret_cast<__m256i*>(blend.offsets), _mm256_add_epi32(row, column));

  const __m256i product = _mm256_madd_epi16(x.weight, y.weight);  // the upper 16 bits are zero
  const __m256i lower_right =
      _mm256_srli_epi32(_mm256_add_epi32(product, _mm256_set1_epi32(kWeightOne / 2)), kWeightBits);
  const __m256i upper_right = _mm256_sub_epi32(x.weight, lower_right);
  const __m256i lower_left = _mm256_sub_epi32(y.weight, lower_right);
  const __m256i upper_left =
      _mm256_sub_epi32(_mm256_sub_epi32(_mm256_set1_epi32(kWeightOne), x.weight), lower_left);
  blend.upper = _mm256_or_si256(upper_left, _mm256_slli_epi32(upper_right, 16));
  blend.lower = _mm256_or_si256(lower_left, _mm256_slli_epi32(lower_right, 16));

  const __m256i rgb0 = _mm256_packus_epi16(
      to_nearest(_mm256_packs_epi32(blend_two<0, inside>(blend), blend_two<1, inside>(blend))),
      to_nearest(_mm256_packs_epi32(blend_two<2, inside>(blend), blend_two<3, inside>(blend))));
  const __m256i rgb =
      _mm256_shuffle_epi8(rgb0, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                    0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)));
  // Twelve bytes each. The first store's surplus is overwritten by the second, which has none.
  const __m128i right = _mm256_extracti128_si256(rgb, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_castsi256_si128(rgb));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(target + 12), right);
  const int rest = _mm_extract_epi32(right, 2);
  std::memcpy(target + 20, &rest, sizeof rest);
}

bool within(std::int64_t a, std::int64_t b, std::int64_t from, std::int64_t to) {
  return std::min(a, b) >= from && std::max(a, b) < to;
}

/// One row of at least eight pixels, from an image of at least 3x2.
GP_AVX2 void warp_row(ConstImageView in, const Path& path, int row, int width,
                      std::uint8_t* target) {
  const Places x_steps = steps_of(path.x_per_column);
  const Places y_steps = steps_of(path.y_per_column);
  const std::int64_t x_last = last_place(in.width);
  const std::int64_t y_last = last_place(in.height);
  for (int column = 0; column < width; column += kBlock) {
    // The last block overlaps the one before.
    column = std::min(column, width - kBlock);
    const std::int64_t x = path.x_at(column, row);
    const std::int64_t y = path.y_at(column, row);
    // A line: what holds at both ends holds between them.
    const std::int64_t x_end = x + (kBlock - 1) * path.x_per_column;
    const std::int64_t y_end = y + (kBlock - 1) * path.y_per_column;
    std::uint8_t* block = target + column * kChannels;
    if (within(x, x_end, 0, x_last - kOne - kHalfStep) && within(y, y_end, 0, y_last - kHalfStep)) {
      warp_block<true>(in, x_steps + x, y_steps + y, block);
    } else if (within(x, x_end, -x_last, 2 * x_last) && within(y, y_end, -y_last, 2 * y_last)) {
      warp_block<false>(in, x_steps + x, y_steps + y, block);
    } else {
      warp_span(in, path, column, column + kBlock, row, target);
    }
  }
}

/// copy_reversed().
GP_AVX2 void copy_reversed_by_fives(const std::uint8_t* from, int count, std::uint8_t* target) {
  const __m128i order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
  // Five pixels at a time, of sixteen bytes each: where a sixth one follows.
  for (; count > 5; count -= 5, from -= 5 * kChannels, target += 5 * kChannels) {
    const auto* bytes = reinterpret_cast<const __m128i*>(from + kChannels - 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                     _mm_shuffle_epi8(_mm_loadu_si128(bytes), order));
  }
  copy_reversed(from, count, target);
}

/// Whether warp_row() can do it: it needs neighbours, and offsets in 32 bits.
bool fits_blocks(ConstImageView in, int out_width) {
  return out_width >= kBlock && in.width >= 3 && in.height >= 2 &&
         std::abs(in.stride) * in.height <= INT32_MAX && in.width <= INT32_MAX / kChannels;
}

#endif

}  // namespace

void warp_affine_portable(ConstImageView in, const Affine& map, ImageView out) {
  const Path path = make_path(map, out.shape());
  const bool copies = copies_pixels(path);
  for (int row = 0; row < out.height; ++row) {
    if (copies) {
      copy_row(in, path, row, out.width, copy_reversed, out.row(row));
    } else {
      warp_span(in, path, 0, out.width, row, out.row(row));
    }
  }
}

#if defined(__x86_64__)

bool has_warp_instructions() { return __builtin_cpu_supports("avx2") != 0; }

void warp_affine_by_instructions(ConstImageView in, const Affine& map, ImageView out) {
  if (!fits_blocks(in, out.width)) return warp_affine_portable(in, map, out);
  const Path path = make_path(map, out.shape());
  const bool copies = copies_pixels(path);
  for (int row = 0; row < out.height; ++row) {
    if (copies) {
      copy_row(in, path, row, out.width, copy_reversed_by_fives, out.row(row));
    } else {
      warp_row(in, path, row, out.width, out.row(row));
    }
  }
}

#else

bool has_warp_instructions() { return false; }
void warp_affine_by_instructions(ConstImageView, const Affine&, ImageView) {
  throw std::logic_error("this processor has no vector instructions that we know of");
}

#endif

void warp_affine(ConstImageView in, const Affine& map, ImageView out) {
  static const bool by_instructions = has_warp_instructions();
  by_instructions ? warp_affine_by_instructions(in, map, out) : warp_affine_portable(in, map, out);
}

}  // namespace gp
