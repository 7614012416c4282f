#include "stages/torch/weight_loader.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "pipeline/error.hpp"

namespace gp {
namespace {

constexpr double kBatchNormEpsilon = 1e-3;
constexpr std::size_t kProblemsShown = 8;

}  // namespace

at::Tensor WeightLoader::take(const std::string& name, at::IntArrayRef shape) {
  taken_.insert(name);
  const auto it = weights_.tensors.find(name);
  if (it == weights_.tensors.end()) {
    problem(name, "is missing");
  } else if (it->second.scalar_type() != at::kFloat || it->second.sizes() != shape) {
    problem(name, "is " + std::string(c10::toString(it->second.scalar_type())) + " " +
                      c10::str(it->second.sizes()) + ", expected Float " + c10::str(shape));
  } else if (!at::isfinite(it->second).all().item<bool>()) {
    problem(name, "holds NaN or infinity");
  } else {
    return it->second;
  }
  return at::zeros(shape);
}

WeightLoader::Folded WeightLoader::fold(const std::string& conv, const std::string& norm,
                                        at::IntArrayRef shape) {
  const at::IntArrayRef channels = shape.slice(0, 1);
  const at::Tensor weight = take(conv + ".weight", shape).to(at::kDouble);
  const at::Tensor gamma = take(norm + ".weight", channels).to(at::kDouble);
  const at::Tensor beta = take(norm + ".bias", channels).to(at::kDouble);
  const at::Tensor mean = take(norm + ".running_mean", channels).to(at::kDouble);
  const at::Tensor variance = take(norm + ".running_var", channels).to(at::kDouble);
  taken_.insert(norm + ".num_batches_tracked");
  if (variance.lt(0).any().item<bool>()) problem(norm + ".running_var", "holds negative values");
  const at::Tensor scale = gamma / (variance + kBatchNormEpsilon).sqrt();
  return {(weight * scale.view({-1, 1, 1, 1}))
              .to(at::kFloat)
              .contiguous(at::MemoryFormat::ChannelsLast),
          (beta - mean * scale).to(at::kFloat)};
}

void WeightLoader::refuse_others() {
  for (const auto& [name, tensor] : weights_.tensors) {
    if (!taken_.count(name)) problem(name, "is not one of the network's");
  }
}

void WeightLoader::finish(const std::string& where, const std::string& network,
                          const std::string& advice) const {
  if (problems_.empty()) return;
  std::string text = where + ": not the weights of " + network + ":";
  for (std::size_t i = 0; i < std::min(problems_.size(), kProblemsShown); ++i) {
    text += "\n  " + problems_[i];
  }
  if (problems_.size() > kProblemsShown) {
    text += "\n  and " + std::to_string(problems_.size() - kProblemsShown) + " more";
  }
  throw DataError(text + "\n" + advice);
}

}  // namespace gp
