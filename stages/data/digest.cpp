#include "stages/data/digest.hpp"

#include <algorithm>

namespace gp {

void digest_items(std::vector<DigestItem> items, Sha256& sha) {
  std::sort(items.begin(), items.end());
  for (const auto& [key, size] : items) {
    sha.update(key + "\t" + std::to_string(size) + "\n");
  }
}

}  // namespace gp
