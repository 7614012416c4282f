#include "stages/data/source_fgvc.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/digest.hpp"
#include "stages/data/read_item.hpp"
#include "stages/data/stages.hpp"

namespace gp {
namespace {

constexpr const char* kHowToGetIt =
    "\nFGVC-Aircraft is published at https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/ "
    "(fgvc-aircraft-2013b.tar.gz, 2.75 GB).\nUnpack it, so that there are\n"
    "  ROOT/data/images/*.jpg\n"
    "  ROOT/data/variants.txt, families.txt, manufacturers.txt\n"
    "  ROOT/data/images_{variant,family,manufacturer}_{train,val,trainval,test}.txt\n"
    "with ROOT as given by 'root:' of source.fgvc, or by --set stages.source.fgvc.root=ROOT";

/// The lines of a text file, without their ends ("\n" or "\r\n").
std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  const std::string text = read_text(path);
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = std::min(text.find('\n', from), text.size());
    const std::size_t length = end - from;
    const bool carriage_return = length > 0 && text[end - 1] == '\r';
    lines.push_back(text.substr(from, length - (carriage_return ? 1 : 0)));
    from = end + 1;
  }
  return lines;
}

[[noreturn]] void fail(const std::filesystem::path& path, std::size_t index,
                       const std::string& text) {
  throw DataError(path.string() + ":" + std::to_string(index + 1) + ": " + text);
}

/// An image's number becomes part of a path, so it may hold nothing else.
bool is_image_id(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
  });
}

void check_layout(const std::filesystem::path& root, const std::filesystem::path& images,
                  const std::filesystem::path& classes, const std::filesystem::path& list) {
  std::error_code error;
  std::string missing;
  if (!std::filesystem::is_directory(root, error)) {
    missing = "there is no folder " + root.string();
  } else if (!std::filesystem::is_directory(images, error)) {
    missing = "the folder " + images.string() + " is missing";
    if (std::filesystem::is_directory(root / "images", error)) {
      missing += " (is the root the folder above, " + root.parent_path().string() + "?)";
    }
  } else if (!std::filesystem::is_regular_file(classes, error)) {
    missing = "the list of classes " + classes.string() + " is missing";
  } else if (!std::filesystem::is_regular_file(list, error)) {
    missing = "the list of images " + list.string() + " is missing";
  } else {
    return;
  }
  throw DataError("FGVC-Aircraft is not there: " + missing + kHowToGetIt);
}

}  // namespace

FgvcSource::FgvcSource(const std::filesystem::path& root, const std::string& split,
                       const std::string& labels) {
  static const std::map<std::string, std::string> kClassFiles = {
      {"variant", "variants.txt"},
      {"family", "families.txt"},
      {"manufacturer", "manufacturers.txt"}};
  const std::filesystem::path data = root / "data";
  images_ = data / "images";
  class_file_ = data / kClassFiles.at(labels);
  list_file_ = data / ("images_" + labels + "_" + split + ".txt");
  check_layout(root, images_, class_file_, list_file_);
  read_classes(class_file_);
  read_items(list_file_);
}

void FgvcSource::read_classes(const std::filesystem::path& path) {
  classes_ = read_lines(path);
  std::unordered_map<std::string, std::size_t> seen;
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    if (classes_[i].empty()) fail(path, i, "an empty line, expected the name of a class");
    const auto [first, is_new] = seen.emplace(classes_[i], i);
    if (!is_new) {
      fail(path, i,
           "class '" + classes_[i] + "' is there already, in line " +
               std::to_string(first->second + 1));
    }
  }
  if (classes_.empty()) throw DataError(path.string() + ": is empty, expected one class a line");
}

void FgvcSource::read_items(const std::filesystem::path& path) {
  std::unordered_map<std::string, std::int32_t> labels;
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    labels.emplace(classes_[i], static_cast<std::int32_t>(i));
  }
  std::unordered_map<std::string, std::size_t> seen;
  const std::vector<std::string> lines = read_lines(path);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t space = lines[i].find(' ');
    const std::string id = lines[i].substr(0, space);
    if (space == std::string::npos || !is_image_id(id)) {
      fail(path, i,
           "'" + lines[i] + "': expected an image's number and its class, '0448006 747-200'");
    }
    // Names hold spaces and slashes: all of the rest is the name.
    const std::string name = lines[i].substr(space + 1);
    const auto label = labels.find(name);
    if (label == labels.end()) {
      fail(path, i, "class '" + name + "' is not in " + class_file_.string());
    }
    const auto [first, is_new] = seen.emplace(id, i);
    if (!is_new) {
      fail(path, i,
           "image " + id + " is there already, in line " + std::to_string(first->second + 1));
    }
    items_.push_back({id, label->second});
  }
  if (items_.empty()) throw DataError(path.string() + ": is empty, expected one image a line");
}

void FgvcSource::read(std::uint64_t item, StageOutput& out) const {
  read_item(image(items_.at(item)), out);
}

std::string FgvcSource::digest() const {
  std::vector<DigestItem> items;
  items.reserve(items_.size());
  for (const Item& item : items_) items.emplace_back(item.key, file_size_or_none(image(item)));
  Sha256 sha;
  digest_items(std::move(items), sha);
  for (const std::filesystem::path& list : {class_file_, list_file_}) sha.update(read_text(list));
  return sha.hex();
}

StageInfo source_fgvc_info() {
  StageInfo info;
  info.name = "source.fgvc";
  info.doc = "Photos of FGVC-Aircraft, in the order of its lists.";
  info.in = Kind::kNothing;
  info.out = Kind::kBytes;
  info.params.path("root", "the unpacked fgvc-aircraft-2013b folder, which holds 'data'")
      .choice("split", "trainval", {"train", "val", "trainval", "test"}, "which part of the set")
      .choice("labels", "variant", {"variant", "family", "manufacturer"}, "what the classes are");
  info.create = [](const Params& params) {
    return std::make_unique<FgvcSource>(params.text("root"), params.text("split"),
                                        params.text("labels"));
  };
  return info;
}

}  // namespace gp
