#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace gp {

/// Mean and covariance of a set of feature vectors: all that a Frechet distance needs of it.
struct FeatureStatistics {
  std::int64_t count = 0;  ///< vectors
  at::Tensor mean;         ///< float64 [D], CPU
  at::Tensor covariance;   ///< float64 [D,D], CPU; unbiased, divided by count - 1
  /// float64 [D,count], CPU, where there were D vectors or fewer: covariance = factor factor^T, of
  /// which the covariance alone does not tell the rank exactly. May be undefined: it is not stored.
  at::Tensor factor = {};

  std::int64_t dimensions() const { return mean.size(0); }
  /// `count` vectors span at most count - 1 dimensions around their mean. Where these are fewer
  /// than D the covariance is singular and the distance is biased upwards all the more.
  bool rank_deficient() const { return count <= dimensions(); }
};

/// Gathers FeatureStatistics from blocks of vectors, in float64 and in one pass. Each block is
/// centred before its products are summed (Chan, Golub and LeVeque 1983), so that a mean far from
/// zero costs no digits. Two or three times D x D doubles, whatever the number of vectors.
class FeatureAccumulator {
 public:
  /// `features`: [n, D] of any floating type; D as in the first call. Throws DataError when they
  /// hold NaN or infinity.
  void add(const at::Tensor& features);
  std::int64_t count() const { return count_; }
  /// Throws DataError when there were fewer than two vectors.
  FeatureStatistics finish() const;

 private:
  std::int64_t count_ = 0;
  at::Tensor mean_;
  at::Tensor products_;          ///< sum of outer products around mean_
  std::vector<at::Tensor> few_;  ///< all vectors, while there are no more than D
};

/// The squared Frechet (2-Wasserstein) distance between the normal distributions of these means and
/// covariances: |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)), as in Heusel et al. 2017.
///
/// With C1 = F F^T the last trace is the sum of the square roots of the eigenvalues of the
/// symmetric F^T C2 F, which are those of C1 C2. Unlike a matrix square root of the unsymmetric C1
/// C2 that is real by construction, stays exact for singular covariances, and takes eigenvalues
/// only. F comes from the vectors themselves where they are few, else from Cholesky's
/// decomposition, else (C1 is singular) from the symmetric eigen-decomposition. float64; not
/// negative. Throws DataError when the dimensions differ or a matrix is no covariance.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// Mean and covariance of `features` [n, D]; as FeatureAccumulator.
FeatureStatistics feature_statistics(const at::Tensor& features);

/// The standard error of the Frechet distance between `a` [n, D] and `b` [m, D], by the bootstrap:
/// each set in turn is drawn with replacement `resamples` times, the other left as it is, and the
/// variances that the two cause are added. It tells how far another draw of images would be off,
/// and not how far the distance is off for being taken from few images, which makes all of them too
/// large alike.
///
/// One resample costs a product over n x D x D and the eigenvalues of D x D, no eigenvectors;
/// `before_each` is called before each and may throw to give up. Throws DataError when `resamples`
/// < 2, the dimensions differ or a set has fewer than four vectors.
double frechet_standard_error(const at::Tensor& a, const at::Tensor& b, int resamples,
                              const std::function<void()>& before_each = {});

}  // namespace gp
