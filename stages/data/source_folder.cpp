#include "stages/data/source_folder.hpp"

#include <algorithm>
#include <set>

#include "pipeline/error.hpp"
#include "stages/data/digest.hpp"
#include "stages/data/read_item.hpp"
#include "stages/data/stages.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  // Not tolower(): it depends on the locale.
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

/// Well-formed UTF-8 without control characters: what may stand in a list with tabs and lines, in
/// JSON and in HDF5.
bool is_plain_text(const std::string& text) {
  const auto* byte = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* end = byte + text.size();
  while (byte < end) {
    const unsigned lead = *byte++;
    if (lead < 0x80) {
      if (lead < 0x20 || lead == 0x7F) return false;
      continue;
    }
    const int more = lead >= 0xC2 && lead <= 0xDF   ? 1
                     : (lead & 0xF0) == 0xE0        ? 2
                     : lead >= 0xF0 && lead <= 0xF4 ? 3
                                                    : 0;
    if (more == 0 || end - byte < more) return false;
    // The second byte rules out overlong forms, surrogates and what is above U+10FFFF.
    if ((lead == 0xE0 && byte[0] < 0xA0) || (lead == 0xED && byte[0] > 0x9F) ||
        (lead == 0xF0 && byte[0] < 0x90) || (lead == 0xF4 && byte[0] > 0x8F)) {
      return false;
    }
    for (int i = 0; i < more; ++i) {
      if ((*byte++ & 0xC0) != 0x80) return false;
    }
  }
  return true;
}

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
    const bool wanted = folder ? options_.recursive : file && has_extension(entry.path());
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

  bool has_extension(const fs::path& path) const {
    const std::string extension = lower(path.extension().string());
    return !extension.empty() && std::find(options_.extensions.begin(), options_.extensions.end(),
                                           extension.substr(1)) != options_.extensions.end();
  }

  const FolderOptions& options_;
  std::vector<fs::path> above_;  ///< real paths of the folders that are being visited
};

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::vector<std::string> parse_extensions(const std::string& text) {
  std::vector<std::string> extensions;
  std::string word;
  for (const char c : text + ",") {
    if (c == ' ' || c == '.') continue;
    if (c != ',') {
      word += c;
    } else if (!word.empty()) {
      extensions.push_back(lower(word));
      word.clear();
    }
  }
  return extensions;
}

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

  const auto class_of = [&options](const std::string& key) {
    const std::size_t slash = key.find('/');
    return options.labels && slash != std::string::npos ? key.substr(0, slash) : std::string();
  };
  std::set<std::string> names;
  for (const std::string& key : walk.keys) names.insert(class_of(key));
  names.erase("");
  classes_.assign(names.begin(), names.end());
  items_.reserve(walk.keys.size());
  for (std::string& key : walk.keys) {
    const std::string name = class_of(key);
    const auto place = std::lower_bound(classes_.begin(), classes_.end(), name);
    const auto label = name.empty() ? -1 : static_cast<std::int32_t>(place - classes_.begin());
    items_.push_back({std::move(key), label});
  }
}

void FolderSource::read(std::uint64_t item, StageOutput& out) const {
  read_item(root_ / items_.at(item).key, out);
}

std::string FolderSource::digest() const {
  std::vector<DigestItem> items;
  items.reserve(items_.size());
  for (const Item& item : items_) items.emplace_back(item.key, file_size_or_none(root_ / item.key));
  Sha256 sha;
  digest_items(std::move(items), sha);
  // The labels follow from the keys, unless they are off.
  for (const std::string& name : classes_) sha.update(name + "\n");
  return sha.hex();
}

StageInfo source_folder_info() {
  StageInfo info;
  info.name = "source.folder";
  info.doc = "Image files of any folder, in the order of their paths.";
  info.in = Kind::kNothing;
  info.out = Kind::kBytes;
  info.params.path("root", "the folder")
      .flag("recursive", true, "whether folders below the root are searched too")
      .choice("labels", "folders", {"folders", "none"},
              "folders: the folders directly below the root are the classes")
      .text("extensions", "jpg,jpeg,png,webp,bmp,tif,tiff",
            "which files are taken, by the ends of their names in any case");
  info.create = [](const Params& params) {
    FolderOptions options;
    options.recursive = params.flag("recursive");
    options.labels = params.text("labels") == "folders";
    options.extensions = parse_extensions(params.text("extensions"));
    if (options.extensions.empty()) {
      throw ConfigError("extensions = '" + params.text("extensions") +
                        "' names no extension; expected a list such as 'jpg,png'");
    }
    return std::make_unique<FolderSource>(params.text("root"), options);
  };
  return info;
}

}  // namespace gp
