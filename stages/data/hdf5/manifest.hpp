#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// Layout of the shard files and of the manifest. Any change that an older reader would
/// misunderstand is a new number.
inline constexpr int kShardSchemaVersion = 1;
inline constexpr int kMaxImagesPerShard = 4096;

/// One shard file of a folder.
struct ShardEntry {
  std::string file;          ///< name within the folder, "shard-00000.h5"
  std::uint64_t bytes = 0;   ///< size of the file
  std::string sha256;        ///< of the file
  std::uint64_t images = 0;  ///< 1 .. kMaxImagesPerShard
  std::uint64_t first = 0;   ///< number of its first image in the whole folder
  /// Of its tables (gp::tables_checksum), by which a reader knows it without reading its pixels.
  /// Sets of version 0.1.0 have none.
  std::optional<std::uint32_t> tables_crc32c;
};

/// What a folder of shards holds: the content of its manifest.json, written last, so that a folder
/// with a manifest is complete. A pure function of the images and the configuration: no date, host
/// or path in it.
struct Manifest {
  ImageShape shape;
  std::uint64_t images = 0;
  std::uint64_t images_per_shard = 0;
  std::vector<ShardEntry> shards;
  std::vector<std::string> class_names;           ///< of the labels 0, 1, ...; may be empty
  std::string source_digest;                      ///< of the data that the images were made from
  std::string config_digest;                      ///< SHA-256 of `preprocessing`, one line each
  std::vector<std::string> preprocessing;         ///< RunInfo::preprocessing
  std::uint64_t read = 0;                         ///< images + rejected + dropped == read
  std::map<std::string, std::uint64_t> rejected;  ///< by stage
  std::map<std::string, std::uint64_t> dropped;   ///< by stage
  std::uint64_t rejects_bytes = 0;                ///< size of rejects.jsonl
  std::string rejects_sha256;

  std::uint64_t total_rejected() const;
  std::uint64_t total_dropped() const;
  std::uint64_t shard_bytes() const;
};

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kRejectsFile[] = "rejects.jsonl";
/// Folder within the folder of shards, in which a build writes until all of it is there.
inline constexpr char kUnfinishedFolder[] = "unfinished";
/// "shard-00017.h5"; from_shard_name gives -1 for any other name.
std::string shard_name(std::uint64_t number);
std::int64_t from_shard_name(const std::string& name);

/// JSON, UTF-8, keys in fixed order; its last member is a SHA-256 of all the others.
std::string to_text(const Manifest& manifest);

/// Reads what `to_text` wrote; `where` is for messages. Throws DataError when it is anything else:
/// the digest does not fit, a member is missing, a byte of white space differs, counts disagree.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& where);

/// Reads manifest.json of the folder `root`. Throws DataError, telling how to build shards, when
/// there is none.
Manifest read_manifest(const std::filesystem::path& root);

/// Digest that names a way of preprocessing.
std::string preprocessing_digest(const std::vector<std::string>& preprocessing);

}  // namespace gp
