#include "stages/torch/feature_set.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace gp {

FeatureCollector::FeatureCollector(std::int64_t capacity)
    : capacity_(capacity), rng_(0, "feature_set", 0) {}

void FeatureCollector::add(const at::Tensor& features) {
  std::int64_t place = statistics_.count();
  statistics_.add(features);  // refuses what has no meaning
  if (features.size(0) == 0) return;
  const at::Tensor rows = features.to(at::kCPU, at::kFloat).contiguous();
  const auto* row = rows.const_data_ptr<float>();
  const std::int64_t d = rows.size(1);
  for (std::int64_t i = 0; i < rows.size(0); ++i, ++place, row += d) {
    if (place < capacity_) {
      kept_.insert(kept_.end(), row, row + d);
      continue;
    }
    const std::int64_t slot = rng_.below(static_cast<std::uint32_t>(place + 1));
    if (slot < capacity_) std::copy_n(row, d, kept_.begin() + slot * d);
  }
}

FeatureSet FeatureCollector::finish() const {
  FeatureSet result{statistics_.finish(), {}};
  result.vectors = at::tensor(kept_).view({-1, result.statistics.dimensions()});
  return result;
}

}  // namespace gp
