#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace gp {

/// Draws subsets as numpy.random.RandomState(seed).choice(n, size, replace=False) does, call by
/// call: metrics over random subsets then equal those of the Python tools to rounding. Numpy has
/// frozen that generator (NEP 19); std::mt19937 is defined to the bit.
class RandomSubsets {
 public:
  explicit RandomSubsets(std::uint32_t seed) : engine_(seed) {}
  /// `size` different numbers of 0 .. n-1, in random order; 0 <= size <= n < 2^32.
  std::vector<std::int64_t> next(std::int64_t n, std::int64_t size);

 private:
  std::mt19937 engine_;
};

}  // namespace gp
