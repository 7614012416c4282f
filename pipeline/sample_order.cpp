#include "pipeline/sample_order.hpp"

#include <algorithm>

namespace gp {

SampleOrder::SampleOrder(const SourceStage& source, std::uint64_t seed, bool shuffle,
                         const KeyFilter& keep)
    : seed_(seed), shuffle_(shuffle) {
  items_.reserve(source.size());
  for (std::uint64_t item = 0; item < source.size(); ++item) {
    const std::uint64_t key_hash = hash64(source.key(item));
    if (!keep || keep(key_hash)) items_.push_back({key_hash, item});
  }
}

void SampleOrder::start_epoch(std::uint32_t epoch) {
  if (!shuffle_ || current_epoch_ == epoch) return;
  current_epoch_ = epoch;
  const std::uint64_t key = mix64(mix64(seed_ + 0x632BE59BD9B4E019ULL) + epoch);
  struct Ranked {
    std::uint64_t rank;
    Entry entry;
  };
  std::vector<Ranked> ranked;
  ranked.reserve(items_.size());
  for (const Entry& entry : items_) ranked.push_back({mix64(entry.key_hash ^ key), entry});
  // mix64 is a bijection, so ranks are equal only where the key hashes are; the key hash settles
  // nothing then, but the source's own order does.
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.entry.item < b.entry.item;
  });
  std::transform(ranked.begin(), ranked.end(), items_.begin(),
                 [](const Ranked& r) { return r.entry; });
}

bool is_held_out(std::uint64_t key_hash, double fraction) {
  return static_cast<double>(mix64(key_hash ^ 0xA0761D6478BD642FULL) >> 11) * 0x1p-53 < fraction;
}

}  // namespace gp
