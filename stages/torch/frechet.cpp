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

void refuse_negative(double smallest, double largest) {
  // A covariance has no negative eigenvalue but by rounding, here or where it was summed up.
  if (smallest < -1e-8 * largest) {
    throw DataError("Frechet distance: a matrix with the negative eigenvalue " +
                    std::to_string(smallest) + " is no covariance");
  }
}

/// Eigenvalues of a D x D matrix come out with an error of about this times the largest. Below that
/// they are noise around zero, and their roots would add up to far more than they should.
double noise(std::int64_t dimensions) {
  return static_cast<double>(dimensions) * std::numeric_limits<double>::epsilon();
}

/// L [D,D] with covariance = L L^T, or undefined where that is singular up to rounding.
at::Tensor cholesky(const at::Tensor& covariance) {
  const auto [lower, info] = at::linalg_cholesky_ex(covariance);
  if (info.item<int>() != 0) return {};
  // The squares on the diagonal are no smaller than the smallest eigenvalue.
  const at::Tensor squares = lower.diagonal().square();
  const double least = 1e3 * noise(squares.size(0)) * covariance.diagonal().max().item<double>();
  return squares.min().item<double>() > least ? lower : at::Tensor();
}

/// F [D,r] with covariance = F F^T, r its rank up to rounding.
at::Tensor eigen_factor(const at::Tensor& covariance) {
  const auto [values, vectors] = at::linalg_eigh((covariance + covariance.t()) / 2);
  const double largest = values.abs().max().item<double>();
  refuse_negative(values.min().item<double>(), largest);
  // Ascending order.
  const std::int64_t dropped =
      values.le(noise(values.size(0)) * largest).sum().item<std::int64_t>();
  const std::int64_t rank = values.size(0) - dropped;
  return vectors.narrow(1, dropped, rank) * values.narrow(0, dropped, rank).sqrt();
}

/// The sum of the roots of the eigenvalues of `a`'s covariance times `b`'s.
double trace_of_root(const FeatureStatistics& a, const FeatureStatistics& b) {
  at::Tensor product;
  if (a.factor.defined() && b.factor.defined()) {
    at::Tensor cross = at::mm(a.factor.t(), b.factor);
    if (cross.size(0) > cross.size(1)) cross = cross.t();
    product = at::mm(cross, cross.t());
  } else {
    const FeatureStatistics* factored = b.factor.defined() ? &b : &a;
    at::Tensor f = factored->factor;
    for (const FeatureStatistics* one : {&a, &b}) {
      if (f.defined()) break;
      factored = one;
      f = cholesky(one->covariance);
    }
    if (!f.defined()) f = eigen_factor(factored->covariance);
    const FeatureStatistics& other = factored == &a ? b : a;
    product = at::mm(f.t(), at::mm(other.covariance, f));
  }
  if (product.numel() == 0) return 0;
  const at::Tensor values = at::linalg_eigvalsh((product + product.t()) / 2);
  const double largest = values.abs().max().item<double>();
  refuse_negative(values.min().item<double>(), largest);
  const at::Tensor roots = values.clamp_min(0).sqrt();
  return roots.masked_fill(values.le(noise(values.size(0)) * largest), 0).sum().item<double>();
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
  if (count_ <= mean_.size(0)) {
    few_.push_back(x.clone());  // it may be the caller's
  } else {
    few_.clear();
  }
}

FeatureStatistics FeatureAccumulator::finish() const {
  if (count_ < 2) {
    throw DataError("a covariance needs at least 2 images, there were " + std::to_string(count_));
  }
  const auto degrees = static_cast<double>(count_ - 1);
  at::Tensor factor;
  if (!few_.empty()) factor = ((at::cat(few_) - mean_) / std::sqrt(degrees)).t();
  return {count_, mean_.clone(), products_ / degrees, factor};
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const at::NoGradGuard no_grad;
  if (a.dimensions() != b.dimensions()) {
    throw DataError("Frechet distance between features of " + std::to_string(a.dimensions()) +
                    " and " + std::to_string(b.dimensions()) + " dimensions");
  }
  for (const FeatureStatistics* one : {&a, &b}) {
    if (!at::isfinite(one->covariance).all().item<bool>()) {
      throw DataError("Frechet distance: a covariance holds NaN or infinity");
    }
  }
  const double cross = trace_of_root(a, b);
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
