#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "pipeline/rng.hpp"

namespace gp::testing {

/// The features of fixtures/make_frechet.py: float64 [n,d].
inline at::Tensor formula_features(std::uint64_t seed, std::int64_t n, std::int64_t d) {
  at::Tensor u = at::empty({n, d}, at::kDouble);
  auto* values = u.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n * d; ++i) {
    const std::uint64_t random = mix64(static_cast<std::uint64_t>(i) + (seed << 40));
    values[i] = static_cast<double>(random >> 40) / 16777216.0;
  }
  const at::Tensor scale = 1 + 8.0 / (1 + at::arange(d, at::kDouble));
  return (u + 0.5 * at::roll(u, -1, 1)) * scale + 0.125 * static_cast<double>(seed);
}

/// The second sets of fixtures/make_metrics.py.
inline at::Tensor bent_features(std::uint64_t seed, std::int64_t n, std::int64_t d) {
  const at::Tensor x = formula_features(seed, n, d);
  return x - 0.12 + 0.01 * x.square();
}

/// Independent normal features, float64 [n,d], of mean 0 and deviations 1, 1/2, 1/3 ..; each seed
/// another draw.
inline at::Tensor normal_features(std::uint64_t seed, std::int64_t n, std::int64_t d) {
  Rng rng(seed, "normal_features", 0);
  at::Tensor result = at::empty({n, d}, at::kDouble);
  auto* values = result.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n * d; ++i) {
    values[i] = static_cast<double>(rng.normal()) / static_cast<double>(1 + i % d);
  }
  return result;
}

}  // namespace gp::testing
