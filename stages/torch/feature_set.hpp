#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "pipeline/rng.hpp"
#include "stages/torch/frechet.hpp"

namespace gp {

/// What is kept of the features of a set of images, for all metrics.
struct FeatureSet {
  FeatureStatistics statistics;  ///< of all vectors
  at::Tensor vectors;            ///< float32 [min(count, capacity), D], CPU
};

/// Gathers a FeatureSet from blocks of vectors. Up to `capacity` of them are kept, all where there
/// are no more; else a sample without replacement (Vitter 1985, algorithm R), since sets often come
/// in the order of their classes. Which ones depends on their places only. 51 MB for 1280
/// dimensions.
class FeatureCollector {
 public:
  static constexpr std::int64_t kCapacity = 10'000;

  explicit FeatureCollector(std::int64_t capacity = kCapacity);
  /// As FeatureAccumulator::add.
  void add(const at::Tensor& features);
  /// Throws DataError when there were fewer than two vectors.
  FeatureSet finish() const;

 private:
  std::int64_t capacity_;
  FeatureAccumulator statistics_;
  std::vector<float> kept_;  ///< row after row
  Rng rng_;
};

}  // namespace gp
