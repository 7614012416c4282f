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

/// Which of the vectors that come one after another are kept, `capacity` at most: all where there
/// are no more; else a sample without replacement (Vitter 1985, algorithm R). A function of their
/// places alone.
class Reservoir {
 public:
  explicit Reservoir(std::int64_t capacity) : capacity_(capacity) {}
  /// The row where the next vector goes, in place of an earlier one where that is taken; -1: none.
  std::int64_t next_row();

 private:
  std::int64_t capacity_;
  std::int64_t seen_ = 0;
  Rng rng_{0, "feature_set", 0};
};

/// Gathers a FeatureSet from blocks of vectors. Up to `capacity` of them are kept,
/// chosen by a Reservoir, since sets often come in the order of their classes. 51 MB for 1280
/// dimensions.
class FeatureCollector {
 public:
  static constexpr std::int64_t kCapacity = 10'000;

  explicit FeatureCollector(std::int64_t capacity = kCapacity) : reservoir_(capacity) {}
  /// As FeatureAccumulator::add.
  void add(const at::Tensor& features);
  /// Throws DataError when there were fewer than two vectors.
  FeatureSet finish() const;

  /// For each row of FeatureSet::vectors, the place of its vector among the `count` that came.
  static std::vector<std::int64_t> kept_places(std::int64_t count,
                                               std::int64_t capacity = kCapacity);

 private:
  FeatureAccumulator statistics_;
  Reservoir reservoir_;
  std::vector<float> kept_;  ///< row after row
};

}  // namespace gp
