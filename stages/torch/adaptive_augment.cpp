#include "stages/torch/adaptive_augment.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace gp {
namespace {

double& value(const at::Tensor& tensor) { return *tensor.data_ptr<double>(); }

}  // namespace

AdaptiveAugment::AdaptiveAugment(const Options& options)
    : options_(options),
      p_(at::zeros({}, at::kDouble)),
      r_t_(at::zeros({}, at::kDouble)),
      sign_sum_(at::zeros({}, at::kDouble)),
      images_(at::zeros({}, at::kDouble)),
      steps_(at::zeros({}, at::kDouble)) {
  TORCH_CHECK(
      options.interval > 0 && options.speed_kimg > 0 && options.max_p >= 0 && options.max_p <= 1,
      "AdaptiveAugment: interval and speed must be above 0, the limit of p in [0, 1]");
}

void AdaptiveAugment::add(const at::Tensor& real_logits) {
  const at::Tensor logits = real_logits.detach();
  // Counted, not averaged: exact in any order, and a logit that is not a number counts as 0.
  value(sign_sum_) += (logits > 0).sum().sub((logits < 0).sum()).item<double>();
  value(images_) += static_cast<double>(logits.numel());
  if (++value(steps_) < options_.interval) return;
  const double r_t = value(images_) > 0 ? value(sign_sum_) / value(images_) : 0;
  const double step = value(images_) / (options_.speed_kimg * 1000);
  if (r_t > options_.target) value(p_) = std::min(value(p_) + step, options_.max_p);
  if (r_t < options_.target) value(p_) = std::max(value(p_) - step, 0.0);
  value(r_t_) = r_t;
  value(sign_sum_) = value(images_) = value(steps_) = 0;
}

double AdaptiveAugment::p() const { return value(p_); }
double AdaptiveAugment::r_t() const { return value(r_t_); }

std::map<std::string, at::Tensor> AdaptiveAugment::state() const {
  return {
      {"p", p_}, {"r_t", r_t_}, {"sign_sum", sign_sum_}, {"images", images_}, {"steps", steps_}};
}

}  // namespace gp
