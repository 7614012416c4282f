#include "stages/torch/squared_distances.hpp"

#include <ATen/ATen.h>

#include <limits>

namespace gp {

NormedVectors::NormedVectors(const at::Tensor& x, const at::Tensor& centre)
    : vectors(x.to(at::kCPU, at::kDouble) - centre), norms(vectors.square().sum(1)) {}

NormedVectors NormedVectors::block(std::int64_t first) const {
  NormedVectors result;
  result.vectors = vectors.slice(0, first, first + kPairBlock);
  result.norms = norms.slice(0, first, first + kPairBlock);
  return result;
}

at::Tensor squared_distances(const NormedVectors& a, const NormedVectors& b) {
  const at::Tensor norms = a.norms.unsqueeze(1) + b.norms.unsqueeze(0);
  at::Tensor result = at::addmm(norms, a.vectors, b.vectors.t(), 1, -2);
  const double rounding =
      static_cast<double>(a.vectors.size(1)) * std::numeric_limits<double>::epsilon();
  return result.masked_fill_(result <= norms * rounding, 0);
}

}  // namespace gp
