#include "stages/torch/precision_recall.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "pipeline/error.hpp"
#include "stages/torch/squared_distances.hpp"

namespace gp {
namespace {

/// Each vector's squared distance [n] to its k-th nearest neighbour in the same set.
at::Tensor squared_radii(const NormedVectors& x, int k) {
  at::Tensor radii = at::empty_like(x.norms);
  for (std::int64_t i = 0; i < x.count(); i += kPairBlock) {
    at::Tensor nearest;  // k + 1 of what was seen: the vector itself is one of them
    for (std::int64_t j = 0; j < x.count(); j += kPairBlock) {
      at::Tensor candidates = squared_distances(x.block(i), x.block(j));
      if (nearest.defined()) candidates = at::cat({nearest, candidates}, 1);
      const std::int64_t kept = std::min<std::int64_t>(k + 1, candidates.size(1));
      nearest = std::get<0>(candidates.topk(kept, 1, /*largest=*/false, /*sorted=*/false));
    }
    radii.slice(0, i, i + kPairBlock).copy_(nearest.amax(1));
  }
  return radii;
}

}  // namespace

PrecisionRecall precision_recall(const at::Tensor& fakes, const at::Tensor& reals, int neighbours) {
  const at::NoGradGuard no_grad;
  if (fakes.dim() != 2 || reals.dim() != 2 || fakes.size(1) != reals.size(1)) {
    throw DataError("precision and recall between features of shapes " + c10::str(fakes.sizes()) +
                    " and " + c10::str(reals.sizes()) + ", expected [n, D] and [m, D]");
  }
  if (neighbours < 1 || std::min(fakes.size(0), reals.size(0)) <= neighbours) {
    throw DataError("precision and recall by " + std::to_string(neighbours) +
                    " neighbours of sets of " + std::to_string(fakes.size(0)) + " and " +
                    std::to_string(reals.size(0)) +
                    " images; each must have more images than that");
  }
  const at::Tensor centre = reals.to(at::kCPU, at::kDouble).mean(0);
  const NormedVectors x(fakes, centre);
  const NormedVectors y(reals, centre);
  const at::Tensor radii_x = squared_radii(x, neighbours);
  const at::Tensor radii_y = squared_radii(y, neighbours);

  at::Tensor among_reals = at::zeros({x.count()}, at::kBool);
  at::Tensor among_fakes = at::zeros({y.count()}, at::kBool);
  const auto block = [](const at::Tensor& rows, std::int64_t first) {
    return rows.slice(0, first, first + kPairBlock);
  };
  for (std::int64_t i = 0; i < x.count(); i += kPairBlock) {
    for (std::int64_t j = 0; j < y.count(); j += kPairBlock) {
      const at::Tensor squared = squared_distances(x.block(i), y.block(j));
      block(among_reals, i).logical_or_((squared <= block(radii_y, j).unsqueeze(0)).any(/*dim=*/1));
      block(among_fakes, j).logical_or_((squared <= block(radii_x, i).unsqueeze(1)).any(/*dim=*/0));
    }
  }
  const auto share = [](const at::Tensor& flags) {
    return flags.to(at::kDouble).mean().item<double>();
  };
  return {share(among_reals), share(among_fakes)};
}

}  // namespace gp
