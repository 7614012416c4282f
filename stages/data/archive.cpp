#include "stages/data/archive.hpp"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include "pipeline/error.hpp"
#include "stages/data/read_item.hpp"
#include "stages/data/zip_directory.hpp"

namespace gp {
namespace {

/// Without empty parts, "." and "..".
std::string normalized(const std::string& path) {
  std::string result;
  for (std::size_t from = 0; from <= path.size();) {
    const std::size_t end = std::min(path.find('/', from), path.size());
    const std::string part = path.substr(from, end - from);
    from = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      const std::size_t slash = result.rfind('/');
      result.erase(slash == std::string::npos ? 0 : slash);
      continue;
    }
    result += (result.empty() ? "" : "/") + part;
  }
  return result;
}

constexpr const char* kNowhere = "/";  // no member's path

/// The member that a link leads to.
std::string link_to(const std::string& target) {
  const std::string path = normalized(target);
  return path.empty() ? kNowhere : path;
}

std::string text_or_empty(const char* text) { return text != nullptr ? text : ""; }

[[noreturn]] void fail_too_large(const std::filesystem::path& path, std::int64_t max_unpacked) {
  std::ostringstream text;
  text << path.string() << ": unpacked it is larger than max_unpacked = "
       << static_cast<double>(max_unpacked) / 0x1p30
       << " GiB. A compressed tar cannot be read in any order, so it is unpacked to a temporary "
          "file. Raise max_unpacked, or unpack it yourself (`tar -xf`) and use source.folder";
  throw DataError(text.str());
}

/// Writes the member that libarchive stands at to [begin, end) of a file. False: see its error.
bool unpack(struct archive* archive, std::int64_t begin, std::int64_t end, RandomAccessFile& to) {
  const void* data = nullptr;
  std::size_t size = 0;
  la_int64_t offset = 0;
  int status = ARCHIVE_OK;
  while ((status = archive_read_data_block(archive, &data, &size, &offset)) == ARCHIVE_OK) {
    to.write(begin + offset, {static_cast<const std::uint8_t*>(data), size});
  }
  // A sparse file may end with a hole.
  const std::uint8_t zero = 0;
  if (status == ARCHIVE_EOF && to.size() < end) to.write(end - 1, {&zero, 1});
  return status == ARCHIVE_EOF;
}

}  // namespace

/// A member before links are followed.
struct Archive::Found {
  Member member;
  std::string link = {};  ///< the member that it stands for
};

/// libarchive at work on a file, from an offset of it on.
class Archive::Reader {
 public:
  Reader(const RandomAccessFile& file, std::int64_t offset)
      : file_(file), position_(offset), archive_(archive_read_new()) {
    if (archive_ == nullptr) throw std::bad_alloc();
  }
  ~Reader() { archive_read_free(archive_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  struct archive* get() {
    return archive_;
  }
  int open() { return archive_read_open2(archive_, this, nullptr, fill, skip, nullptr); }
  /// From now on, bytes a time.
  void set_block_size(std::size_t bytes) { block_size_ = bytes; }
  std::string error() const {
    const char* text = archive_error_string(archive_);
    return text != nullptr ? text : "unknown error";
  }

 private:
  static la_ssize_t fill(struct archive* archive, void* pointer, const void** buffer) {
    auto& self = *static_cast<Reader*>(pointer);
    // Nothing may be thrown through libarchive's frames.
    try {
      self.block_.resize(self.block_size_);
      const std::size_t got = self.file_.read(self.position_, self.block_);
      self.position_ += static_cast<std::int64_t>(got);
      *buffer = self.block_.data();
      return static_cast<la_ssize_t>(got);
    } catch (const std::exception& error) {
      archive_set_error(archive, EIO, "%s", error.what());
      return ARCHIVE_FATAL;
    }
  }
  static la_int64_t skip(struct archive* /*archive*/, void* pointer, la_int64_t bytes) {
    auto& self = *static_cast<Reader*>(pointer);
    const std::int64_t left = self.file_.size() - self.position_;
    const std::int64_t step = std::clamp<std::int64_t>(left, 0, bytes);
    self.position_ += step;
    return step;
  }

  const RandomAccessFile& file_;
  std::int64_t position_;
  std::size_t block_size_ = 4096;
  std::vector<std::uint8_t> block_;
  struct archive* archive_;
};

std::shared_ptr<const Archive> Archive::open(const std::filesystem::path& path,
                                             std::int64_t max_unpacked) {
  // An evaluation opens the data of its training again, which for a large archive takes long.
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const Archive>> opened;
  RandomAccessFile file(path);
  const std::lock_guard lock(mutex);
  std::weak_ptr<const Archive>& known = opened[file.identity()];
  std::shared_ptr<const Archive> archive = known.lock();
  if (!archive) {
    archive.reset(new Archive(std::move(file), max_unpacked));
    known = archive;
  }
  return archive;
}

Archive::Archive(RandomAccessFile file, std::int64_t max_unpacked)
    : path_(file.path()), file_(std::move(file)), zip_(is_zip(file_)) {
  set_members(zip_ ? list_zip() : list_tar(max_unpacked));
}

std::vector<Archive::Found> Archive::list_tar(std::int64_t max_unpacked) {
  Reader reader(file_, 0);
  struct archive* const archive = reader.get();
  archive_read_support_format_tar(archive);
  // Others are left out, because libarchive would run programs for them.
  archive_read_support_filter_gzip(archive);
  archive_read_support_filter_bzip2(archive);
  archive_read_support_filter_xz(archive);
  archive_read_support_filter_zstd(archive);
  archive_read_support_filter_lz4(archive);
  // Names stay the bytes that they are, whatever the locale.
  archive_read_set_option(archive, "tar", "hdrcharset", "BINARY");

  std::vector<Found> found;
  const auto fail = [&] {
    throw DataError(path_.string() + ": " + reader.error() + ", after " +
                    std::to_string(found.size()) +
                    " members: the archive is damaged or was not copied whole; copy it again");
  };
  const int opened = reader.open();
  const bool packed = archive_filter_count(archive) > 1;
  if (packed) reader.set_block_size(std::size_t{1} << 18);
  std::optional<RandomAccessFile> unpacked;
  if (packed) unpacked = RandomAccessFile::temporary();
  std::int64_t end = 0;  // of what is unpacked
  for (archive_entry* entry = nullptr;;) {
    const int status = opened == ARCHIVE_OK ? archive_read_next_header(archive, &entry) : opened;
    if (status == ARCHIVE_EOF) break;
    if (status < ARCHIVE_WARN && archive_format(archive) == 0) {
      throw DataError(path_.string() +
                      ": is neither a zip nor a tar (plain, or compressed by gzip, bzip2, xz, zstd "
                      "or lz4)");
    }
    // A warning is about names that are not ASCII.
    if (status < ARCHIVE_WARN) fail();
    const std::string path = normalized(text_or_empty(archive_entry_pathname(entry)));
    const std::string hard_link = text_or_empty(archive_entry_hardlink(entry));
    const std::string symbolic_link = text_or_empty(archive_entry_symlink(entry));
    Member member{path, archive_entry_size(entry), 0, nullptr};
    if (!hard_link.empty()) {
      found.push_back({std::move(member), link_to(hard_link)});
      continue;
    }
    if (!symbolic_link.empty()) {
      const bool absolute = symbolic_link.front() == '/';
      found.push_back(
          {std::move(member), absolute ? kNowhere : link_to(path + "/../" + symbolic_link)});
      continue;
    }
    if (archive_entry_filetype(entry) != AE_IFREG) continue;
    if (unpacked) {
      member.offset = end;
      if (member.size > max_unpacked - end) fail_too_large(path_, max_unpacked);
      end += member.size;
      if (!unpack(archive, member.offset, end, *unpacked)) fail();
    } else {
      // Right behind the header that was read last.
      member.offset = archive_filter_bytes(archive, 0);
      if (archive_entry_sparse_count(entry) > 0) {
        member.fault = "is stored as a sparse file; pack the images again without --sparse";
      }
    }
    found.push_back({std::move(member)});
  }
  if (unpacked) file_ = std::move(*unpacked);
  return found;
}

std::vector<Archive::Found> Archive::list_zip() const {
  std::vector<Found> found;
  for (ZipEntry& entry : read_zip_directory(file_)) {
    if (entry.encrypted) {
      throw DataError(path_.string() + ": '" + entry.name +
                      "' is encrypted; unpack the zip with its password and use source.folder");
    }
    // Some programs write Windows' paths.
    if (entry.name.find('/') == std::string::npos) {
      std::replace(entry.name.begin(), entry.name.end(), '\\', '/');
    }
    if (entry.name.empty() || entry.name.back() == '/') continue;
    found.push_back({{normalized(entry.name), entry.size, entry.header, nullptr}});
  }
  return found;
}

void Archive::set_members(std::vector<Found> found) {
  const auto by_path = [](const Found& a, const Found& b) { return a.member.path < b.member.path; };
  std::stable_sort(found.begin(), found.end(), by_path);
  // Of equal paths the last one stays.
  const auto first = std::unique(found.rbegin(), found.rend(), [](const Found& a, const Found& b) {
    return a.member.path == b.member.path;
  });
  found.erase(found.begin(), first.base());
  const auto find = [&](const std::string& path) {
    const auto place = std::lower_bound(found.begin(), found.end(), Found{{path}}, by_path);
    return place != found.end() && place->member.path == path ? &*place : nullptr;
  };
  members_.reserve(found.size());
  for (const Found& each : found) {
    if (each.member.path.empty()) continue;
    Member& member = members_.emplace_back(each.member);
    constexpr int kMostLinks = 16;  // to a link to a link.. ; they may go round in a circle
    const Found* target = &each;
    for (int i = 0; target != nullptr && !target->link.empty(); ++i) {
      target = i < kMostLinks ? find(target->link) : nullptr;
    }
    if (target == nullptr) {
      member.fault = "is a link to something that is not in the archive";
    } else {
      member.size = target->member.size;
      member.offset = target->member.offset;
      member.fault = target->member.fault;
    }
    if (member.fault != nullptr) member.size = -1;
  }
}

void Archive::read(const Member& member, std::vector<std::uint8_t>& bytes) const {
  const auto fail = [this](const std::string& what) {
    throw SampleError(what + " (in " + path_.filename().string() + ")");
  };
  bytes.clear();
  if (member.fault != nullptr) fail(std::string("it ") + member.fault);
  if (member.size > kLargestItem) fail("it is larger than 1 GiB");
  const auto size = static_cast<std::size_t>(member.size);
  try {
    if (!zip_) {
      bytes.resize(size);
      if (file_.read(member.offset, bytes) != size) fail("the archive has become shorter");
      return;
    }
    Reader reader(file_, member.offset);
    reader.set_block_size(std::size_t{1} << 14);
    struct archive* const archive = reader.get();
    archive_read_support_format_zip_streamable(archive);
    archive_entry* entry = nullptr;
    int status = reader.open();
    if (status == ARCHIVE_OK) status = archive_read_next_header(archive, &entry);
    if (status < ARCHIVE_WARN) fail(reader.error());
    const void* data = nullptr;
    std::size_t got = 0;
    la_int64_t offset = 0;
    while ((status = archive_read_data_block(archive, &data, &got, &offset)) == ARCHIVE_OK) {
      if (got > size - bytes.size()) fail("it is larger than the zip's directory says");
      const auto* from = static_cast<const std::uint8_t*>(data);
      bytes.insert(bytes.end(), from, from + got);
    }
    if (status != ARCHIVE_EOF) fail(reader.error());
    if (bytes.size() != size) fail("it is smaller than the zip's directory says");
  } catch (const DataError& error) {
    fail(error.what());
  }
}

}  // namespace gp
