#pragma once

#include <cstdint>
#include <filesystem>

#include "stages/data/image_list.hpp"

namespace gp {

struct FolderOptions : ImageListOptions {
  bool recursive = true;
};

/// The image files below a folder, as bytes. Lists them when it is made; thread-safe afterwards.
///
/// Names that begin with a dot are passed over, and so is all that is neither file nor folder.
/// Links are followed; a link that leads back to a folder above it is an error, a dangling link to
/// an image a bad sample.
class FolderSource : public ImageListSource {
 public:
  /// Throws DataError when a folder cannot be read, nothing is found, a link goes round in a
  /// circle, a name is not UTF-8 or holds control characters, or the label file is wrong.
  FolderSource(const std::filesystem::path& root, const FolderOptions& options);

  void read(std::uint64_t item, StageOutput& out) const override;

 private:
  std::int64_t byte_size(std::uint64_t item) const override;

  std::filesystem::path root_;
};

}  // namespace gp
