#pragma once

#include <string>
#include <utility>
#include <vector>

namespace gp {

/// What one step measured: the discriminator before its updates, on the images that it was given.
struct GanStep {
  float loss_d_real = 0;
  float loss_d_fake = 0;
  float loss_g = 0;
  float accuracy_real = 0;  ///< share of reals with a logit above 0
  float accuracy_fake = 0;  ///< share of fakes with a logit of 0 or less
  float gradient_norm_d_real = 0;
  float gradient_norm_d_fake = 0;
  float gradient_norm_g = 0;
  /// What else this trainer measures, by the names of metrics.jsonl; NaN: not at this step.
  std::vector<std::pair<std::string, float>> extras = {};

  float loss_d() const { return (loss_d_real + loss_d_fake) / 2; }
  /// Whether all losses are finite, and the gradients of all updates. (If not, those updates have
  /// made the weights useless, which the losses show only a step later.)
  bool finite() const;
};

}  // namespace gp
