#include "stages/torch/nearest_neighbours.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <limits>

#include "pipeline/error.hpp"
#include "stages/torch/squared_distances.hpp"

namespace gp {

NearestNeighbours nearest_neighbours(const at::Tensor& queries, const at::Tensor& set) {
  const at::NoGradGuard no_grad;
  if (queries.dim() != 2 || set.dim() != 2 || queries.size(1) != set.size(1) || set.size(0) == 0) {
    throw DataError("nearest neighbours of features of shape " + c10::str(queries.sizes()) +
                    " among " + c10::str(set.sizes()) +
                    "; expected [n, D] and [m, D], m at least 1");
  }
  const at::Tensor centre = set.to(at::kCPU, at::kDouble).mean(0);
  const NormedVectors x(queries, centre);
  const NormedVectors y(set, centre);
  NearestNeighbours result{at::zeros({x.count()}, at::kLong),
                           at::full_like(x.norms, std::numeric_limits<double>::infinity())};
  for (std::int64_t i = 0; i < x.count(); i += kPairBlock) {
    const at::Tensor row = result.row.slice(0, i, i + kPairBlock);
    const at::Tensor nearest = result.distance.slice(0, i, i + kPairBlock);
    for (std::int64_t j = 0; j < y.count(); j += kPairBlock) {
      const auto [squared, place] = squared_distances(x.block(i), y.block(j)).min(1);
      const at::Tensor nearer = squared < nearest;
      row.copy_(at::where(nearer, place + j, row));
      nearest.copy_(at::where(nearer, squared, nearest));
    }
  }
  result.distance.sqrt_();
  return result;
}

}  // namespace gp
