#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "stages/data/hdf5/shard_writer.hpp"

namespace gp {

/// Reads the images of one shard. HDF5 is used in the constructor only: it checks the layout, takes
/// the tables into memory and asks where the pixels begin; from then on an image is one pread, so
/// that any number of threads may read at once.
class ShardReader {
 public:
  /// `keep_open`: keep a file descriptor for the object's life; otherwise each read opens the file.
  /// Throws DataError that says what in the file is not as ShardWriter makes it.
  explicit ShardReader(std::filesystem::path file, bool keep_open = true);
  ~ShardReader();
  ShardReader(ShardReader&& other) noexcept;
  ShardReader& operator=(ShardReader&&) = delete;

  const std::filesystem::path& file() const { return file_; }
  const ShardInfo& info() const { return info_; }
  int count() const { return static_cast<int>(entries_.size()) - 1; }
  std::string key(int image) const {
    const std::uint32_t begin = entry(image).key_begin;
    return keys_.substr(begin, entry(image + 1).key_begin - begin);
  }
  std::int32_t label(int image) const { return entry(image).label; }

  /// Of the tables as they were read, see gp::tables_checksum.
  std::uint32_t tables_checksum() const { return tables_checksum_; }

  /// Reads info().shape.bytes() bytes, rows from top to bottom, and checks them against their
  /// CRC-32C. Throws SampleError naming the shard and the image.
  void read(int image, std::span<std::uint8_t> pixels) const;

  // For `verify`, which wants to know what exactly is damaged.
  /// CRC-32C of the image as it is stored now, and as the table says it was.
  std::uint32_t compute_checksum(int image) const;
  std::uint32_t stored_checksum(int image) const { return entry(image).checksum; }
  /// Where the table of checksums (little endian) begins in the file.
  std::uint64_t checksums_offset() const { return checksums_offset_; }

 private:
  /// What the tables say of one image: side by side, because a shuffled reader finds none of it in
  /// the cache.
  struct Entry {
    std::uint32_t key_begin = 0;  ///< in `keys_`
    std::int32_t label = 0;
    std::uint32_t checksum = 0;
  };
  const Entry& entry(int image) const { return entries_[static_cast<std::size_t>(image)]; }
  void fetch(int image, std::span<std::uint8_t> pixels) const;

  std::filesystem::path file_;
  ShardInfo info_;
  std::string keys_;  ///< one after the other: a string each would take three times as much
  std::vector<Entry> entries_;  ///< one an image; the last one says where the last key ends
  std::uint32_t tables_checksum_ = 0;
  std::uint64_t images_offset_ = 0;
  std::uint64_t checksums_offset_ = 0;
  int fd_ = -1;
};

}  // namespace gp
