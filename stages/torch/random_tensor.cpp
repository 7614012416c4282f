#include "stages/torch/random_tensor.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/AcceleratorHooksInterface.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "pipeline/rng.hpp"
#include "stages/torch/target_clones.hpp"

namespace gp {
namespace {

constexpr int kLanes = 16;
constexpr std::int64_t kWords = 4 * kLanes;  ///< 32-bit numbers that one call makes

/// Key and upper counter words of Rng(seed, purpose, step); see rng.cpp.
struct PhiloxStream {
  std::uint32_t key[2];
  std::uint32_t step[2];

  explicit PhiloxStream(const RandomKey& random) {
    const std::uint64_t bits = mix64(random.seed + 0x9E3779B97F4A7C15ULL) ^ hash64(random.purpose);
    key[0] = static_cast<std::uint32_t>(bits);
    key[1] = static_cast<std::uint32_t>(bits >> 32);
    step[0] = static_cast<std::uint32_t>(random.step);
    step[1] = static_cast<std::uint32_t>(random.step >> 32);
  }
};

/// The kWords numbers of the stream that start at block `first` (of 4 numbers). The same as
/// philox4x32 in a loop, but with the blocks side by side, which compilers turn into vectors.
GP_CLONES void philox_blocks(const PhiloxStream& stream, std::uint32_t first,
                             std::uint32_t* __restrict out) {
  const std::uint32_t step0 = stream.step[0];
  const std::uint32_t step1 = stream.step[1];
  const std::uint32_t key0 = stream.key[0];
  const std::uint32_t key1 = stream.key[1];
  std::uint32_t words[4][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    std::uint32_t c0 = first + static_cast<std::uint32_t>(i);
    std::uint32_t c1 = 0;
    std::uint32_t c2 = step0;
    std::uint32_t c3 = step1;
#pragma GCC unroll 10
    for (std::uint32_t round = 0; round < 10; ++round) {
      const std::uint64_t product0 = std::uint64_t{0xD2511F53} * c0;
      const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<std::uint32_t>(product1 >> 32) ^ c1 ^ (key0 + round * 0x9E3779B9);
      c1 = static_cast<std::uint32_t>(product1);
      c2 = static_cast<std::uint32_t>(product0 >> 32) ^ c3 ^ (key1 + round * 0xBB67AE85);
      c3 = static_cast<std::uint32_t>(product0);
    }
    words[0][i] = c0;
    words[1][i] = c1;
    words[2][i] = c2;
    words[3][i] = c3;
  }
  for (int i = 0; i < kLanes; ++i) {
    for (int w = 0; w < 4; ++w) out[4 * i + w] = words[w][i];
  }
}

constexpr std::int64_t kHalves = 2 * kWords;  ///< 16-bit halves that one call makes

/// kHalves mask elements from those halves, as bit patterns.
template <class Bits>
inline void expand(const std::uint32_t* words, std::uint16_t threshold, Bits kept, Bits* out) {
  std::uint16_t halves[kHalves];
  static_assert(std::endian::native == std::endian::little, "the low half comes first");
  std::memcpy(halves, words, sizeof(halves));
  for (int i = 0; i < kHalves; ++i) out[i] = halves[i] < threshold ? Bits{0} : kept;
}
GP_CLONES void expand16(const std::uint32_t* words, std::uint16_t threshold, std::uint16_t kept,
                        std::uint16_t* out) {
  expand(words, threshold, kept, out);
}
GP_CLONES void expand32(const std::uint32_t* words, std::uint16_t threshold, std::uint32_t kept,
                        std::uint32_t* out) {
  expand(words, threshold, kept, out);
}

std::uint16_t dropout_threshold(double rate) {
  return static_cast<std::uint16_t>(std::lround(rate * 65536));
}

/// Fills `count` elements; `expand_block` is one of those above.
template <class Bits>
void fill_mask(void* mask, std::int64_t count, std::uint16_t threshold, Bits kept,
               const PhiloxStream& stream,
               void (*expand_block)(const std::uint32_t*, std::uint16_t, Bits, Bits*)) {
  const std::int64_t calls = (count + kHalves - 1) / kHalves;
  at::parallel_for(0, calls, 64, [&](std::int64_t begin, std::int64_t end) {
    std::uint32_t words[kWords];
    Bits block[kHalves];
    for (std::int64_t call = begin; call < end; ++call) {
      philox_blocks(stream, static_cast<std::uint32_t>(call * kLanes), words);
      expand_block(words, threshold, kept, block);
      const std::int64_t n = std::min(kHalves, count - call * kHalves);
      std::memcpy(static_cast<Bits*>(mask) + call * kHalves, block,
                  static_cast<std::size_t>(n) * sizeof(Bits));
    }
  });
}

}  // namespace

void fill_uniform(at::Tensor& tensor, const RandomKey& key, float low, float high) {
  TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == at::kFloat);
  Rng rng(key.seed, key.purpose, key.step);
  float* const data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) data[i] = low + (high - low) * rng.uniform();
}

at::Tensor normal_tensor(at::IntArrayRef sizes, const RandomKey& key) {
  const at::Tensor tensor = at::empty(sizes, at::kFloat);
  Rng rng(key.seed, key.purpose, key.step);
  float* const data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) data[i] = rng.normal();
  return tensor;
}

at::Tensor dropout_mask(const at::Tensor& like, double rate, const RandomKey& key) {
  const at::Tensor mask =
      at::empty(like.sizes(), like.options().memory_format(at::MemoryFormat::ChannelsLast));
  const std::uint16_t threshold = dropout_threshold(rate);
  const double kept = dropout_keep_scale(rate);
  const PhiloxStream stream(key);
  if (!mask.is_cpu()) {
    at::Generator generator = at::globalContext()
                                  .getAcceleratorHooksInterface(mask.device().type())
                                  .getNewGenerator(mask.device().index());
    generator.set_current_seed(
        mix64(mix64(key.step) ^ (std::uint64_t{stream.key[1]} << 32 | stream.key[0])));
    return mask.bernoulli_(1.0 - threshold / 65536.0, generator).mul_(kept);
  }
  if (mask.scalar_type() == at::kBFloat16) {
    fill_mask(mask.data_ptr(), mask.numel(), threshold, at::BFloat16(static_cast<float>(kept)).x,
              stream, expand16);
  } else {
    TORCH_CHECK(mask.scalar_type() == at::kFloat, "dropout_mask: unexpected type ",
                mask.scalar_type());
    fill_mask(mask.data_ptr(), mask.numel(), threshold,
              std::bit_cast<std::uint32_t>(static_cast<float>(kept)), stream, expand32);
  }
  return mask;
}

at::Tensor dropout_kept(std::int64_t count, double rate, const RandomKey& key) {
  const at::Tensor kept = at::empty({count}, at::kShort);
  fill_mask(kept.data_ptr(), count, dropout_threshold(rate), std::uint16_t{0xFFFF},
            PhiloxStream(key), expand16);
  return kept;
}

double dropout_keep_scale(double rate) { return 1.0 / (1.0 - dropout_threshold(rate) / 65536.0); }

}  // namespace gp
