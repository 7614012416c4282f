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
  steps_ = at::zeros({static_cast<std::int64_t>(parameters_.size())}, at::kLong);
}

void Adam::step(double factor) {
  const at::NoGradGuard no_grad;
  // Parameters that have had the same number of updates are one pass; mostly that is all of them.
  struct Group {
    std::vector<at::Tensor> parameters, gradients, averages, square_averages;
  };
  std::map<std::int64_t, Group> groups;
  auto* const steps = steps_.mutable_data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = parameters_[i].grad();
    if (!gradient.defined()) continue;
    Group& group = groups[++steps[i]];
    group.parameters.push_back(parameters_[i]);
    group.gradients.push_back(gradient);
    group.averages.push_back(averages_[i]);
    group.square_averages.push_back(square_averages_[i]);
  }
  TORCH_CHECK(!groups.empty(), "Adam::step without a backward pass");
  for (const auto& [number, group] : groups) {
    // The kernel adds its epsilon to sqrt(second moment) / sqrt(1 - beta2^step).
    const double epsilon =
        options_.epsilon / std::sqrt(1 - std::pow(options_.beta2, static_cast<double>(number)));
    const at::Tensor step = at::full({}, static_cast<float>(number),
                                     group.parameters.front().options().requires_grad(false));
    const std::vector<at::Tensor> number_of_each(group.parameters.size(), step);
    at::_fused_adam_(group.parameters, group.gradients, group.averages, group.square_averages, {},
                     number_of_each, factor * options_.learning_rate, options_.beta1,
                     options_.beta2, /*weight_decay=*/0, epsilon, /*amsgrad=*/false,
                     /*maximize=*/false);
  }
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

at::Tensor Adam::gradient_norm() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters_) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  TORCH_CHECK(!gradients.empty(), "Adam::gradient_norm without a backward pass");
  return at::stack(at::_foreach_norm(gradients)).norm();
}

std::map<std::string, at::Tensor> Adam::state() const {
  std::map<std::string, at::Tensor> state{{"steps", steps_}};
  for (std::size_t i = 0; i < names_.size(); ++i) {
    state["exp_avg." + names_[i]] = averages_[i];
    state["exp_avg_sq." + names_[i]] = square_averages_[i];
  }
  return state;
}

}  // namespace gp
