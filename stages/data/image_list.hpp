#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

/// What is done with images for which a label file has no row.
enum class Unlisted {
  kRefuse,  ///< an error
  kSkip,    ///< they are not offered
  kKeep     ///< they have the label -1
};

struct ImageListOptions {
  /// Whether the folders directly below the root are the classes. Not looked at with a label file.
  bool labels = true;
  /// Lower case, without dots. Only decides what is offered; the format is told by content.
  std::vector<std::string> extensions = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"};
  /// CSV with the columns file (a key) and label (the name of a class); empty: none.
  std::filesystem::path label_file;
  Unlisted unlisted = Unlisted::kRefuse;

  /// Whether a name ends like an image.
  bool accepts(const std::string& name) const;
};

/// Adds the parameters that ImageListOptions stands for.
void add_image_list_params(ParamSchema& params);
/// Throws ConfigError where they contradict each other.
void read_image_list_params(const Params& params, ImageListOptions& options);

/// A source of images that have names: keys in the order of their bytes, and what their classes
/// are. Those who derive from it say where the bytes come from.
///
/// A key is the path below the root with '/' between folders. The classes are the names of the
/// folders directly below the root that hold an image, or those of the label file, in the order of
/// their bytes (those of a label file that are all whole numbers: of their values); an image
/// without one has the label -1. The digest is over keys, sizes, classes and, with a label file,
/// labels.
class ImageListSource : public SourceStage {
 public:
  std::uint64_t size() const final { return items_.size(); }
  std::string key(std::uint64_t item) const final { return items_.at(item).key; }
  std::int32_t label(std::uint64_t item) const final { return items_.at(item).label; }
  const std::vector<std::string>& class_names() const final { return classes_; }
  std::string digest() const final;

 protected:
  /// Called once, by the constructor. `keys`: sorted, unique, at least one. `where` names the
  /// source in messages. Returns which of the keys are offered, by their indices. Throws DataError,
  /// with file and line, when the label file is broken, names what is not there, names something
  /// twice, or has no row for an image that needs one.
  std::vector<std::size_t> set_images(std::vector<std::string> keys,
                                      const ImageListOptions& options, const std::string& where);

 private:
  /// -1 where the image cannot be read.
  virtual std::int64_t byte_size(std::uint64_t item) const = 0;

  struct Item {
    std::string key;
    std::int32_t label;
  };
  std::vector<std::string> classes_;
  std::vector<Item> items_;
  bool listed_labels_ = false;
};

/// "jpg, png": for messages.
std::string join(const std::vector<std::string>& words);

}  // namespace gp
