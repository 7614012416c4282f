#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gp {

/// What a learning rate is multiplied with, as a function of the step alone, so that a run that is
/// resumed goes on with it.
struct LearningRateSchedule {
  enum class Shape {
    kConstant,
    kLinear,  ///< down to 0 at the end
    kCosine   ///< half a cosine down to 0 at the end (Loshchilov and Hutter 2017, without restarts)
  };
  Shape shape = Shape::kConstant;
  std::uint64_t warm_up = 0;  ///< steps over which it rises linearly to 1 before
  std::uint64_t steps = 0;    ///< of the whole training; later ones have the last one's factor

  /// `step`: counted from 0.
  double factor(std::uint64_t step) const;

  static std::vector<std::string> names() { return {"constant", "linear", "cosine"}; }
  /// Of one of names().
  static Shape shape_of(const std::string& name);
};

}  // namespace gp
