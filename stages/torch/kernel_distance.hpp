#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gp {

/// The defaults are those of torch-fidelity.
struct KernelDistanceOptions {
  int subsets = 100;
  std::int64_t subset_size = 1000;  ///< lowered to the smaller set
  std::uint32_t seed = 2020;        ///< of the subsets
  int resamples = 100;              ///< of the bootstrap for the standard error; 0: none
};

struct KernelDistance {
  double mean = 0;
  /// Of the subsets' values, divided by their number. How far one subset of `subset_size` is off;
  /// the mean is off by less. 0 where every subset is the whole of both sets: it says nothing then.
  double deviation = 0;
  std::int64_t subset_size = 0;  ///< as used
  /// Of the unbiased estimate from all vectors over other draws of images, by the bootstrap over
  /// both sets; a vector drawn twice is no pair with itself. What the subsets add to that is small:
  /// they are many, and overlap.
  double standard_error = 0;

  /// Whether `deviation` means something.
  bool has_deviation(std::int64_t fakes, std::int64_t reals) const {
    return subset_size < fakes || subset_size < reals;
  }
};

/// The kernel distance (KID on Inception's features; Binkowski et al. 2018): the unbiased estimate
/// of the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, over random subsets.
/// Unlike the Frechet distance its expectation does not depend on the number of images; it may come
/// out below zero where the sets are alike.
///
/// The same as torch-fidelity's with the same subsets (RandomSubsets(seed): for each subset one of
/// the fakes, then one of the reals). Each kernel value is computed once, and not once in each
/// subset: with S the 0/1 matrix of members, a subset's sum is a column of S * (K S). So is a
/// resample's, with the numbers of times that a vector was drawn, which makes the bootstrap nearly
/// free. float64; K exists in blocks of 1,024 rows and columns only.
///
/// `fakes`: [n, D], `reals`: [m, D], any floating type. Throws DataError when the dimensions differ
/// or a set has fewer than two vectors.
KernelDistance kernel_distance(const at::Tensor& fakes, const at::Tensor& reals,
                               const KernelDistanceOptions& options = {});

}  // namespace gp
