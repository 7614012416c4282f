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
class FgvcSource : public SourceStage {
 public:
  /// `split`: train, val, trainval or test. `labels`: variant, family or manufacturer.
  /// Throws DataError when something is missing or a list is broken (with file and line).
  FgvcSource(const std::filesystem::path& root, const std::string& split,
             const std::string& labels);

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

  std::filesystem::path images_;
  std::filesystem::path class_file_;
  std::filesystem::path list_file_;
  std::vector<std::string> classes_;
  std::vector<Item> items_;
};

}  // namespace gp
