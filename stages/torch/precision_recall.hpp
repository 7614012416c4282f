#pragma once

#include <ATen/core/Tensor.h>

namespace gp {

struct PrecisionRecall {
  double precision = 0;  ///< share of fakes that lie among the reals: how good they are
  double recall = 0;     ///< share of reals that lie among the fakes: how much is covered
};

/// Improved precision and recall (Kynkaanniemi et al. 2019). A vector lies among a set when it is
/// in the ball around one of the set's vectors that reaches to that vector's `neighbours`-th
/// nearest neighbour in the set, itself not counted.
///
/// Exact, and equal to torch-fidelity's. Euclidean distances in float64 as |x|^2 + |y|^2 - 2 x.y
/// around the reals' mean, in blocks of 1,024 x 1,024: memory grows with n + m only. A squared
/// distance below its rounding error, D * 2^-52 * (|x|^2 + |y|^2), is 0, so that equal vectors are
/// equal and a set with itself gives 1 and 1.
///
/// `fakes`: [n, D], `reals`: [m, D], any floating type. Throws DataError when the dimensions differ
/// or a set has no more than `neighbours` vectors.
PrecisionRecall precision_recall(const at::Tensor& fakes, const at::Tensor& reals,
                                 int neighbours = 3);

}  // namespace gp
