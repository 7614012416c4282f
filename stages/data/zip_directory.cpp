#include "stages/data/zip_directory.hpp"

#include <algorithm>

#include "pipeline/error.hpp"
#include "stages/data/byte_reader.hpp"

namespace gp {
namespace {

using namespace std::string_view_literals;

constexpr auto kLocalHeader = "PK\3\4"sv;
constexpr auto kDirectoryHeader = "PK\1\2"sv;
constexpr auto kEnd = "PK\5\6"sv;
constexpr auto kEnd64 = "PK\6\6"sv;
constexpr auto kEnd64Locator = "PK\6\7"sv;
constexpr std::uint64_t kEndSize = 22;
constexpr std::uint64_t kLocatorSize = 20;
constexpr std::uint64_t kEnd64Size = 56;
constexpr std::uint64_t kHeaderSize = 46;
constexpr std::uint32_t kSeeZip64 = 0xFFFFFFFF;
constexpr std::uint16_t kZip64Extra = 1;

[[noreturn]] void fail(const RandomAccessFile& file, const std::string& text) {
  throw DataError(file.path().string() + ": " + text);
}
[[noreturn]] void fail_broken(const RandomAccessFile& file) {
  fail(file, "the zip's directory is damaged; copy the file again, or pack the images again");
}

std::vector<std::uint8_t> read_piece(const RandomAccessFile& file, std::uint64_t offset,
                                     std::uint64_t size) {
  // Before memory is taken.
  const auto end = static_cast<std::uint64_t>(file.size());
  if (offset > end || size > end - offset) fail_broken(file);
  std::vector<std::uint8_t> piece(size);
  piece.resize(file.read(static_cast<std::int64_t>(offset), piece));
  return piece;
}

/// Where the directory lies.
struct Directory {
  std::uint64_t count = 0;
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
};

Directory find_directory(const RandomAccessFile& file) {
  constexpr std::uint64_t kLongestComment = 0xFFFF;
  const auto file_size = static_cast<std::uint64_t>(file.size());
  const std::uint64_t tail_size = std::min(file_size, kEndSize + kLongestComment);
  const std::uint64_t tail_offset = file_size - tail_size;
  const std::vector<std::uint8_t> tail = read_piece(file, tail_offset, tail_size);
  const ByteReader reader(tail);
  // From the end, because members may hold zips.
  for (std::uint64_t at = tail.size() < kEndSize ? 0 : tail.size() - kEndSize + 1; at-- > 0;) {
    if (!reader.starts_with(kEnd, at) || at + kEndSize + *reader.u16(at + 20) > tail.size()) {
      continue;
    }
    Directory found{*reader.u16(at + 10), *reader.u32(at + 12), *reader.u32(at + 16)};
    std::uint32_t disk = *reader.u16(at + 4);
    if (at >= kLocatorSize && reader.starts_with(kEnd64Locator, at - kLocatorSize)) {
      const std::vector<std::uint8_t> end64 =
          read_piece(file, *reader.u64(at - kLocatorSize + 8), kEnd64Size);
      const ByteReader large(end64);
      if (!large.starts_with(kEnd64) || !large.has(0, kEnd64Size)) fail_broken(file);
      found = {*large.u64(32), *large.u64(40), *large.u64(48)};
      disk = *large.u32(16);
    }
    // Far more than ten million names; it is all taken into memory.
    if (found.size > std::uint64_t{1} << 32) fail_broken(file);
    if (disk != 0) fail(file, "is one of several parts of a zip; join them with `zip -s 0`");
    return found;
  }
  fail(file, "the directory at the end of the zip is missing: the file was not copied whole");
}

/// Replaces what does not fit into 32 bits by what the extra field says.
bool read_zip64(const ByteReader& extra, std::uint64_t& size, std::uint64_t compressed,
                std::uint64_t& header) {
  if (size != kSeeZip64 && compressed != kSeeZip64 && header != kSeeZip64) return true;
  for (std::uint64_t at = 0; extra.has(at, 4); at += 4 + *extra.u16(at + 2)) {
    if (*extra.u16(at) != kZip64Extra) continue;
    const std::uint64_t end = at + 4 + *extra.u16(at + 2);
    std::uint64_t next = at + 4;
    for (std::uint64_t* value : {&size, &compressed, &header}) {
      if (*value != kSeeZip64) continue;
      if (next + 8 > end || !extra.has(next, 8)) return false;
      *value = *extra.u64(next);
      next += 8;
    }
    return true;
  }
  return false;
}

}  // namespace

bool is_zip(const RandomAccessFile& file) {
  std::uint8_t first[4] = {};
  const ByteReader reader(std::span(first, file.read(0, first)));
  return reader.starts_with(kLocalHeader) || reader.starts_with(kEnd);  // the latter: empty
}

std::vector<ZipEntry> read_zip_directory(const RandomAccessFile& file) {
  const Directory directory = find_directory(file);
  const std::vector<std::uint8_t> bytes = read_piece(file, directory.offset, directory.size);
  const ByteReader reader(bytes);
  if (directory.count > bytes.size() / kHeaderSize) fail_broken(file);
  std::vector<ZipEntry> entries;
  entries.reserve(directory.count);
  std::uint64_t at = 0;
  while (entries.size() < directory.count) {
    if (!reader.starts_with(kDirectoryHeader, at) || !reader.has(at, kHeaderSize)) {
      fail_broken(file);
    }
    const std::uint64_t name_size = *reader.u16(at + 28);
    const std::uint64_t extra_size = *reader.u16(at + 30);
    const std::uint64_t comment_size = *reader.u16(at + 32);
    std::uint64_t size = *reader.u32(at + 24);
    std::uint64_t header = *reader.u32(at + 42);
    const std::uint64_t name = at + kHeaderSize;
    if (!reader.has(name, name_size + extra_size + comment_size) ||
        !read_zip64(ByteReader(reader.slice(name + name_size, extra_size)), size,
                    *reader.u32(at + 20), header) ||
        header >= static_cast<std::uint64_t>(file.size()) || size > std::uint64_t{1} << 62) {
      fail_broken(file);
    }
    ZipEntry& entry = entries.emplace_back();
    entry.name.assign(reinterpret_cast<const char*>(bytes.data() + name), name_size);
    entry.size = static_cast<std::int64_t>(size);
    entry.header = static_cast<std::int64_t>(header);
    entry.encrypted = (*reader.u16(at + 8) & 1) != 0;
    at = name + name_size + extra_size + comment_size;
  }
  return entries;
}

}  // namespace gp
