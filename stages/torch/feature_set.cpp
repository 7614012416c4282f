#include "stages/torch/feature_set.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace gp {

std::int64_t Reservoir::next_row() {
  const std::int64_t place = seen_++;
  if (place < capacity_) return place;
  const std::int64_t row = rng_.below(static_cast<std::uint32_t>(place + 1));
  return row < capacity_ ? row : -1;
}

void FeatureCollector::add(const at::Tensor& features) {
  statistics_.add(features);  // refuses what has no meaning
  if (features.size(0) == 0) return;
  const at::Tensor rows = features.to(at::kCPU, at::kFloat).contiguous();
  const auto* vector = rows.const_data_ptr<float>();
  const std::int64_t d = rows.size(1);
  for (std::int64_t i = 0; i < rows.size(0); ++i, vector += d) {
    const std::int64_t row = reservoir_.next_row();
    if (row < 0) continue;
    if (row * d == static_cast<std::int64_t>(kept_.size())) {
      kept_.insert(kept_.end(), vector, vector + d);
    } else {
      std::copy_n(vector, d, kept_.begin() + row * d);
    }
  }
}

std::vector<std::int64_t> FeatureCollector::kept_places(std::int64_t count, std::int64_t capacity) {
  std::vector<std::int64_t> places(static_cast<std::size_t>(std::min(count, capacity)));
  Reservoir reservoir(capacity);
  for (std::int64_t place = 0; place < count; ++place) {
    const std::int64_t row = reservoir.next_row();
    if (row >= 0) places[static_cast<std::size_t>(row)] = place;
  }
  return places;
}

FeatureSet FeatureCollector::finish() const {
  FeatureSet result{statistics_.finish(), {}};
  result.vectors = at::tensor(kept_).view({-1, result.statistics.dimensions()});
  return result;
}

}  // namespace gp
