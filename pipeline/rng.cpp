#include "pipeline/rng.hpp"

#include <cmath>
#include <numbers>

namespace gp {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

std::uint64_t mix64(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

std::uint64_t unmix64(std::uint64_t value) {
  // Each step undone, last first; the factors are the inverses modulo 2^64.
  value = (value ^ (value >> 31) ^ (value >> 62)) * 0x319642B2D24D8EC3ULL;
  value = (value ^ (value >> 27) ^ (value >> 54)) * 0x96DE1B173F119089ULL;
  return value ^ (value >> 30) ^ (value >> 60);
}

std::uint64_t hash64(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : text) {
    hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001B3ULL;
  }
  return mix64(hash);
}

Rng::Rng(std::uint64_t seed, std::uint64_t stage_hash, std::uint32_t epoch,
         std::uint64_t key_hash) {
  const std::uint64_t key = mix64(seed + 0x9E3779B97F4A7C15ULL) ^ stage_hash;
  key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
  counter_ = {0, epoch, static_cast<std::uint32_t>(key_hash),
              static_cast<std::uint32_t>(key_hash >> 32)};
}

Rng::Rng(std::uint64_t seed, std::string_view purpose, std::uint64_t step)
    : Rng(seed, hash64(purpose), 0, step) {}

std::uint32_t Rng::next_u32() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

float Rng::uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24F; }

double Rng::uniform(double low, double high) {
  const double unit = next_u32() * 0x1p-32;
  return low + (high - low) * unit;
}

std::uint32_t Rng::below(std::uint32_t n) {
  // Lemire, "Fast random integer generation in an interval", 2019: rejection keeps it unbiased.
  std::uint64_t product = std::uint64_t{next_u32()} * n;
  if (static_cast<std::uint32_t>(product) < n) {
    const std::uint32_t threshold = -n % n;
    while (static_cast<std::uint32_t>(product) < threshold) {
      product = std::uint64_t{next_u32()} * n;
    }
  }
  return static_cast<std::uint32_t>(product >> 32);
}

float Rng::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  // 1 - u lies in (0, 1], so the logarithm is finite.
  const double u = 1.0 - uniform(0.0, 1.0);
  const double angle = 2.0 * std::numbers::pi * uniform(0.0, 1.0);
  const double radius = std::sqrt(-2.0 * std::log(u));
  spare_normal_ = static_cast<float>(radius * std::sin(angle));
  has_spare_ = true;
  return static_cast<float>(radius * std::cos(angle));
}

}  // namespace gp
