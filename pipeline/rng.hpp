#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gp {

/// One block of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011): 128 random bits from a 128-bit counter and a 64-bit key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// 64-bit hash of a string: FNV-1a finished by splitmix64. Part of the formats: never change it.
std::uint64_t hash64(std::string_view text);

/// splitmix64's finaliser, a bijection that mixes all bits, and its inverse.
std::uint64_t mix64(std::uint64_t value);
std::uint64_t unmix64(std::uint64_t value);

/// A counter-based random stream: a pure function of what it is keyed by, so results do not depend
/// on threads or order. Cheap to make; not shared between threads.
class Rng {
 public:
  /// A stage's stream for one sample.
  Rng(std::uint64_t seed, std::uint64_t stage_hash, std::uint32_t epoch, std::uint64_t key_hash);
  /// A stream for one purpose (weights, latents, masks ...) at one step.
  Rng(std::uint64_t seed, std::string_view purpose, std::uint64_t step);

  std::uint32_t next_u32();
  /// Uniform in [0, 1), 24 bits.
  float uniform();
  /// Uniform in [low, high).
  double uniform(double low, double high);
  /// Uniform in {0, ..., n-1}, unbiased; n > 0.
  std::uint32_t below(std::uint32_t n);
  /// Standard normal, Box-Muller (one value kept for the next call).
  float normal();

 private:
  std::array<std::uint32_t, 2> key_{};
  std::array<std::uint32_t, 4> counter_{};
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
  float spare_normal_ = 0;
  bool has_spare_ = false;
};

}  // namespace gp
