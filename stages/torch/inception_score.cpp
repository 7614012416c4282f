#include "stages/torch/inception_score.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>

#include "pipeline/error.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {

InceptionScoreAccumulator::InceptionScoreAccumulator(std::int64_t count, int splits,
                                                     std::uint32_t seed) {
  if (splits < 1 || count < splits) {
    throw DataError("Inception score: " + std::to_string(splits) + " splits of " +
                    std::to_string(count) + " images; it needs at least one image a split");
  }
  const std::vector<std::int64_t> order = RandomSubsets(seed).next(count, count);
  split_of_.resize(order.size());
  images_ = at::zeros({splits}, at::kDouble);
  for (std::int64_t s = 0; s < splits; ++s) {
    const std::int64_t first = s * count / splits;
    const std::int64_t last = (s + 1) * count / splits;
    for (std::int64_t i = first; i < last; ++i) {
      split_of_[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = s;
    }
    images_[s] = last - first;
  }
  negentropies_ = at::zeros({splits}, at::kDouble);
}

void InceptionScoreAccumulator::add(const at::Tensor& logits) {
  const at::NoGradGuard no_grad;
  const auto total = static_cast<std::int64_t>(split_of_.size());
  if (logits.dim() != 2 || (probabilities_.defined() && logits.size(1) != probabilities_.size(1)) ||
      added_ + logits.size(0) > total) {
    throw DataError("Inception score: class scores of shape " + c10::str(logits.sizes()) +
                    " after " + std::to_string(added_) + " of " + std::to_string(total) +
                    " images; expected [n, classes] of no more images than that");
  }
  if (!probabilities_.defined()) {
    probabilities_ = at::zeros({images_.size(0), logits.size(1)}, at::kDouble);
  }
  const at::Tensor log_p = at::log_softmax(logits.to(at::kCPU, at::kDouble), 1);
  const at::Tensor p = log_p.exp();
  const at::Tensor split =
      at::from_blob(split_of_.data() + added_, {logits.size(0)}, at::kLong).clone();
  probabilities_.index_add_(0, split, p);
  negentropies_.index_add_(0, split, (p * log_p).nan_to_num_(0).sum(1));
  added_ += logits.size(0);
}

InceptionScore InceptionScoreAccumulator::finish() const {
  const at::NoGradGuard no_grad;
  if (added_ != static_cast<std::int64_t>(split_of_.size())) {
    throw DataError("Inception score: " + std::to_string(added_) + " of " +
                    std::to_string(split_of_.size()) + " images came");
  }
  const at::Tensor marginal = probabilities_ / images_.unsqueeze(1);
  // sum_y q log q, with 0 log 0 = 0
  const at::Tensor marginal_negentropy = at::xlogy(marginal, marginal).sum(1);
  const at::Tensor scores = (negentropies_ / images_ - marginal_negentropy).exp();
  return {scores.mean().item<double>(), scores.std(/*unbiased=*/false).item<double>()};
}

}  // namespace gp
