#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace gp {

/// A file that any number of threads read at any offset at once (pread).
class RandomAccessFile {
 public:
  /// Throws DataError when there is no such file, or it is a folder, a pipe or the like.
  explicit RandomAccessFile(const std::filesystem::path& path);
  /// An empty file without a name in the system's folder for temporary files; gone with the object.
  /// Throws RunError.
  static RandomAccessFile temporary();
  ~RandomAccessFile();
  RandomAccessFile(RandomAccessFile&& other) noexcept;
  RandomAccessFile& operator=(RandomAccessFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  /// Bytes: when it was opened, and what was written since.
  std::int64_t size() const { return size_; }
  /// Tells files, and their states, apart on one machine.
  const std::string& identity() const { return identity_; }
  /// Fills `bytes`, but for what lies behind the end of the file; returns how many it got. Throws
  /// DataError.
  std::size_t read(std::int64_t offset, std::span<std::uint8_t> bytes) const;
  /// Throws RunError, for want of space say.
  void write(std::int64_t offset, std::span<const std::uint8_t> bytes);

 private:
  RandomAccessFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_ = -1;
  std::int64_t size_ = 0;
  std::string identity_;
};

}  // namespace gp
