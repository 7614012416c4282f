#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "pipeline/graph_builder.hpp"
#include "pipeline/log.hpp"
#include "pipeline/plugin_loader.hpp"

namespace gp {

/// A configuration with everything loaded that it names. The registry outlives the configuration,
/// which points into it.
struct LoadedConfig {
  StageRegistry registry;
  PluginLoader loader;
  Config config;

  /// Reads the file, loads plugins and modules, checks everything.
  static std::unique_ptr<LoadedConfig> load(const std::filesystem::path& path,
                                            const std::vector<std::string>& overrides,
                                            const std::vector<std::filesystem::path>& plugin_path);
};

struct RunRequest {
  std::filesystem::path out = "runs";  ///< parent of the run directory; empty: none is made
  std::uint64_t max_steps = 0;         ///< 0: no limit
  std::stop_token stop;
};

/// Runs a configuration to its end and returns the run directory. Throws gp::Error; after a stop
/// InterruptedError, with the state saved.
std::filesystem::path run_pipeline(const LoadedConfig& loaded, const RunRequest& request, Log& log);

/// Checks everything short of running: makes every stage, opens the data, takes one sample through
/// every stage. Returns what to print: shapes per stage, and the resolved configuration.
std::string dry_run(const LoadedConfig& loaded);

/// What the end stage of `pipeline` is told about its run.
RunInfo make_run_info(const Pipeline& pipeline, int threads,
                      const std::filesystem::path& directory);

/// Whether the configuration's device means a GPU (`auto`: where an NVIDIA driver is loaded).
bool uses_gpu(const std::string& device);

}  // namespace gp
