#include "stages/torch/frechet.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {
namespace {

/// F [D,r] with covariance = F F^T, r its rank up to rounding.
at::Tensor factor(const at::Tensor& covariance) {
  if (!at::isfinite(covariance).all().item<bool>()) {
    throw DataError("Frechet distance: a covariance holds NaN or infinity");
  }
  const auto [values, vectors] = at::linalg_eigh((covariance + covariance.t()) / 2);
  const double largest = values.abs().max().item<double>();
  // Eigenvalues come out with an error of about D * eps * largest; below that they are noise around
  // zero, and their roots would add up to far more than they should.
  const double noise =
      static_cast<double>(values.size(0)) * std::numeric_limits<double>::epsilon() * largest;
  // A covariance has no negative eigenvalue but by rounding, here or where it was summed up.
  if (values.min().item<double>() < -1e-8 * largest) {
    throw DataError("Frechet distance: a matrix with the negative eigenvalue " +
                    std::to_string(values.min().item<double>()) + " is no covariance");
  }
  const std::int64_t dropped = values.le(noise).sum().item<std::int64_t>();  // ascending order
  const std::int64_t rank = values.size(0) - dropped;
  return vectors.narrow(1, dropped, rank) * values.narrow(0, dropped, rank).sqrt();
}

}  // namespace

void FeatureAccumulator::add(const at::Tensor& features) {
  const at::NoGradGuard no_grad;
  if (features.dim() != 2 || (count_ > 0 && features.size(1) != mean_.size(0))) {
    throw DataError("features of shape " + c10::str(features.sizes()) + ", expected [n, " +
                    (count_ > 0 ? std::to_string(mean_.size(0)) : "D") + "]");
  }
  const std::int64_t n = features.size(0);
  if (n == 0) return;
  const at::Tensor x = features.to(at::kCPU, at::kDouble);
  if (!at::isfinite(x).all().item<bool>()) {
    throw DataError("image features hold NaN or infinity, within images " + std::to_string(count_) +
                    " to " + std::to_string(count_ + n - 1));
  }
  const at::Tensor mean = x.mean(0);
  const at::Tensor centred = x - mean;
  const at::Tensor products = at::mm(centred.t(), centred);
  if (count_ == 0) {
    mean_ = mean;
    products_ = products;
  } else {
    const at::Tensor shift = mean - mean_;
    const auto total = static_cast<double>(count_ + n);
    products_ += products;
    products_.addr_(shift, shift, 1, static_cast<double>(count_) * static_cast<double>(n) / total);
    mean_ += shift * (static_cast<double>(n) / total);
  }
  count_ += n;
}

FeatureStatistics FeatureAccumulator::finish() const {
  if (count_ < 2) {
    throw DataError("a covariance needs at least 2 images, there were " + std::to_string(count_));
  }
  return {count_, mean_.clone(), products_ / static_cast<double>(count_ - 1)};
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const at::NoGradGuard no_grad;
  if (a.dimensions() != b.dimensions()) {
    throw DataError("Frechet distance between features of " + std::to_string(a.dimensions()) +
                    " and " + std::to_string(b.dimensions()) + " dimensions");
  }
  const at::Tensor fa = factor(a.covariance);
  const at::Tensor fb = factor(b.covariance);
  double cross = 0;
  if (fa.size(1) > 0 && fb.size(1) > 0) {
    cross = at::linalg_svdvals(at::mm(fa.t(), fb)).sum().item<double>();
  }
  const double means = (a.mean - b.mean).square().sum().item<double>();
  const double traces = a.covariance.trace().item<double>() + b.covariance.trace().item<double>();
  return std::max(0.0, means + traces - 2 * cross);
}

FeatureStatistics feature_statistics(const at::Tensor& features) {
  FeatureAccumulator accumulator;
  accumulator.add(features);
  return accumulator.finish();
}

double frechet_standard_error(const at::Tensor& a, const at::Tensor& b, int groups,
                              const std::function<void()>& before_each) {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& set : {a, b}) {
    if (groups < 2 || set.dim() != 2 || set.size(0) < groups || set.size(0) < 4) {
      throw DataError("jackknife of a Frechet distance: " + std::to_string(groups) +
                      " groups of features of shape " + c10::str(set.sizes()) +
                      "; it needs 2 or more groups, and vectors for each and at least 4");
    }
  }
  RandomSubsets random(0);
  // The variance that `varied` causes.
  const auto variance = [&](const at::Tensor& varied, const at::Tensor& fixed) {
    const FeatureStatistics other = feature_statistics(fixed);
    const std::int64_t n = varied.size(0);
    // Images often come in the order of their classes; groups are to be alike.
    const at::Tensor order = at::tensor(random.next(n, n));
    std::vector<double> distances;
    for (std::int64_t g = 0; g < groups; ++g) {
      if (before_each) before_each();
      const std::int64_t first = n * g / groups;
      const std::int64_t last = n * (g + 1) / groups;
      const at::Tensor kept = at::cat({order.slice(0, 0, first), order.slice(0, last)});
      distances.push_back(
          frechet_distance(feature_statistics(varied.index_select(0, kept)), other));
    }
    const at::Tensor values = at::tensor(distances, at::kDouble);
    return (values - values.mean()).square().sum().item<double>() * (groups - 1) / groups;
  };
  return std::sqrt(variance(a, b) + variance(b, a));
}

}  // namespace gp
