#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/folder_lock.hpp"
#include "stages/data/hdf5/manifest.hpp"
#include "stages/data/hdf5/shard_writer.hpp"

namespace gp {

/// What a folder of shards is to hold, known before the first image.
struct ShardSetSpec {
  ImageShape shape;
  std::vector<std::string> class_names;
  std::string source_digest;
  std::vector<std::string> preprocessing;  ///< one line a stage, see RunInfo::preprocessing
  int images_per_shard = kMaxImagesPerShard;
  std::uint64_t expected_images = 0;  ///< at most that many; 0: not known
};

/// What is in the folder already, compared with what is wanted.
struct ShardSetState {
  /// Complete, and made by the same preprocessing from the same data.
  std::optional<Manifest> finished;
  /// Complete, but made otherwise: the difference, one line each ("- before", "+ now").
  std::vector<std::string> difference;
  /// It has a manifest, but shards are missing or of another size: which.
  std::string damage;
};

/// Reads the manifest of `root`, if any, and looks at the sizes of its shards; the content of a
/// shard is for `verify_shards`. Throws DataError for a manifest that cannot be read.
ShardSetState inspect_shards(const std::filesystem::path& root, const ShardSetSpec& spec);

/// Ends what a build that was killed had begun to put in place, or removes what it left. To be
/// called, with a FolderLock, before anything else is done with the folder.
void recover_shards(const std::filesystem::path& root);

/// Writes a folder of shards: shard-00000.h5 .., rejects.jsonl and manifest.json. All of it is
/// written into a folder of its own, `unfinished`, and takes the place of an older set only when it
/// is complete, by renaming: so whatever happens before, a full disk say, leaves the older set
/// whole. Killed at any moment, the next build ends with the same bytes. One thread at a time; hold
/// a FolderLock.
class ShardSetWriter {
 public:
  /// Takes away what a killed build left.
  ShardSetWriter(std::filesystem::path root, ShardSetSpec spec);
  /// Takes its own files away unless `finish` has put them in place.
  ~ShardSetWriter();
  ShardSetWriter(const ShardSetWriter&) = delete;
  ShardSetWriter& operator=(const ShardSetWriter&) = delete;

  /// Adds keys.size() images, NHWC.
  void append(std::span<const std::uint8_t> pixels, std::span<const std::string> keys,
              std::span<const std::int32_t> labels);
  void reject(const Reject& reject);
  std::uint64_t images() const { return manifest_.images; }
  /// For a build that fails because of its samples: leaves rejects.jsonl to look at, unless it
  /// would replace that of an older set.
  void keep_rejects() const;

  /// Writes what is left and the manifest, and puts all in place; `read`: samples read from the
  /// source. Throws DataError when there is not one image.
  Manifest finish(std::uint64_t read);

 private:
  void open_shard();
  void close_shard();

  std::filesystem::path root_;
  std::filesystem::path unfinished_;
  ShardSetSpec spec_;
  Manifest manifest_;
  std::string rejects_;  ///< content of rejects.jsonl
  std::unique_ptr<ShardWriter> shard_;
};

}  // namespace gp
