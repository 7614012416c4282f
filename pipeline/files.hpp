#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gp {

/// Writes to a temporary name in the same folder, fsyncs, renames, fsyncs the folder: after a crash
/// there is the old file or the new one. Throws RunError.
void write_file(const std::filesystem::path& path, std::span<const std::uint8_t> bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

/// Appends one line and flushes it to the kernel. Throws RunError; the file then ends with its last
/// whole line. A torn line that a crash left at the end is cut off first.
void append_line(const std::filesystem::path& path, std::string_view line);

/// What was written to it is on the disk afterwards. Throws RunError.
void sync_file(const std::filesystem::path& path);

/// Makes a folder and those above it; one that is there is fine. Throws RunError.
void make_folders(const std::filesystem::path& path);

/// What an error number of writing says, and what to do: "No space left on device; make room, or
/// choose another place".
std::string write_failure(int error);

/// Whole file. Throws DataError. The second form recycles the buffer.
std::vector<std::uint8_t> read_file(const std::filesystem::path& path);
void read_file(const std::filesystem::path& path, std::vector<std::uint8_t>& bytes);
std::string read_text(const std::filesystem::path& path);

/// SHA-256 (OpenSSL), fed piece by piece; lower-case hex.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::string_view bytes);
  void update(std::span<const std::uint8_t> bytes);
  std::string hex();  ///< ends it

 private:
  struct State;
  std::unique_ptr<State> state_;
};
std::string sha256_hex(std::string_view bytes);
std::string sha256_file(const std::filesystem::path& path);

}  // namespace gp
