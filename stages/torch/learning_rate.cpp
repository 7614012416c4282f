#include "stages/torch/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gp {

double LearningRateSchedule::factor(std::uint64_t step) const {
  const double risen =
      step < warm_up ? static_cast<double>(step + 1) / static_cast<double>(warm_up) : 1;
  if (shape == Shape::kInverseSqrt) {
    if (step <= decay_start) return risen;
    return risen * std::sqrt(static_cast<double>(decay_start) / static_cast<double>(step));
  }
  if (step < warm_up) return risen;
  const std::uint64_t start = std::max(warm_up, decay_start);
  if (shape == Shape::kConstant || steps <= start || step < start) return 1;
  const std::uint64_t last = std::min(step, steps - 1);
  const double done = static_cast<double>(last - start) / static_cast<double>(steps - start);
  return shape == Shape::kLinear ? 1 - done : (1 + std::cos(std::numbers::pi * done)) / 2;
}

LearningRateSchedule::Shape LearningRateSchedule::shape_of(const std::string& name) {
  const std::vector<std::string> all = names();
  return static_cast<Shape>(std::ranges::find(all, name) - all.begin());
}

}  // namespace gp
