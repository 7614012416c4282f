#pragma once

#include <ATen/core/Tensor.h>

namespace gp {

struct NearestNeighbours {
  at::Tensor row;       ///< int64 [n]: of the nearest vector; the first of those that are as near
  at::Tensor distance;  ///< float64 [n]: Euclidean
};

/// The nearest vector of `set` for each of `queries`: exact, over all pairs, in blocks of
/// kPairBlock x kPairBlock, so that memory grows with n + m only.
///
/// `queries`: [n, D], `set`: [m, D], any floating type. Throws DataError when the dimensions differ
/// or `set` is empty.
NearestNeighbours nearest_neighbours(const at::Tensor& queries, const at::Tensor& set);

}  // namespace gp
