#include "stages/torch/precision_recall.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <string>

#include "pipeline/error.hpp"

namespace gp {
namespace {

constexpr std::int64_t kBlock = 1024;

at::Tensor block(const at::Tensor& rows, std::int64_t first) {
  return rows.slice(0, first, first + kBlock);
}

/// Squared distances [n,m] between `a` [n,D] and `b` [m,D], whose squared norms are given.
at::Tensor squared_distances(const at::Tensor& a, const at::Tensor& norms_a, const at::Tensor& b,
                             const at::Tensor& norms_b) {
  const at::Tensor norms = norms_a.unsqueeze(1) + norms_b.unsqueeze(0);
  at::Tensor result = at::addmm(norms, a, b.t(), 1, -2);
  const double rounding = static_cast<double>(a.size(1)) * std::numeric_limits<double>::epsilon();
  return result.masked_fill_(result <= norms * rounding, 0);
}

/// Each vector's squared distance [n] to its k-th nearest neighbour in the same set.
at::Tensor squared_radii(const at::Tensor& x, const at::Tensor& norms, int k) {
  at::Tensor radii = at::empty_like(norms);
  for (std::int64_t i = 0; i < x.size(0); i += kBlock) {
    at::Tensor nearest;  // k + 1 of what was seen: the vector itself is one of them
    for (std::int64_t j = 0; j < x.size(0); j += kBlock) {
      at::Tensor candidates =
          squared_distances(block(x, i), block(norms, i), block(x, j), block(norms, j));
      if (nearest.defined()) candidates = at::cat({nearest, candidates}, 1);
      const std::int64_t kept = std::min<std::int64_t>(k + 1, candidates.size(1));
      nearest = std::get<0>(candidates.topk(kept, 1, /*largest=*/false, /*sorted=*/false));
    }
    block(radii, i).copy_(nearest.amax(1));
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
  at::Tensor x = fakes.to(at::kCPU, at::kDouble);
  at::Tensor y = reals.to(at::kCPU, at::kDouble);
  const at::Tensor centre = y.mean(0);
  x = x - centre;
  y = y - centre;
  const at::Tensor norms_x = x.square().sum(1);
  const at::Tensor norms_y = y.square().sum(1);
  const at::Tensor radii_x = squared_radii(x, norms_x, neighbours);
  const at::Tensor radii_y = squared_radii(y, norms_y, neighbours);

  at::Tensor among_reals = at::zeros({x.size(0)}, at::kBool);
  at::Tensor among_fakes = at::zeros({y.size(0)}, at::kBool);
  for (std::int64_t i = 0; i < x.size(0); i += kBlock) {
    for (std::int64_t j = 0; j < y.size(0); j += kBlock) {
      const at::Tensor squared =
          squared_distances(block(x, i), block(norms_x, i), block(y, j), block(norms_y, j));
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
