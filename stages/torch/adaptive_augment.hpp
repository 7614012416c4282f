#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace gp {

/// Controls how often images are augmented by how sure the discriminator is of the reals it trains
/// on (ADA; Karras et al., 2020): r_t, the mean of sign(D(real)), is driven to a target.
///
/// A pure function of what it was fed. One thread.
class AdaptiveAugment {
 public:
  struct Options {
    double target = 0.6;
    int interval = 4;         ///< steps between changes of p
    double speed_kimg = 500;  ///< thousands of images in which p can go from 0 to 1
    double max_p = 1;         ///< upper limit; the paper has the lower one only, 0
  };
  explicit AdaptiveAugment(const Options& options);

  /// The logits of one step's (augmented) reals. Each `interval`-th call moves p towards where r_t,
  /// measured since the last change, meets the target.
  void add(const at::Tensor& real_logits);

  /// The probability with which to augment.
  double p() const;
  /// r_t at the last change of p, in [-1, 1]; 0 before the first.
  double r_t() const;

  /// Everything that add() changes: double tensors of zero dimensions by name. Not copies: a state
  /// is brought back by writing to them.
  std::map<std::string, at::Tensor> state() const;

 private:
  Options options_;
  at::Tensor p_, r_t_;
  at::Tensor sign_sum_, images_, steps_;  ///< since the last change
};

}  // namespace gp
