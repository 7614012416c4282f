#include "stages/torch/random_subsets.hpp"

#include <bit>
#include <numeric>
#include <utility>

namespace gp {

std::vector<std::int64_t> RandomSubsets::next(std::int64_t n, std::int64_t size) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  // Fisher and Yates' shuffle from the end; bounded numbers by masking and rejection.
  for (std::size_t i = numbers.size(); i-- > 1;) {
    const auto last = static_cast<std::uint32_t>(i);
    const std::uint32_t mask = ~std::uint32_t{0} >> std::countl_zero(last);
    std::uint32_t j = 0;
    do {
      j = static_cast<std::uint32_t>(engine_()) & mask;
    } while (j > last);
    std::swap(numbers[i], numbers[j]);
  }
  numbers.resize(static_cast<std::size_t>(size));
  return numbers;
}

}  // namespace gp
