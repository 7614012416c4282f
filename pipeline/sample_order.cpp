#include "pipeline/sample_order.hpp"

#include <algorithm>

namespace gp {

SampleOrder::SampleOrder(const SourceStage& source, std::uint64_t seed, bool shuffle,
                         const KeyFilter& keep)
    : seed_(seed), shuffle_(shuffle) {
  items_.reserve(source.size());
  for (std::uint64_t item = 0; item < source.size(); ++item) {
    const std::uint64_t key_hash = hash64(source.key(item));
    if (!keep || keep(key_hash)) items_.push_back({mix64(key_hash ^ epoch_key_), item});
  }
}

void SampleOrder::start_epoch(std::uint32_t epoch) {
  if (!shuffle_ || current_epoch_ == epoch) return;
  current_epoch_ = epoch;
  const std::uint64_t key = mix64(mix64(seed_ + 0x632BE59BD9B4E019ULL) + epoch);
  for (Ranked& item : items_) item.rank = mix64(unmix64(item.rank) ^ epoch_key_ ^ key);
  epoch_key_ = key;
  // Ranks are equal only where the key hashes are; the source's own order settles it then.
  std::sort(items_.begin(), items_.end(), [](const Ranked& a, const Ranked& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.item < b.item;
  });
}

bool is_held_out(std::uint64_t key_hash, double fraction) {
  return static_cast<double>(mix64(key_hash ^ 0xA0761D6478BD642FULL) >> 11) * 0x1p-53 < fraction;
}

}  // namespace gp
