#include "stages/torch/statistics_cache.hpp"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/safetensors.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// Finds flipped bits, which a well-formed file may still have.
std::string digest(const FeatureSet& features) {
  const FeatureStatistics& statistics = features.statistics;
  Sha256 hash;
  hash.update(std::to_string(statistics.count));
  for (const at::Tensor& tensor : {statistics.mean, statistics.covariance, features.vectors}) {
    const at::Tensor bytes = tensor.contiguous();
    hash.update(std::string_view(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()));
  }
  return hash.hex();
}

FeatureSet unpack(const Safetensors& contents) {
  const auto tensor = [&](const char* name, at::ScalarType type, std::int64_t dim) {
    const auto it = contents.tensors.find(name);
    if (it == contents.tensors.end() || it->second.scalar_type() != type ||
        it->second.dim() != dim) {
      throw DataError(std::string("tensor '") + name + "' is missing or of another kind");
    }
    return it->second;
  };
  FeatureSet features{{tensor("count", at::kLong, 0).item<std::int64_t>(),
                       tensor("mean", at::kDouble, 1), tensor("covariance", at::kDouble, 2)},
                      tensor("vectors", at::kFloat, 2)};
  const auto sum = contents.metadata.find("sha256");
  if (sum == contents.metadata.end() || sum->second != digest(features)) {
    throw DataError("its checksum does not match");
  }
  return features;
}

}  // namespace

std::string statistics_key(const FeatureExtractor& extractor, const std::string& data_digest,
                           ImageShape shape) {
  if (data_digest.empty()) return {};
  return nlohmann::ordered_json{{"format", 2},
                                {"data", data_digest},
                                {"shape", {shape.height, shape.width}},
                                {"extractor", extractor.name()},
                                {"weights", extractor.digest()},
                                {"protocol", extractor.protocol()},
                                {"device", extractor.device().is_cpu() ? "cpu" : "gpu"}}
      .dump();
}

fs::path StatisticsCache::default_folder() {
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value == nullptr ? fs::path() : fs::path(value);
  };
  if (const fs::path own = variable("GAN_PIPELINE_CACHE"); !own.empty()) return own;
  // The XDG specification: relative paths are to be ignored.
  if (const fs::path xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) {
    return xdg / "gan-pipeline";
  }
  if (const fs::path home = variable("HOME"); !home.empty()) return home / ".cache/gan-pipeline";
  return {};
}

fs::path StatisticsCache::file(const std::string& key) const {
  return folder_ / ("statistics-" + sha256_hex(key).substr(0, 32) + ".safetensors");
}

std::optional<FeatureSet> StatisticsCache::load(const std::string& key, Log& log) const {
  std::error_code error;
  if (folder_.empty() || !fs::exists(file(key), error)) return std::nullopt;
  try {
    const Safetensors contents = read_safetensors(file(key));
    const auto stored = contents.metadata.find("key");
    if (stored == contents.metadata.end() || stored->second != key) {
      throw DataError("it was made for something else");
    }
    return unpack(contents);
  } catch (const DataError& e) {
    log.warn("the cached statistics " + file(key).string() +
             " are of no use and are made again: " + e.what());
    return std::nullopt;
  }
}

void StatisticsCache::store(const std::string& key, const FeatureSet& features, Log& log) const {
  if (folder_.empty()) return;
  Safetensors contents;
  contents.metadata = {{"key", key}, {"sha256", digest(features)}};
  contents.tensors = {{"count", at::scalar_tensor(features.statistics.count, at::kLong)},
                      {"mean", features.statistics.mean},
                      {"covariance", features.statistics.covariance},
                      {"vectors", features.vectors}};
  fs::path own = file(key);
  own.replace_extension(std::to_string(::getpid()));  // two processes may fill the cache at once
  std::error_code error;
  try {
    make_folders(folder_);
    write_safetensors(own, contents);
    fs::rename(own, file(key));
  } catch (const std::exception& e) {
    fs::remove(own, error);
    log.warn(std::string("the statistics of the real images could not be cached, the next run "
                         "makes them again: ") +
             e.what());
  }
}

}  // namespace gp
