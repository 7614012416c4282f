#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

/// Photos of FGVC-Aircraft (Maji et al., arXiv:1306.5151) as JPEG bytes, in the order of the list
/// file. Reads the lists when it is made; thread-safe afterwards.
///
///   root/data/images/0448006.jpg
///   root/data/images_variant_trainval.txt    "0448006 747-200", one image a line
///   root/data/variants.txt                   one class a line; its number is the label
///   root/data/images_box.txt                 "0448006 11 168 991 433": left, top, right, bottom of
///                                            the aircraft, pixels of the file, from 1, inclusive
class FgvcSource : public SourceStage {
 public:
  /// `split`: train, val, trainval or test. `labels`: variant, family or manufacturer.
  /// `crop_to_box`: only what lies within an image's box counts.
  /// Throws DataError when something is missing or a list is broken (with file and line).
  FgvcSource(const std::filesystem::path& root, const std::string& split, const std::string& labels,
             bool crop_to_box = false);

  std::uint64_t size() const override { return items_.size(); }
  std::string key(std::uint64_t item) const override { return items_.at(item).key; }
  std::int32_t label(std::uint64_t item) const override { return items_.at(item).label; }
  const std::vector<std::string>& class_names() const override { return classes_; }
  void read(std::uint64_t item, StageOutput& out) const override;
  std::string digest() const override;

 private:
  struct Item {
    std::string key;  ///< the image's number, "0448006"
    std::int32_t label;
  };

  std::filesystem::path image(const Item& item) const { return images_ / (item.key + ".jpg"); }
  void read_classes(const std::filesystem::path& path);
  void read_items(const std::filesystem::path& path);
  void read_boxes(const std::filesystem::path& path);

  std::filesystem::path images_;
  std::vector<std::string> classes_;
  std::vector<Item> items_;
  std::vector<RectF> boxes_;                  ///< of each item, pixels from 0; empty: whole images
  std::vector<std::filesystem::path> lists_;  ///< what was read, in this order: part of the digest
};

}  // namespace gp
