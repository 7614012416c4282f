#include <algorithm>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/hdf5/manifest.hpp"
#include "stages/data/hdf5/shard_reader.hpp"
#include "stages/data/hdf5/shard_stages.hpp"

namespace gp {
namespace {

/// Files that stay open; beyond that each read opens its shard, so that any number of shards fits
/// under the usual limit of 1024 descriptors.
constexpr std::size_t kMaxOpenFiles = 256;

/// Images from shards, in the order in which they were written. Opening reads the tables of every
/// shard (12 bytes an image and its key); reading is thread-safe and takes no lock.
class ShardSource : public SourceStage {
 public:
  explicit ShardSource(const std::filesystem::path& root) {
    const Manifest manifest = read_manifest(root);
    digest_ = sha256_hex(to_text(manifest));
    shape_ = manifest.shape;
    class_names_ = manifest.class_names;
    size_ = manifest.images;
    const ShardInfo expected{manifest.shape, manifest.class_names, manifest.source_digest,
                             manifest.config_digest};
    shards_.reserve(manifest.shards.size());
    for (const ShardEntry& entry : manifest.shards) {
      const std::filesystem::path file = root / entry.file;
      std::error_code error;
      const std::uintmax_t bytes = std::filesystem::file_size(file, error);
      if (!error && bytes != entry.bytes) {
        refuse(file, "has " + std::to_string(bytes) + " bytes, the manifest says " +
                         std::to_string(entry.bytes));
      }
      const ShardReader& shard = shards_.emplace_back(file, shards_.size() < kMaxOpenFiles);
      if (shard.info() != expected || static_cast<std::uint64_t>(shard.count()) != entry.images) {
        refuse(file, "belongs to another set of shards than the manifest beside it");
      }
      if (entry.tables_crc32c && shard.tables_checksum() != *entry.tables_crc32c) {
        refuse(file,
               "holds other keys, labels or checksums than the manifest says: it is another shard "
               "of this set, or damaged");
      }
      first_.push_back(entry.first);
    }
  }

  std::uint64_t size() const override { return size_; }
  std::string key(std::uint64_t item) const override {
    const auto [shard, image] = find(item);
    return shard.key(image);
  }
  std::int32_t label(std::uint64_t item) const override {
    const auto [shard, image] = find(item);
    return shard.label(image);
  }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  ImageShape output_shape() const override { return shape_; }
  std::string digest() const override { return digest_; }

  void read(std::uint64_t item, StageOutput& out) const override {
    const auto [shard, image] = find(item);
    const ImageView view = out.image(shape_.height, shape_.width);
    if (view.stride == static_cast<std::ptrdiff_t>(shape_.width) * kChannels) {
      shard.read(image, {view.data, shape_.bytes()});
      return;
    }
    Image whole(shape_.height, shape_.width);
    shard.read(image, whole.pixels());
    copy_image(whole.view(), view);
  }

 private:
  struct Place {
    const ShardReader& shard;
    int image;
  };

  Place find(std::uint64_t item) const {
    const auto after = std::upper_bound(first_.begin(), first_.end(), item);
    const auto index = static_cast<std::size_t>(after - first_.begin()) - 1;
    return {shards_[index], static_cast<int>(item - first_[index])};
  }

  [[noreturn]] static void refuse(const std::filesystem::path& file, const std::string& what) {
    throw DataError(file.string() + ": " + what +
                    "\n  Find out what else is wrong with `gan-prep verify " +
                    file.parent_path().string() +
                    "`; make the shards again with `gan-prep build CONFIG --rebuild`");
  }

  ImageShape shape_;
  std::uint64_t size_ = 0;
  std::string digest_;
  std::vector<std::string> class_names_;
  std::vector<ShardReader> shards_;
  std::vector<std::uint64_t> first_;  ///< number of the first image of each shard
};

}  // namespace

StageInfo source_shards_info() {
  StageInfo info;
  info.name = "source.shards";
  info.doc = "Images from HDF5 shards made by gan-prep, each checked against its CRC-32C";
  info.in = Kind::kNothing;
  info.out = Kind::kImage;
  info.params.path("root", "folder with manifest.json, as gan-prep build makes it");
  info.create = [](const Params& params) -> std::unique_ptr<Stage> {
    return std::make_unique<ShardSource>(params.text("root"));
  };
  return info;
}

}  // namespace gp
