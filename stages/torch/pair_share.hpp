#pragma once

#include <vector>

namespace gp {

/// The share of all pairs (a, b) in which a > b; equal ones count half, NaN is never greater. 0
/// where there is no pair.
///
/// Exact, by sorting: Mann and Whitney's U over n m (1947), which is the area under the ROC curve
/// of telling `a` from `b` (Hanley and McNeil 1982). 0.5: neither is larger.
double pair_share(std::vector<double> a, std::vector<double> b);

}  // namespace gp
