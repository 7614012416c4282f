#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace gp {

/// What a random tensor is a function of. No generator of torch's is ever advanced: the random
/// state of a run is its step number.
struct RandomKey {
  std::uint64_t seed = 0;
  std::string purpose;
  std::uint64_t step = 0;
};

/// Fills a contiguous float tensor on the CPU with the uniforms of Rng(key), scaled to [low, high),
/// in memory order.
void fill_uniform(at::Tensor& tensor, const RandomKey& key, float low, float high);

/// Standard normals of Rng(key), in memory order. Float, on the CPU.
at::Tensor normal_tensor(at::IntArrayRef sizes, const RandomKey& key);

/// What a dropout layer multiplies `like` with: 0 with probability `rate`, else 1 / (1 - rate).
/// Sizes [N,C,H,W], type and device as `like`, channels_last.
///
/// On the CPU element i in NHWC order takes half i % 2 (low half first) of the 32-bit number i / 2
/// of Rng(key), and is dropped when that is below round(65536 * rate): independent of threads, and
/// easily recomputed elsewhere. On other devices a generator of theirs seeded from the key draws
/// it, so that masks there differ from the CPU's.
at::Tensor dropout_mask(const at::Tensor& like, double rate, const RandomKey& key);

/// Which of `count` values that mask keeps on the CPU, in memory order: int16 [count], all bits set
/// where it does, else 0.
at::Tensor dropout_kept(std::int64_t count, double rate, const RandomKey& key);
/// What the values that are kept are multiplied with.
double dropout_keep_scale(double rate);

}  // namespace gp
