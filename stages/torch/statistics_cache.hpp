#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "stages/torch/feature_extractor.hpp"
#include "stages/torch/feature_set.hpp"

namespace gp {

class Log;

/// The key of the features that `extractor`, on its device, takes of all images of a stream; ""
/// where the data has no digest. `data_digest` covers source, overrides and what is done to the
/// images; `shape` is theirs, 0 where they differ.
std::string statistics_key(const FeatureExtractor& extractor, const std::string& data_digest,
                           ImageShape shape);

/// Keeps the FeatureSet of real images between runs: they cost minutes and never change.
///
/// One safetensors file for each key. A key is a text that holds everything the statistics depend
/// on; it is stored in the file and compared, so a wrong file is never taken for a right one. The
/// cache never fails: what cannot be read is computed again, what cannot be written is lost, both
/// with a warning. Several processes may share a folder.
class StatisticsCache {
 public:
  /// GAN_PIPELINE_CACHE, else XDG_CACHE_HOME/gan-pipeline, else ~/.cache/gan-pipeline; empty when
  /// there is no home either.
  static std::filesystem::path default_folder();

  /// An empty folder: nothing is kept.
  explicit StatisticsCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::optional<FeatureSet> load(const std::string& key, Log& log) const;
  void store(const std::string& key, const FeatureSet& features, Log& log) const;
  std::filesystem::path file(const std::string& key) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace gp
