#include "stages/torch/frechet.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "pipeline/error.hpp"
#include "stages/torch/bootstrap.hpp"

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

double frechet_standard_error(const at::Tensor& a, const at::Tensor& b, int resamples,
                              const std::function<void()>& before_each) {
  const at::NoGradGuard no_grad;
  if (resamples < 2 || a.dim() != 2 || b.dim() != 2 || a.size(1) != b.size(1) ||
      std::min(a.size(0), b.size(0)) < 4) {
    throw DataError("bootstrap of a Frechet distance: " + std::to_string(resamples) +
                    " resamples of features of shapes " + c10::str(a.sizes()) + " and " +
                    c10::str(b.sizes()) +
                    "; it needs 2 or more, of [n, D] and [m, D] with at least 4 vectors each");
  }
  // The variance that `varied` causes.
  const auto variance = [&](const at::Tensor& varied, const at::Tensor& fixed,
                            const char* purpose) {
    const FeatureStatistics other = feature_statistics(fixed);
    const auto [values, vectors] = at::linalg_eigh(other.covariance);
    const at::Tensor x = varied.to(at::kCPU, at::kDouble) - other.mean;
    const at::Tensor mean = x.mean(0);
    const at::Tensor centred = x - mean;
    const at::Tensor norms = centred.square().sum(1);
    // With F F^T the other's covariance, the cross term is the sum of the roots of the eigenvalues
    // of F^T C F, the covariance of these.
    const at::Tensor projected = at::mm(centred, vectors * values.clamp_min(0).sqrt());
    const at::Tensor counts = resample_counts(x.size(0), resamples, purpose);
    const auto n = static_cast<double>(x.size(0));
    at::Tensor distances = at::empty({resamples}, at::kDouble);
    for (int r = 0; r < resamples; ++r) {
      if (before_each) before_each();
      const at::Tensor count = counts.select(1, r);
      const at::Tensor shift = at::mv(centred.t(), count) / n;
      const at::Tensor projected_shift = at::mv(projected.t(), count) / n;
      at::Tensor products = at::mm(projected.t(), projected * count.unsqueeze(1));
      products.addr_(projected_shift, projected_shift, 1, -n);
      const at::Tensor roots = at::linalg_eigvalsh(products).clamp_min(0).sqrt();
      const at::Tensor trace = at::dot(norms, count) - n * shift.square().sum();
      distances[r] =
          (mean + shift).square().sum() + trace / (n - 1) - 2 * roots.sum() / std::sqrt(n - 1);
    }
    return distances.var().item<double>();
  };
  return std::sqrt(variance(a, b, "bootstrap fakes") + variance(b, a, "bootstrap reals"));
}

}  // namespace gp
