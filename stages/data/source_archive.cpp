#include <cmath>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "stages/data/archive.hpp"
#include "stages/data/image_list.hpp"
#include "stages/data/plain_text.hpp"
#include "stages/data/stages.hpp"

namespace gp {
namespace {

struct ArchiveOptions : ImageListOptions {
  std::string folder;
  std::int64_t max_unpacked = 0;  ///< bytes
};

/// The images in a tar or zip, as bytes: those that source.folder would find once it is unpacked,
/// with the same keys, labels, order and digest. Thread-safe; holds a table of all members.
class ArchiveSource : public ImageListSource {
 public:
  ArchiveSource(const std::filesystem::path& path, const ArchiveOptions& options) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
      throw DataError("there is no archive " + path.string() +
                      "; give one by 'root:' or --set stages.source.archive.root=FILE");
    }
    if (std::filesystem::is_directory(path, error)) {
      throw DataError(path.string() +
                      " is a folder, expected a tar or zip; for folders there is "
                      "source.folder");
    }
    archive_ = Archive::open(path, options.max_unpacked);
    std::vector<std::string> keys;
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < archive_->members().size(); ++i) {
      const std::string& member = archive_->members()[i].path;
      if (member.compare(0, options.folder.size(), options.folder) != 0) continue;
      std::string key = member.substr(options.folder.size());
      const std::string name = key.substr(key.rfind('/') + 1);
      if (is_hidden(key) || !options.accepts(name)) continue;
      if (!is_plain_text(key)) {
        throw DataError(path.string() + ": the name '" + member +
                        "' is not UTF-8 or holds control characters; pack the images again under "
                        "other names");
      }
      keys.push_back(std::move(key));
      members.push_back(i);
    }
    if (keys.empty()) {
      throw DataError("no images in " + path.string() +
                      (options.folder.empty() ? "" : " below '" + options.folder + "'") +
                      " (looked for " + join(options.extensions) + " among " +
                      std::to_string(archive_->members().size()) + " files)");
    }
    for (const std::size_t index : set_images(std::move(keys), options, path.string())) {
      members_.push_back(members[index]);
    }
  }

  void read(std::uint64_t item, StageOutput& out) const override {
    archive_->read(archive_->members()[members_.at(item)], out.bytes());
  }

 private:
  std::int64_t byte_size(std::uint64_t item) const override {
    return archive_->members()[members_[item]].size;
  }
  /// Names that begin with a dot, such as what macOS puts beside each file, and what lies below.
  static bool is_hidden(const std::string& key) {
    return key.front() == '.' || key.find("/.") != std::string::npos;
  }

  std::shared_ptr<const Archive> archive_;
  std::vector<std::size_t> members_;  ///< of each item
};

}  // namespace

StageInfo source_archive_info() {
  StageInfo info;
  info.name = "source.archive";
  info.doc = "Image files in a tar or zip, as source.folder would give them once it is unpacked.";
  info.in = Kind::kNothing;
  info.out = Kind::kBytes;
  info.params
      .path("root",
            "the file: zip, tar, or tar compressed by gzip, bzip2, xz, zstd or lz4 (which is "
            "unpacked to a temporary file when opened)")
      .text("folder", "", "only what lies below this folder of the archive, which is then the root")
      .real("max_unpacked", 16, "GiB that a compressed tar may take in the temporary file", 0.001,
            65536);
  add_image_list_params(info.params);
  info.create = [](const Params& params) {
    ArchiveOptions options;
    options.folder = params.text("folder");
    while (!options.folder.empty() && options.folder.back() == '/') options.folder.pop_back();
    if (!options.folder.empty()) options.folder += '/';
    options.max_unpacked = std::llround(params.real("max_unpacked") * 0x1p30);
    read_image_list_params(params, options);
    return std::make_unique<ArchiveSource>(params.text("root"), options);
  };
  return info;
}

}  // namespace gp
