#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

struct FolderOptions {
  bool recursive = true;
  /// Whether the folders directly below the root are the classes.
  bool labels = true;
  /// Lower case, without dots. Only decides what is offered; the format is told by content.
  std::vector<std::string> extensions = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"};
};

/// The image files below a folder, as bytes. Lists them when it is made; thread-safe afterwards.
///
/// A key is the path below the root with '/' between folders; the order is that of the keys' bytes.
/// Labels: the classes are the names of the folders directly below the root that hold an image, in
/// the order of their bytes; an image that lies in the root itself has the label -1.
/// Names that begin with a dot are passed over, and so is all that is neither file nor folder.
/// Links are followed; a link that leads back to a folder above it is an error, a dangling link to
/// an image a bad sample.
class FolderSource : public SourceStage {
 public:
  /// Throws DataError when a folder cannot be read, nothing is found, a link goes round in a
  /// circle, or a name is not UTF-8 or holds control characters.
  FolderSource(const std::filesystem::path& root, const FolderOptions& options);

  std::uint64_t size() const override { return items_.size(); }
  std::string key(std::uint64_t item) const override { return items_.at(item).key; }
  std::int32_t label(std::uint64_t item) const override { return items_.at(item).label; }
  const std::vector<std::string>& class_names() const override { return classes_; }
  void read(std::uint64_t item, StageOutput& out) const override;
  std::string digest() const override;

 private:
  struct Item {
    std::string key;
    std::int32_t label;
  };

  std::filesystem::path root_;
  std::vector<std::string> classes_;
  std::vector<Item> items_;
};

}  // namespace gp
