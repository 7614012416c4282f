#include <algorithm>
#include <cctype>

#include "pipeline/config.hpp"

namespace gp {
namespace {

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`; the "optimal string
/// alignment" form of Damerau's distance.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

/// Lower case, '-' as '_': differences that never tell two names apart for a reader.
std::string folded(const std::string& name) {
  std::string result = name;
  for (char& c : result) {
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return result;
}

/// Length of what both have up to a dot: "augment." of augment.flip and augment.affine.
std::size_t shared_family(const std::string& a, const std::string& b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  const auto dot = std::find(std::make_reverse_iterator(end), a.rend(), '.');
  return static_cast<std::size_t>(dot.base() - a.begin());
}

}  // namespace

std::string nearest_name(const std::string& name, const std::vector<std::string>& names) {
  constexpr std::size_t kLongest = 64;  // real names are short; keeps the cost of garbage small
  if (name.empty() || name.size() > kLongest) return "";
  const std::string wanted = folded(name);
  const std::string* best = nullptr;
  std::size_t best_distance = 0;
  for (const std::string& candidate : names) {
    if (candidate.empty() || candidate.size() > kLongest) continue;
    const std::string other = folded(candidate);
    // A shared family says nothing about how near the rest is.
    const std::size_t longer = std::max(wanted.size(), other.size()) - shared_family(wanted, other);
    std::size_t distance = edit_distance(wanted, other);
    // "flip" stands for "augment.flip", however long what is left out.
    if (other.ends_with("." + wanted)) distance = std::min<std::size_t>(distance, 1);
    const bool near = distance <= std::max<std::size_t>(1, longer / 3) && distance < longer;
    if (near && (best == nullptr || distance < best_distance)) {
      best = &candidate;
      best_distance = distance;
    }
  }
  return best == nullptr ? "" : *best;
}

}  // namespace gp
