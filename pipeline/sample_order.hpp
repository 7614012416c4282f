#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

/// Which items of a source take part, and in which order each epoch visits them.
///
/// The shuffled order sorts the items by a hash of (seed, epoch, key). It depends on nothing else,
/// so items that are missing (rejected when shards were built, say) leave the order of the others
/// alone, and JPEGs and shards give the same sequence.
///
/// Takes 16 bytes an item, also while it sorts.
class SampleOrder {
 public:
  using KeyFilter = std::function<bool(std::uint64_t key_hash)>;

  /// All items that pass `keep`. `shuffle` false: the source's own order in every epoch.
  SampleOrder(const SourceStage& source, std::uint64_t seed, bool shuffle,
              const KeyFilter& keep = {});

  std::uint64_t size() const { return items_.size(); }
  /// Makes `epoch` current: O(size log size) when it changes and the order is shuffled.
  void start_epoch(std::uint32_t epoch);
  /// Item and key hash at a position of the current epoch.
  struct Entry {
    std::uint64_t key_hash;
    std::uint64_t item;
  };
  Entry at(std::uint64_t position) const {
    const Ranked& found = items_[position];
    return {unmix64(found.rank) ^ epoch_key_, found.item};
  }

 private:
  /// mix64 is a bijection: the rank says what the key's hash is, so that need not be kept beside
  /// it.
  struct Ranked {
    std::uint64_t rank;  ///< mix64(hash of the key ^ epoch_key_)
    std::uint64_t item;
  };

  std::vector<Ranked> items_;
  std::uint64_t epoch_key_ = 0;
  std::uint64_t seed_;
  bool shuffle_;
  std::int64_t current_epoch_ = -1;
};

/// Whether a key belongs to the held-out part of a source without splits: a fraction of all keys,
/// chosen by their hash, the same for every seed.
bool is_held_out(std::uint64_t key_hash, double fraction);

}  // namespace gp
