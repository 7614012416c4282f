#include "stages/data/hdf5/verify_shards.hpp"

#include <optional>
#include <set>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/data/hdf5/shard_reader.hpp"

namespace gp {
namespace {

/// SHA-256 the file would have if its table of checksums were the one of its pixels as they are.
std::string sha256_with_checksums(const ShardReader& shard,
                                  const std::vector<std::uint32_t>& checksums) {
  std::vector<std::uint8_t> bytes = read_file(shard.file());
  std::size_t at = shard.checksums_offset();
  for (const std::uint32_t checksum : checksums) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.at(at++) = static_cast<std::uint8_t>(checksum >> shift);
    }
  }
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

/// Checks one shard; `keys` gathers those of all shards.
class ShardCheck {
 public:
  ShardCheck(const std::filesystem::path& root, const Manifest& manifest, const ShardEntry& entry,
             std::set<std::string>& keys, std::vector<ShardProblem>& problems)
      : path_(root / entry.file),
        manifest_(manifest),
        entry_(entry),
        keys_(keys),
        problems_(problems) {}

  void run() {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path_, error)) return problem("is missing");
    const std::uintmax_t bytes = std::filesystem::file_size(path_, error);
    const std::string size = "has " + std::to_string(bytes) + " bytes, the manifest says " +
                             std::to_string(entry_.bytes);
    if (bytes != entry_.bytes) return problem(size);
    const bool same_bytes = sha256_file(path_) == entry_.sha256;
    std::optional<ShardReader> shard;
    try {
      shard.emplace(path_);
    } catch (const DataError& unreadable) {
      return problem(same_bytes ? std::string("cannot be read: ") + unreadable.what()
                                : "metadata is damaged: the file cannot be opened as a shard any "
                                  "more");
    }
    const bool images_intact = check_images(*shard, same_bytes);
    if (!same_bytes && images_intact) {
      problem(
          "metadata is damaged (keys, labels, attributes or HDF5 structure); all images are "
          "intact");
    }
    if (same_bytes) check_content(*shard);
  }

 private:
  void problem(const std::string& text, std::int64_t image = -1) {
    problems_.push_back({entry_.file, image, text});
  }

  /// Compares every image with its checksum. False: damage was found and told.
  bool check_images(const ShardReader& shard, bool same_bytes) {
    std::vector<std::uint32_t> found;
    std::vector<int> damaged;
    for (int image = 0; image < shard.count(); ++image) {
      found.push_back(shard.compute_checksum(image));
      if (found.back() != shard.stored_checksum(image)) damaged.push_back(image);
    }
    if (damaged.empty()) return true;
    // A flipped bit in the table looks like one in the image; the digest of the file tells them
    // apart.
    const bool table = !same_bytes && sha256_with_checksums(shard, found) == entry_.sha256;
    for (const int image : damaged) {
      const std::string name = "image " + std::to_string(image) + " ('" + shard.key(image) + "')";
      if (table) {
        problem("metadata is damaged: the checksum of " + name + "; its pixels are intact");
      } else {
        problem(name + " is damaged: number " +
                    std::to_string(entry_.first + static_cast<std::uint64_t>(image)) +
                    " of the whole set",
                image);
      }
    }
    return false;
  }

  /// What the writer should have made sure of: a fault of ours, not of the disk.
  void check_content(const ShardReader& shard) {
    const ShardInfo expected{manifest_.shape, manifest_.class_names, manifest_.source_digest,
                             manifest_.config_digest};
    if (shard.info() != expected || static_cast<std::uint64_t>(shard.count()) != entry_.images) {
      problem("is not of the set that the manifest describes");
    }
    for (int image = 0; image < shard.count(); ++image) {
      if (!keys_.insert(shard.key(image)).second) {
        problem("the key '" + shard.key(image) + "' occurs twice in the set");
      }
    }
  }

  std::filesystem::path path_;
  const Manifest& manifest_;
  const ShardEntry& entry_;
  std::set<std::string>& keys_;
  std::vector<ShardProblem>& problems_;
};

}  // namespace

std::vector<ShardProblem> verify_shards(const std::filesystem::path& root, Log& log) {
  std::vector<ShardProblem> problems;
  std::error_code error;
  Manifest manifest;
  try {
    manifest = read_manifest(root);
  } catch (const DataError& unreadable) {
    if (!std::filesystem::exists(root / kManifestFile, error)) throw;
    // Without it nothing says what the other files should be.
    problems.push_back({kManifestFile, -1, unreadable.what()});
    return problems;
  }
  std::set<std::string> keys;
  for (const ShardEntry& entry : manifest.shards) {
    log.progress("verify: " + entry.file + ", " + std::to_string(entry.first) + "/" +
                 std::to_string(manifest.images) + " images");
    ShardCheck(root, manifest, entry, keys, problems).run();
  }
  const std::filesystem::path rejects = root / kRejectsFile;
  if (!std::filesystem::is_regular_file(rejects, error)) {
    problems.push_back({kRejectsFile, -1, "is missing"});
  } else if (sha256_file(rejects) != manifest.rejects_sha256) {
    problems.push_back({kRejectsFile, -1, "was changed: its digest is not the manifest's"});
  }
  for (const auto& file : std::filesystem::directory_iterator(root)) {
    const std::string name = file.path().filename().string();
    if (from_shard_name(name) >= static_cast<std::int64_t>(manifest.shards.size())) {
      problems.push_back({name, -1, "is not in the manifest; remove it"});
    }
  }
  return problems;
}

}  // namespace gp
