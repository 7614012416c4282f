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
    kCosine,  ///< half a cosine down to 0 at the end (Loshchilov and Hutter 2017, without restarts)
    kInverseSqrt  ///< 1 / sqrt(max(step / decay_start, 1)), which needs no end (Karras et al. 2024,
                  ///< "Analyzing and Improving the Training Dynamics of Diffusion Models")
  };
  Shape shape = Shape::kConstant;
  /// Steps over which it rises linearly to 1 before it falls; kInverseSqrt may fall meanwhile, by
  /// the product of both.
  std::uint64_t warm_up = 0;
  std::uint64_t steps = 0;  ///< of the whole training; later ones have the last one's factor
  /// Steps from the training's first before it falls, warm-up included. Not 0 with kInverseSqrt.
  std::uint64_t decay_start = 0;

  /// `step`: counted from 0.
  double factor(std::uint64_t step) const;

  /// In the order of Shape.
  static std::vector<std::string> names() {
    return {"constant", "linear", "cosine", "inverse_sqrt"};
  }
  /// Of one of names().
  static Shape shape_of(const std::string& name);
};

}  // namespace gp
