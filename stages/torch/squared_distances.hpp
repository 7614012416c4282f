#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gp {

/// Rows of vectors taken at a time where all pairs of two sets are gone through, so that memory
/// grows with their numbers only.
constexpr std::int64_t kPairBlock = 1024;

/// Vectors with their squared norms, ready for squared_distances.
struct NormedVectors {
  at::Tensor vectors;  ///< float64 [n, D], CPU
  at::Tensor norms;    ///< float64 [n]: |x|^2

  /// `x` - `centre`, which should be near the vectors' mean: it saves digits. `x`: [n, D] of any
  /// floating type, `centre`: float64 [D].
  NormedVectors(const at::Tensor& x, const at::Tensor& centre);
  std::int64_t count() const { return vectors.size(0); }
  /// Up to kPairBlock rows from `first` on, sharing memory.
  NormedVectors block(std::int64_t first) const;

 private:
  NormedVectors() = default;
};

/// Squared Euclidean distances float64 [n, m] as |x|^2 + |y|^2 - 2 x.y. One below its rounding
/// error, D * 2^-52 * (|x|^2 + |y|^2), is 0, so that equal vectors are equal.
at::Tensor squared_distances(const NormedVectors& a, const NormedVectors& b);

}  // namespace gp
