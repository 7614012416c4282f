#include "stages/data/source_folder.hpp"

#include <algorithm>

#include "pipeline/error.hpp"
#include "stages/data/plain_text.hpp"
#include "stages/data/read_item.hpp"
#include "stages/data/stages.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// Collects the keys of all images below a folder.
class Walk {
 public:
  explicit Walk(const FolderOptions& options) : options_(options) {}

  void visit(const fs::path& folder, const std::string& prefix) {
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    if (error) fail(folder, error);
    if (std::find(above_.begin(), above_.end(), real) != above_.end()) {
      throw DataError(folder.string() + " is a link back to " + real.string() +
                      ", which it lies in; remove it");
    }
    above_.push_back(real);
    fs::directory_iterator entry(folder, error);
    if (error) fail(folder, error);
    while (entry != fs::directory_iterator()) {
      visit_entry(*entry, prefix);
      entry.increment(error);
      if (error) fail(folder, error);
    }
    above_.pop_back();
  }

  std::vector<std::string> keys;

 private:
  [[noreturn]] static void fail(const fs::path& folder, const std::error_code& error) {
    throw DataError("cannot read the folder " + folder.string() + ": " + error.message());
  }

  void visit_entry(const fs::directory_entry& entry, const std::string& prefix) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.') return;
    std::error_code error;
    const fs::file_status status = entry.status(error);
    const bool folder = fs::is_directory(status);
    // What cannot be followed to its end is offered, so that it shows up as a bad sample.
    const bool file = fs::is_regular_file(status) || !fs::exists(status);
    const bool wanted = folder ? options_.recursive : file && options_.accepts(name);
    if (!wanted) return;
    if (!is_plain_text(name)) {
      throw DataError("the name " + entry.path().string() +
                      " is not UTF-8 or holds control characters; rename it");
    }
    if (folder) {
      visit(entry.path(), prefix + name + "/");
    } else {
      keys.push_back(prefix + name);
    }
  }

  const FolderOptions& options_;
  std::vector<fs::path> above_;  ///< real paths of the folders that are being visited
};

}  // namespace

FolderSource::FolderSource(const std::filesystem::path& root, const FolderOptions& options)
    : root_(root) {
  std::error_code error;
  if (!fs::is_directory(root, error)) {
    throw DataError("there is no folder " + root.string() +
                    "; give one by 'root:' or --set stages.source.folder.root=DIR");
  }
  Walk walk(options);
  walk.visit(root, "");
  if (walk.keys.empty()) {
    throw DataError("no images in " + root.string() + " (looked for " + join(options.extensions) +
                    (options.recursive ? ", in all folders below too)"
                                       : ", not in folders below: recursive is false)"));
  }
  std::sort(walk.keys.begin(), walk.keys.end());
  set_images(std::move(walk.keys), options, root.string());
}

void FolderSource::read(std::uint64_t item, StageOutput& out) const {
  read_item(root_ / key(item), out);
}

std::int64_t FolderSource::byte_size(std::uint64_t item) const {
  return file_size_or_none(root_ / key(item));
}

StageInfo source_folder_info() {
  StageInfo info;
  info.name = "source.folder";
  info.doc = "Image files of any folder, in the order of their paths.";
  info.in = Kind::kNothing;
  info.out = Kind::kBytes;
  info.params.path("root", "the folder")
      .flag("recursive", true, "whether folders below the root are searched too");
  add_image_list_params(info.params);
  info.create = [](const Params& params) {
    FolderOptions options;
    options.recursive = params.flag("recursive");
    read_image_list_params(params, options);
    return std::make_unique<FolderSource>(params.text("root"), options);
  };
  return info;
}

}  // namespace gp
