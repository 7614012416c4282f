#include "stages/data/hdf5/manifest.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "gan-pipeline shards";
constexpr char kDigestMember[] = "manifest_sha256";
constexpr int kMaxSide = 1 << 16;

std::string dump(const Json& json) {
  // Keys and names may hold any byte; what is not UTF-8 is shown as U+FFFD.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::uint64_t sum(const std::map<std::string, std::uint64_t>& counts) {
  std::uint64_t total = 0;
  for (const auto& [stage, count] : counts) total += count;
  return total;
}

Json counts_to_json(const std::map<std::string, std::uint64_t>& counts) {
  Json json = Json::object();
  for (const auto& [stage, count] : counts) json[stage] = count;
  return json;
}

/// Adds the digest of everything before it.
std::string seal(Json json) {
  json[kDigestMember] = sha256_hex(dump(json));
  return dump(json);
}

Manifest from_json(const Json& json) {
  Manifest manifest;
  manifest.shape = {json.at("image_shape").at(0).get<int>(),
                    json.at("image_shape").at(1).get<int>()};
  manifest.images = json.at("images").get<std::uint64_t>();
  manifest.images_per_shard = json.at("images_per_shard").get<std::uint64_t>();
  for (const Json& shard : json.at("shards")) {
    manifest.shards.push_back(
        {shard.at("file").get<std::string>(), shard.at("bytes").get<std::uint64_t>(),
         shard.at("sha256").get<std::string>(), shard.at("images").get<std::uint64_t>(),
         shard.at("first").get<std::uint64_t>(), std::nullopt});
    if (const auto tables = shard.find("tables_crc32c"); tables != shard.end()) {
      manifest.shards.back().tables_crc32c = tables->get<std::uint32_t>();
    }
  }
  manifest.class_names = json.at("class_names").get<std::vector<std::string>>();
  manifest.source_digest = json.at("source_digest").get<std::string>();
  manifest.config_digest = json.at("config_digest").get<std::string>();
  manifest.preprocessing = json.at("preprocessing").get<std::vector<std::string>>();
  manifest.read = json.at("read").get<std::uint64_t>();
  manifest.rejected = json.at("rejected").get<std::map<std::string, std::uint64_t>>();
  manifest.dropped = json.at("dropped").get<std::map<std::string, std::uint64_t>>();
  manifest.rejects_bytes = json.at("rejects_file").at("bytes").get<std::uint64_t>();
  manifest.rejects_sha256 = json.at("rejects_file").at("sha256").get<std::string>();
  return manifest;
}

/// What contradicts itself in a manifest, or "". The digest makes this an error of the writer, not
/// of the disk; readers rely on it all the same.
std::string contradiction(const Manifest& manifest) {
  if (!manifest.shape.fixed() || manifest.shape.height > kMaxSide ||
      manifest.shape.width > kMaxSide) {
    return "image_shape is not a size";
  }
  if (manifest.images_per_shard < 1 || manifest.images_per_shard > kMaxImagesPerShard) {
    return "images_per_shard is outside [1, " + std::to_string(kMaxImagesPerShard) + "]";
  }
  std::uint64_t images = 0;
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const ShardEntry& shard = manifest.shards[i];
    if (shard.file != shard_name(i))
      return "shards[" + std::to_string(i) + "] is '" + shard.file + "', expected '" +
             shard_name(i) + "'";
    if (shard.first != images || shard.images < 1 || shard.images > manifest.images_per_shard) {
      return "the image counts of shards[" + std::to_string(i) + "] are wrong";
    }
    images += shard.images;
  }
  if (images != manifest.images)
    return "the shards hold " + std::to_string(images) + " images, not " +
           std::to_string(manifest.images);
  return "";
}

}  // namespace

std::uint64_t Manifest::total_rejected() const { return sum(rejected); }
std::uint64_t Manifest::total_dropped() const { return sum(dropped); }
std::uint64_t Manifest::shard_bytes() const {
  std::uint64_t total = 0;
  for (const ShardEntry& shard : shards) total += shard.bytes;
  return total;
}

std::string shard_name(std::uint64_t number) {
  char name[48];
  std::snprintf(name, sizeof name, "shard-%05llu.h5", static_cast<unsigned long long>(number));
  return name;
}

std::int64_t from_shard_name(const std::string& name) {
  unsigned long long number = 0;
  if (std::sscanf(name.c_str(), "shard-%10llu.h5", &number) != 1) return -1;
  return name == shard_name(number) ? static_cast<std::int64_t>(number) : -1;
}

std::string to_text(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["schema_version"] = kShardSchemaVersion;
  json["images"] = manifest.images;
  json["image_shape"] = {manifest.shape.height, manifest.shape.width, kChannels};
  json["images_per_shard"] = manifest.images_per_shard;
  json["source_digest"] = manifest.source_digest;
  json["config_digest"] = manifest.config_digest;
  json["preprocessing"] = manifest.preprocessing;
  json["read"] = manifest.read;
  json["rejected"] = counts_to_json(manifest.rejected);
  json["dropped"] = counts_to_json(manifest.dropped);
  json["rejects_file"] = {{"file", kRejectsFile},
                          {"bytes", manifest.rejects_bytes},
                          {"sha256", manifest.rejects_sha256}};
  json["shards"] = Json::array();
  for (const ShardEntry& shard : manifest.shards) {
    json["shards"].push_back({{"file", shard.file},
                              {"bytes", shard.bytes},
                              {"sha256", shard.sha256},
                              {"images", shard.images},
                              {"first", shard.first}});
    if (shard.tables_crc32c) json["shards"].back()["tables_crc32c"] = *shard.tables_crc32c;
  }
  json["class_names"] = manifest.class_names;
  return seal(std::move(json));
}

Manifest parse_manifest(const std::string& text, const std::filesystem::path& where) {
  const auto fail = [&](const std::string& what) -> void {
    throw DataError(where.string() + ": " + what +
                    "\n  Restore the folder from a good copy, or make it again: "
                    "gan-prep build CONFIG --rebuild");
  };
  try {
    Json json = Json::parse(text);
    if (!json.is_object() || json.value("format", "") != kFormat) {
      fail("is JSON, but not a manifest of shards (expected \"format\": \"" + std::string(kFormat) +
           "\")");
    }
    const int version = json.at("schema_version").get<int>();
    if (version != kShardSchemaVersion) {
      fail("has schema version " + std::to_string(version) + "; this program reads version " +
           std::to_string(kShardSchemaVersion));
    }
    // The digest speaks of the values, the comparison of the bytes: white space and escapes too.
    Json body = json;
    body.erase(kDigestMember);
    if (json.at(kDigestMember).get<std::string>() != sha256_hex(dump(body)) || dump(json) != text) {
      fail("was changed after it was written: its digest does not fit its content");
    }
    Manifest manifest = from_json(json);
    const std::string wrong = contradiction(manifest);
    if (!wrong.empty()) fail("contradicts itself: " + wrong);
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    fail(std::string("is not a valid manifest: ") + error.what());
  }
  return {};
}

Manifest read_manifest(const std::filesystem::path& root) {
  const std::filesystem::path file = root / kManifestFile;
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    const bool folder = std::filesystem::is_directory(root, error);
    const bool begun = folder && (std::filesystem::exists(root / shard_name(0), error) ||
                                  std::filesystem::exists(root / kUnfinishedFolder, error));
    throw DataError(file.string() + ": " +
                    (!folder ? "there is no such folder"
                     : begun ? "is missing although the folder holds shards: a build did not finish"
                             : "is missing: this is not a folder of shards") +
                    "\n  Make the shards first: gan-prep build CONFIG, where CONFIG ends in "
                    "{use: sink.shards, root: " +
                    root.string() + "}");
  }
  return parse_manifest(read_text(file), file);
}

std::string preprocessing_digest(const std::vector<std::string>& preprocessing) {
  std::string text = "schema_version " + std::to_string(kShardSchemaVersion) + "\n";
  for (const std::string& line : preprocessing) text += line + "\n";
  return sha256_hex(text);
}

}  // namespace gp
