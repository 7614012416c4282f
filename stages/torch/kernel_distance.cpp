#include "stages/torch/kernel_distance.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "pipeline/error.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {
namespace {

constexpr std::int64_t kBlock = 1024;

/// Sums of kernel values over x of a subset of `a` and y of the subset of `b` of the same number.
/// `a` [n,D], `b` [m,D]; their members [n,S] and [m,S]; returns [S].
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

/// Sums of a member's kernel value with itself.
at::Tensor diagonal_sums(const at::Tensor& a, const at::Tensor& members) {
  const at::Tensor diagonal =
      a.square().sum(1).div_(static_cast<double>(a.size(1))).add_(1).pow_(3);
  return at::mv(members.t(), diagonal);
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
  const auto m = static_cast<double>(result.subset_size);
  const at::Tensor within = pair_sums(x, of_x, x, of_x) - diagonal_sums(x, of_x) +
                            pair_sums(y, of_y, y, of_y) - diagonal_sums(y, of_y);
  const at::Tensor values = within / (m * (m - 1)) - pair_sums(x, of_x, y, of_y) * (2 / (m * m));
  result.mean = values.mean().item<double>();
  result.deviation = (values - result.mean).square().mean().sqrt().item<double>();
  return result;
}

}  // namespace gp
