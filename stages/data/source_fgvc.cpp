#include "stages/data/source_fgvc.hpp"

#include <algorithm>
#include <charconv>
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
    "  ROOT/data/images_box.txt (for crop_to_box)\n"
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

/// One line of images_box.txt: "0448006 11 168 991 433".
std::pair<std::string, RectF> parse_box(const std::filesystem::path& path, std::size_t index,
                                        const std::string& line) {
  // The published list says 0 here and there, where a box begins at the edge. What reaches over an
  // edge is cut off when the size of the image is known.
  constexpr int kLargest = 1'000'000;
  const std::size_t space = line.find(' ');
  const std::string id = line.substr(0, space);
  int edges[4] = {};  // left, top, right, bottom
  const char* at = line.data() + std::min(space, line.size());
  const char* const end = line.data() + line.size();
  bool good = is_image_id(id);
  for (int& edge : edges) {
    if (!good || at == end || *at != ' ') {
      good = false;
      break;
    }
    const auto [stop, error] = std::from_chars(at + 1, end, edge);
    good = error == std::errc() && edge >= 0 && edge <= kLargest;
    at = stop;
  }
  if (!good || at != end || edges[2] < edges[0] || edges[3] < edges[1]) {
    fail(path, index,
         "'" + line +
             "': expected an image's number and its box, '0448006 11 168 991 433': left, top, "
             "right and bottom in pixels from 1, the last two no less than the first");
  }
  return {id,
          {edges[0] - 1.0, edges[1] - 1.0, edges[2] - edges[0] + 1.0, edges[3] - edges[1] + 1.0}};
}

void check_layout(const std::filesystem::path& root, const std::filesystem::path& images,
                  const std::vector<std::filesystem::path>& lists) {
  std::error_code error;
  std::string missing;
  if (!std::filesystem::is_directory(root, error)) {
    missing = "there is no folder " + root.string();
  } else if (!std::filesystem::is_directory(images, error)) {
    missing = "the folder " + images.string() + " is missing";
    if (std::filesystem::is_directory(root / "images", error)) {
      missing += " (is the root the folder above, " + root.parent_path().string() + "?)";
    }
  } else {
    const auto list = std::find_if_not(lists.begin(), lists.end(), [&error](const auto& path) {
      return std::filesystem::is_regular_file(path, error);
    });
    if (list == lists.end()) return;
    constexpr const char* kWhat[] = {"classes", "images", "boxes"};
    missing = std::string("the list of ") + kWhat[list - lists.begin()] + " " + list->string() +
              " is missing";
  }
  throw DataError("FGVC-Aircraft is not there: " + missing + kHowToGetIt);
}

}  // namespace

FgvcSource::FgvcSource(const std::filesystem::path& root, const std::string& split,
                       const std::string& labels, bool crop_to_box) {
  static const std::map<std::string, std::string> kClassFiles = {
      {"variant", "variants.txt"},
      {"family", "families.txt"},
      {"manufacturer", "manufacturers.txt"}};
  const std::filesystem::path data = root / "data";
  images_ = data / "images";
  lists_ = {data / kClassFiles.at(labels), data / ("images_" + labels + "_" + split + ".txt")};
  if (crop_to_box) lists_.push_back(data / "images_box.txt");
  check_layout(root, images_, lists_);
  read_classes(lists_[0]);
  read_items(lists_[1]);
  if (crop_to_box) read_boxes(lists_[2]);
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
      fail(path, i, "class '" + name + "' is not in " + lists_[0].string());
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

void FgvcSource::read_boxes(const std::filesystem::path& path) {
  std::unordered_map<std::string, std::size_t> items;
  for (std::size_t i = 0; i < items_.size(); ++i) items.emplace(items_[i].key, i);
  std::unordered_map<std::string, std::size_t> seen;
  boxes_.resize(items_.size());
  const std::vector<std::string> lines = read_lines(path);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto [id, box] = parse_box(path, i, lines[i]);
    const auto [first, is_new] = seen.emplace(id, i);
    if (!is_new) {
      fail(path, i,
           "image " + id + " has a box already, in line " + std::to_string(first->second + 1));
    }
    // The list is of all splits.
    if (const auto item = items.find(id); item != items.end()) boxes_[item->second] = box;
  }
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (seen.count(items_[i].key) > 0) continue;
    fail(lists_[1], i,
         "image " + items_[i].key + " has no box in " + path.string() +
             "; add one, or set crop_to_box: false");
  }
}

void FgvcSource::read(std::uint64_t item, StageOutput& out) const {
  read_item(image(items_.at(item)), out);
  if (boxes_.empty()) return;
  Geometry geometry;
  geometry.region = boxes_[item];
  out.set_geometry(geometry);
}

std::string FgvcSource::digest() const {
  std::vector<DigestItem> items;
  items.reserve(items_.size());
  for (const Item& item : items_) items.emplace_back(item.key, file_size_or_none(image(item)));
  Sha256 sha;
  digest_items(std::move(items), sha);
  for (const std::filesystem::path& list : lists_) sha.update(read_text(list));
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
      .choice("labels", "variant", {"variant", "family", "manufacturer"}, "what the classes are")
      .flag("crop_to_box", false,
            "only what lies within the aircraft's box of images_box.txt is used; image.crop still "
            "counts from the sides of the photo");
  info.create = [](const Params& params) {
    return std::make_unique<FgvcSource>(params.text("root"), params.text("split"),
                                        params.text("labels"), params.flag("crop_to_box"));
  };
  return info;
}

}  // namespace gp
