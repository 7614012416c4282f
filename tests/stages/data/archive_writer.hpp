#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace gp::testing {

/// Writes archives with libarchive, member by member.
class ArchiveWriter {
 public:
  /// `format`: "ustar", "pax", "gnutar" or "zip"; `filter`: "none", "gzip", "zstd"..; `options` as
  /// libarchive takes them, such as "zip:compression=store".
  ArchiveWriter(const std::filesystem::path& path, const std::string& format,
                const std::string& filter = "none", const std::string& options = "")
      : archive_(archive_write_new()) {
    check(archive_write_set_format_by_name(archive_, format.c_str()));
    if (filter != "none") check(archive_write_add_filter_by_name(archive_, filter.c_str()));
    if (!options.empty()) check(archive_write_set_options(archive_, options.c_str()));
    // Names stay the bytes that they are, whatever the locale.
    archive_write_set_format_option(archive_, format.c_str(), "hdrcharset", "BINARY");
    check(archive_write_open_filename(archive_, path.c_str()));
  }
  ~ArchiveWriter() { archive_write_free(archive_); }
  ArchiveWriter(const ArchiveWriter&) = delete;
  ArchiveWriter& operator=(const ArchiveWriter&) = delete;

  void file(const std::string& path, const std::string& data) {
    header(path, AE_IFREG, data.size(), "", "");
    if (archive_write_data(archive_, data.data(), data.size()) < 0) fail();
  }
  void folder(const std::string& path) { header(path, AE_IFDIR, 0, "", ""); }
  void hard_link(const std::string& path, const std::string& target) {
    header(path, AE_IFREG, 0, target, "");
  }
  void symbolic_link(const std::string& path, const std::string& target) {
    header(path, AE_IFLNK, 0, "", target);
  }
  /// Without it a destructor would hide that the disk is full.
  void close() { check(archive_write_close(archive_)); }

 private:
  void header(const std::string& path, unsigned type, std::size_t size,
              const std::string& hard_link, const std::string& symbolic_link) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, path.c_str());
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(size));
    if (!hard_link.empty()) archive_entry_set_hardlink(entry, hard_link.c_str());
    if (!symbolic_link.empty()) archive_entry_set_symlink(entry, symbolic_link.c_str());
    const int status = archive_write_header(archive_, entry);
    archive_entry_free(entry);
    if (status < ARCHIVE_WARN) fail();
  }
  void check(int status) {
    if (status < ARCHIVE_WARN) fail();
  }
  [[noreturn]] void fail() {
    const char* text = archive_error_string(archive_);
    throw std::runtime_error(text != nullptr ? text : "libarchive failed");
  }

  struct archive* archive_;
};

}  // namespace gp::testing
