#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace gp {

/// The bootstrap (Efron and Tibshirani 1993) as the metrics use it: sets drawn with replacement
/// give the standard error, and that around the estimate the interval.
///
/// Not the quantiles of what the drawn sets give: those have fewer different images, which makes a
/// Frechet distance larger. That shifts all of them and hardly changes their spread.

/// How often each of `n` vectors is in each of `resamples` sets of n drawn with replacement:
/// float64 [n, resamples]. The same for the same `purpose`, which names the set.
at::Tensor resample_counts(std::int64_t n, int resamples, std::string_view purpose);

constexpr double kConfidence = 0.95;

struct Interval {
  double low = 0;
  double high = 0;
};

/// The kConfidence interval of an estimate whose standard error is the deviation of `resamples`
/// values (2 or more), by Student's t with resamples - 1 degrees of freedom.
Interval confidence_interval(double estimate, double standard_error, int resamples);

}  // namespace gp
