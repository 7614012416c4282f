#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/runner.hpp"

namespace gp {

enum class SetKind { kRun, kCheckpoint, kShards, kFolder, kArchive, kStatistics };

/// What a path given to `evaluate` is: told by what is there, never by the name alone but for .npz
/// and .safetensors. Throws DataError that lists what is accepted.
SetKind set_kind_of(const std::filesystem::path& path);

/// The run directory that a run or a checkpoint inside it belongs to; empty: there is none.
std::filesystem::path run_directory_of(const std::filesystem::path& path);

/// A set of images that `evaluate` was given, opened, with all that belongs to it.
class EvaluatedSet {
 public:
  /// Opens what `path` is. `registry` holds the torch module's stages and outlives the set; a run's
  /// plugins are looked for in `plugin_path`, too. Throws what opening throws, DataError mostly.
  EvaluatedSet(const std::filesystem::path& path, const StageRegistry& registry,
               const std::vector<std::filesystem::path>& plugin_path);

  /// The run's evaluate.* stage; null: it is no run, or has none.
  const StageConfig* evaluator() const { return evaluator_; }
  /// run: of the run's configuration; defaults of what is no run.
  RunSettings run_settings() const;
  bool draws() const { return trainer_ != nullptr; }

  /// For EvaluateStage::compare; refers to this object. Images are decoded on `data_threads`, fakes
  /// are the first `count` of `seed`, drawn by a network on run.device.
  ImageSet image_set(const RunInfo& run, int data_threads, std::uint64_t seed, int count);

 private:
  void open_images(const std::string& source);
  void open_run(const StageRegistry& registry,
                const std::vector<std::filesystem::path>& plugin_path);
  std::string state() const;

  std::filesystem::path path_;
  SetKind kind_;
  std::unique_ptr<LoadedConfig> loaded_;
  std::unique_ptr<Pipeline> pipeline_;
  const StageConfig* evaluator_ = nullptr;
  std::unique_ptr<Stage> train_stage_;
  TrainStage* trainer_ = nullptr;
  std::unique_ptr<Snapshot> snapshot_;
};

}  // namespace gp
