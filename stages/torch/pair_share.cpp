#include "stages/torch/pair_share.hpp"

#include <algorithm>
#include <cmath>

namespace gp {

double pair_share(std::vector<double> a, std::vector<double> b) {
  const double pairs = static_cast<double>(a.size()) * static_cast<double>(b.size());
  if (pairs == 0) return 0;
  std::erase_if(a, [](double x) { return std::isnan(x); });
  std::erase_if(b, [](double x) { return std::isnan(x); });
  std::sort(b.begin(), b.end());
  double greater = 0;
  for (const double x : a) {
    const auto [first, last] = std::equal_range(b.begin(), b.end(), x);
    greater += static_cast<double>(first - b.begin()) + 0.5 * static_cast<double>(last - first);
  }
  return greater / pairs;
}

}  // namespace gp
