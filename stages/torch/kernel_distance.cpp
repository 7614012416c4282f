#include "stages/torch/kernel_distance.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "pipeline/error.hpp"
#include "stages/torch/bootstrap.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {
namespace {

constexpr std::int64_t kBlock = 1024;

/// Sums of kernel values over x of a set of vectors of `a` and y of the set of `b` of the same
/// number. `a` [n,D], `b` [m,D]; how often each is in the sets, [n,S] and [m,S]; returns [S].
at::Tensor pair_sums(const at::Tensor& a, const at::Tensor& members_a, const at::Tensor& b,
                     const at::Tensor& members_b) {
  const auto d = static_cast<double>(a.size(1));
  at::Tensor sums = at::zeros({members_a.size(1)}, at::kDouble);
  for (std::int64_t i = 0; i < a.size(0); i += kBlock) {
    const at::Tensor rows = a.slice(0, i, i + kBlock);
    at::Tensor row_sums = at::zeros({rows.size(0), members_a.size(1)}, at::kDouble);
    for (std::int64_t j = 0; j < b.size(0); j += kBlock) {
      at::Tensor kernel = at::mm(rows, b.slice(0, j, j + kBlock).t());
      kernel.div_(d).add_(1).pow_(3);
      row_sums.addmm_(kernel, members_b.slice(0, j, j + kBlock));
    }
    sums += (row_sums * members_a.slice(0, i, i + kBlock)).sum(0);
  }
  return sums;
}

/// Sums of the kernel values of all pairs of a vector with itself.
at::Tensor diagonal_sums(const at::Tensor& a, const at::Tensor& members) {
  const at::Tensor diagonal =
      a.square().sum(1).div_(static_cast<double>(a.size(1))).add_(1).pow_(3);
  return at::mv(members.square().t(), diagonal);
}

void add_members(at::Tensor& members, std::int64_t subset, const std::vector<std::int64_t>& rows) {
  auto values = members.accessor<double, 2>();
  for (const std::int64_t row : rows) values[row][subset] = 1;
}

}  // namespace

KernelDistance kernel_distance(const at::Tensor& fakes, const at::Tensor& reals,
                               const KernelDistanceOptions& options) {
  const at::NoGradGuard no_grad;
  if (fakes.dim() != 2 || reals.dim() != 2 || fakes.size(1) != reals.size(1)) {
    throw DataError("kernel distance between features of shapes " + c10::str(fakes.sizes()) +
                    " and " + c10::str(reals.sizes()) + ", expected [n, D] and [m, D]");
  }
  KernelDistance result;
  result.subset_size = std::min({options.subset_size, fakes.size(0), reals.size(0)});
  if (result.subset_size < 2 || options.subsets < 1) {
    throw DataError("kernel distance: " + std::to_string(options.subsets) + " subsets of " +
                    std::to_string(result.subset_size) +
                    " images; it needs at least one of at least 2");
  }
  const at::Tensor x = fakes.to(at::kCPU, at::kDouble);
  const at::Tensor y = reals.to(at::kCPU, at::kDouble);
  at::Tensor of_x = at::zeros({x.size(0), options.subsets}, at::kDouble);
  at::Tensor of_y = at::zeros({y.size(0), options.subsets}, at::kDouble);
  RandomSubsets subsets(options.seed);
  for (int s = 0; s < options.subsets; ++s) {
    add_members(of_x, s, subsets.next(x.size(0), result.subset_size));
    add_members(of_y, s, subsets.next(y.size(0), result.subset_size));
  }
  if (options.resamples > 0) {
    of_x = at::cat({of_x, resample_counts(x.size(0), options.resamples, "bootstrap fakes")}, 1);
    of_y = at::cat({of_y, resample_counts(y.size(0), options.resamples, "bootstrap reals")}, 1);
  }
  const at::Tensor n = of_x.sum(0);  // vectors of each subset and resample
  const at::Tensor m = of_y.sum(0);
  const at::Tensor within_x =
      (pair_sums(x, of_x, x, of_x) - diagonal_sums(x, of_x)) / (n * (n - 1));
  const at::Tensor within_y =
      (pair_sums(y, of_y, y, of_y) - diagonal_sums(y, of_y)) / (m * (m - 1));
  const at::Tensor all = within_x + within_y - 2 * pair_sums(x, of_x, y, of_y) / (n * m);
  const at::Tensor values = all.slice(0, 0, options.subsets);
  result.mean = values.mean().item<double>();
  result.deviation = (values - result.mean).square().mean().sqrt().item<double>();
  if (options.resamples > 1) {
    result.standard_error = all.slice(0, options.subsets).std().item<double>();
  }
  return result;
}

}  // namespace gp
