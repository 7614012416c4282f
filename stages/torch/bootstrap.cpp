#include "stages/torch/bootstrap.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

/// Student's t at 97.5 %: exact for 1 and 2 degrees of freedom, else Cornish and Fisher's expansion
/// (Abramowitz and Stegun 26.7.5), within 0.2 %.
double t_quantile(int degrees) {
  if (degrees == 1) return 12.7062;
  if (degrees == 2) return 4.30265;
  constexpr double z = 1.959963985;
  const double z2 = z * z;
  const double z3 = z2 * z;
  const double z5 = z3 * z2;
  const double z7 = z5 * z2;
  const double z9 = z7 * z2;
  const double v = degrees;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v) +
         (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * v * v * v * v);
}

}  // namespace

at::Tensor resample_counts(std::int64_t n, int resamples, std::string_view purpose) {
  at::Tensor result = at::zeros({n, resamples}, at::kDouble);
  auto counts = result.accessor<double, 2>();
  for (int resample = 0; resample < resamples; ++resample) {
    Rng rng(0, purpose, static_cast<std::uint64_t>(resample));
    for (std::int64_t i = 0; i < n; ++i) {
      counts[rng.below(static_cast<std::uint32_t>(n))][resample] += 1;
    }
  }
  return result;
}

Interval confidence_interval(double estimate, double standard_error, int resamples) {
  const double half = t_quantile(resamples - 1) * standard_error;
  return {estimate - half, estimate + half};
}

}  // namespace gp
