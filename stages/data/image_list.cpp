#include "stages/data/image_list.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/csv.hpp"
#include "stages/data/digest.hpp"
#include "stages/data/plain_text.hpp"

namespace gp {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

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

/// The name of each key's class by the folder it lies in; "" for none.
std::vector<std::string> names_from_folders(const std::vector<std::string>& keys) {
  std::vector<std::string> names;
  names.reserve(keys.size());
  for (const std::string& key : keys) {
    const std::size_t slash = key.find('/');
    names.push_back(slash == std::string::npos ? "" : key.substr(0, slash));
  }
  return names;
}

/// Names the classes of keys by a CSV file.
class LabelFile {
 public:
  LabelFile(const std::filesystem::path& path, const std::string& source)
      : path_(path.string()), source_(source), rows_(parse_csv(read_text(path), path_)) {
    if (rows_.empty()) {
      throw DataError(path_ + ": is empty, expected rows such as 'photos/1.jpg,cat'");
    }
    const CsvRow& first = rows_.front();
    for (std::size_t i = 0; i < first.fields.size(); ++i) {
      const std::string name = lower(first.fields[i]);
      if (name == "file" && file_ == kNone) file_ = i;
      if (name == "label" && label_ == kNone) label_ = i;
    }
    // No image is called 'file': all have extensions.
    has_header_ = file_ != kNone && label_ != kNone;
    if (!has_header_) {
      file_ = 0;
      label_ = 1;
    }
  }

  /// The name of each key's class; "" where there is no row.
  std::vector<std::string> names_of(const std::vector<std::string>& keys) const {
    std::vector<std::string> names(keys.size());
    std::vector<std::size_t> lines(keys.size());
    const CsvRow* unknown = nullptr;
    std::size_t n_unknown = 0;
    for (std::size_t r = has_header_ ? 1 : 0; r < rows_.size(); ++r) {
      const CsvRow& row = rows_[r];
      check(row);
      std::string file = row.fields[file_];
      if (file.rfind("./", 0) == 0) file.erase(0, 2);
      const auto place = std::lower_bound(keys.begin(), keys.end(), file);
      if (place == keys.end() || *place != file) {
        if (n_unknown++ == 0) unknown = &row;
        continue;
      }
      const auto key = static_cast<std::size_t>(place - keys.begin());
      if (lines[key] != 0) {
        fail(row, "image '" + file + "' is there already, in line " + std::to_string(lines[key]));
      }
      lines[key] = row.line;
      names[key] = row.fields[label_];
    }
    if (unknown != nullptr) refuse_unknown(*unknown, n_unknown);
    return names;
  }

 private:
  [[noreturn]] void fail(const CsvRow& row, const std::string& text) const {
    throw DataError(path_ + ":" + std::to_string(row.line) + ": " + text);
  }

  void check(const CsvRow& row) const {
    const std::size_t expected = has_header_ ? rows_.front().fields.size() : 2;
    if (row.fields.size() != expected) {
      const std::string like = has_header_ ? "as in the first row" : "file and label";
      fail(row, std::to_string(row.fields.size()) + " columns, expected " +
                    std::to_string(expected) + ", " + like + ", with commas between them" +
                    (&row == &rows_.front()
                         ? "; with more columns the first row must name those called file and label"
                         : ""));
    }
    const std::string& label = row.fields[label_];
    if (label.empty()) fail(row, "the label is empty");
    if (!is_plain_text(label)) fail(row, "the label holds control characters");
    if (label.front() == ' ' || label.back() == ' ') {
      fail(row, "the label '" + label + "' begins or ends with a blank; remove it");
    }
  }

  [[noreturn]] void refuse_unknown(const CsvRow& row, std::size_t count) const {
    std::string text = "there is no image '" + row.fields[file_] + "' in " + source_;
    if (count > 1) text += " (nor those of " + std::to_string(count - 1) + " more rows)";
    text += "; expected paths below it, with '/' between folders";
    if (&row == &rows_.front()) {
      text += ". If this row names the columns, call them file and label";
    }
    fail(row, text);
  }

  std::string path_;
  const std::string& source_;
  std::vector<CsvRow> rows_;
  bool has_header_ = false;
  std::size_t file_ = kNone;
  std::size_t label_ = kNone;
};

bool is_whole_number(const std::string& text) {
  return text.find_first_not_of("0123456789") == std::string::npos &&
         (text.front() != '0' || text.size() == 1);
}

}  // namespace

bool ImageListOptions::accepts(const std::string& name) const {
  const std::size_t dot = name.rfind('.');
  return dot != std::string::npos && std::find(extensions.begin(), extensions.end(),
                                               lower(name.substr(dot + 1))) != extensions.end();
}

void add_image_list_params(ParamSchema& params) {
  params
      .choice("labels", "folders", {"folders", "none"},
              "folders: the folders directly below the root are the classes")
      .path("label_file",
            "CSV with the columns file (path below the root) and label (name of a class), to be "
            "used instead of folders")
      .maybe()
      .choice("unlisted", "refuse", {"refuse", "skip", "keep"},
              "images without a row in label_file: an error, left out, or kept with label -1")
      .text("extensions", "jpg,jpeg,png,webp,bmp,tif,tiff",
            "which files are taken, by the ends of their names in any case");
}

void read_image_list_params(const Params& params, ImageListOptions& options) {
  options.labels = params.text("labels") == "folders";
  options.extensions = parse_extensions(params.text("extensions"));
  if (options.extensions.empty()) {
    throw ConfigError("extensions = '" + params.text("extensions") +
                      "' names no extension; expected a list such as 'jpg,png'");
  }
  if (params.has("label_file")) {
    options.label_file = params.text("label_file");
    if (!options.labels) {
      throw ConfigError("labels: none and a label_file exclude each other; remove one");
    }
  }
  const std::string& unlisted = params.text("unlisted");
  options.unlisted = unlisted == "skip"   ? Unlisted::kSkip
                     : unlisted == "keep" ? Unlisted::kKeep
                                          : Unlisted::kRefuse;
  if (options.unlisted != Unlisted::kRefuse && options.label_file.empty()) {
    throw ConfigError("unlisted: " + unlisted +
                      " is about a label_file; give one, or leave it out");
  }
}

std::vector<std::size_t> ImageListSource::set_images(std::vector<std::string> keys,
                                                     const ImageListOptions& options,
                                                     const std::string& where) {
  listed_labels_ = !options.label_file.empty();
  std::vector<std::string> names(keys.size());
  if (listed_labels_) {
    names = LabelFile(options.label_file, where).names_of(keys);
  } else if (options.labels) {
    names = names_from_folders(keys);
  }
  const auto missing = static_cast<std::size_t>(std::count(names.begin(), names.end(), ""));
  if (listed_labels_ && missing > 0 && options.unlisted == Unlisted::kRefuse) {
    const auto first = std::find(names.begin(), names.end(), "") - names.begin();
    throw DataError(options.label_file.string() + ": no rows for " + std::to_string(missing) +
                    " of the " + std::to_string(keys.size()) + " images in " + where +
                    ", the first is '" + keys[static_cast<std::size_t>(first)] +
                    "'; add rows, or set unlisted: skip to leave them out or unlisted: keep to "
                    "give them the label -1");
  }
  if (listed_labels_ && missing == keys.size() && options.unlisted == Unlisted::kSkip) {
    throw DataError(options.label_file.string() + ": names no image of " + where);
  }
  std::set<std::string> classes(names.begin(), names.end());
  classes.erase("");
  classes_.assign(classes.begin(), classes.end());
  if (listed_labels_ && std::all_of(classes.begin(), classes.end(), is_whole_number)) {
    // Their order so far is that of numbers with as many digits.
    std::stable_sort(
        classes_.begin(), classes_.end(),
        [](const std::string& a, const std::string& b) { return a.size() < b.size(); });
  }
  std::map<std::string, std::int32_t> labels{{"", -1}};
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    labels.emplace(classes_[i], static_cast<std::int32_t>(i));
  }
  std::vector<std::size_t> offered;
  offered.reserve(keys.size());
  items_.reserve(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (listed_labels_ && names[i].empty() && options.unlisted == Unlisted::kSkip) continue;
    items_.push_back({std::move(keys[i]), labels.at(names[i])});
    offered.push_back(i);
  }
  return offered;
}

std::string ImageListSource::digest() const {
  std::vector<DigestItem> items;
  items.reserve(items_.size());
  for (std::uint64_t i = 0; i < items_.size(); ++i) items.emplace_back(items_[i].key, byte_size(i));
  Sha256 sha;
  digest_items(std::move(items), sha);
  // Labels by folders follow from the keys, unless they are off.
  for (const std::string& name : classes_) sha.update(name + "\n");
  if (listed_labels_) {
    for (const Item& item : items_) sha.update(std::to_string(item.label) + "\n");
  }
  return sha.hex();
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace gp
