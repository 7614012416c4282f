#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// What every shard of a folder says about itself.
struct ShardInfo {
  ImageShape shape;
  std::vector<std::string> class_names;
  std::string source_digest;
  std::string config_digest;

  bool operator==(const ShardInfo&) const = default;
};

/// Makes a file's content, or a folder's names, durable (fsync). Throws RunError.
void sync_to_disk(const std::filesystem::path& path);

/// CRC-32C of a shard's tables: what tells it from every other shard of its set.
std::uint32_t tables_checksum(std::span<const std::uint32_t> checksums,
                              std::span<const std::int32_t> labels,
                              std::span<const std::string> keys);

/// Writes one shard: an HDF5 file with the datasets `images` uint8 [N,H,W,3], `crc32c` uint32 [N]
/// (of each image's bytes), `labels` int32 [N] and `keys` (UTF-8, fixed length, padded with zero
/// bytes) [N], all contiguous, and the attributes `format`, `schema_version`, `class_names`,
/// `source_digest` and `config_digest` on the root group.
///
/// The bytes of the file depend on nothing but what is given here. It has a temporary name until
/// `finish`; without `finish` it is removed. One thread at a time. HDF5's errors come as DataError
/// with HDF5's own explanation.
class ShardWriter {
 public:
  /// At most `capacity` images; cheapest when there will be exactly that many, because the length
  /// of a contiguous dataset is fixed when it is made.
  ShardWriter(std::filesystem::path file, ShardInfo info, int capacity);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// Adds keys.size() images, whose pixels follow each other in `pixels` (NHWC).
  void append(std::span<const std::uint8_t> pixels, std::span<const std::string> keys,
              std::span<const std::int32_t> labels);
  int count() const { return static_cast<int>(keys_.size()); }
  int capacity() const { return capacity_; }
  std::uint32_t tables_checksum() const { return gp::tables_checksum(checksums_, labels_, keys_); }

  /// Writes the tables, fsyncs and renames to the final name. At least one image.
  void finish();

 private:
  struct File;

  std::filesystem::path file_;
  std::filesystem::path temporary_;
  ShardInfo info_;
  int capacity_;
  std::vector<std::string> keys_;
  std::vector<std::int32_t> labels_;
  std::vector<std::uint32_t> checksums_;
  std::unique_ptr<File> out_;
};

}  // namespace gp
