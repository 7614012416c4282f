#include "stages/torch/adam.hpp"

#include <torch/torch.h>

#include <cmath>

namespace gp {

Adam::Adam(torch::nn::Module& network, const Options& options) : options_(options) {
  for (const auto& parameter : network.named_parameters()) {
    names_.push_back(parameter.key());
    parameters_.push_back(parameter.value());
    averages_.push_back(at::zeros_like(parameter.value()));
    square_averages_.push_back(at::zeros_like(parameter.value()));
  }
}

void Adam::step(double factor) {
  const at::NoGradGuard no_grad;
  ++step_;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters_) {
    TORCH_CHECK(parameter.grad().defined(), "Adam::step without a backward pass");
    gradients.push_back(parameter.grad());
  }
  // The kernel adds its epsilon to sqrt(second moment) / sqrt(1 - beta2^step).
  const double epsilon =
      options_.epsilon / std::sqrt(1 - std::pow(options_.beta2, static_cast<double>(step_)));
  const at::Tensor step =
      at::full({}, static_cast<float>(step_), parameters_.front().options().requires_grad(false));
  const std::vector<at::Tensor> steps(parameters_.size(), step);
  at::_fused_adam_(parameters_, gradients, averages_, square_averages_, {}, steps,
                   factor * options_.learning_rate, options_.beta1, options_.beta2,
                   /*weight_decay=*/0, epsilon, /*amsgrad=*/false, /*maximize=*/false);
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

at::Tensor Adam::gradient_norm() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters_) gradients.push_back(parameter.grad());
  return at::stack(at::_foreach_norm(gradients)).norm();
}

std::map<std::string, at::Tensor> Adam::state() const {
  std::map<std::string, at::Tensor> state{{"step", at::full({}, step_, at::kLong)}};
  for (std::size_t i = 0; i < names_.size(); ++i) {
    state["exp_avg." + names_[i]] = averages_[i];
    state["exp_avg_sq." + names_[i]] = square_averages_[i];
  }
  return state;
}

}  // namespace gp
