#include "stages/torch/networks.hpp"

#include <torch/torch.h>

namespace gp {

std::map<std::string, at::Tensor> state_of(const torch::nn::Module& network) {
  std::map<std::string, at::Tensor> state;
  for (const auto& parameter : network.named_parameters()) {
    state[parameter.key()] = parameter.value();
  }
  for (const auto& buffer : network.named_buffers()) state[buffer.key()] = buffer.value();
  return state;
}

void copy_state(const torch::nn::Module& from, torch::nn::Module& to) {
  const at::NoGradGuard no_grad;
  auto target = state_of(to);
  for (const auto& [name, tensor] : state_of(from)) target.at(name).copy_(tensor);
}

KeptBuffers::KeptBuffers(const torch::nn::Module& network) : buffers_(network.buffers()) {
  for (const at::Tensor& buffer : buffers_) kept_.push_back(buffer.clone());
}

KeptBuffers::~KeptBuffers() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(kept_[i]);
}

}  // namespace gp
