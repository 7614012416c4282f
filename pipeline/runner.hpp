#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "pipeline/graph_builder.hpp"
#include "pipeline/log.hpp"
#include "pipeline/plugin_loader.hpp"
#include "pipeline/thread_split.hpp"

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
  /// The same of a file that was read already; `more` are stages of the caller's own.
  static std::unique_ptr<LoadedConfig> load(const ConfigFile& file,
                                            const std::vector<std::filesystem::path>& plugin_path,
                                            std::vector<StageInfo> more = {});
};

struct RunRequest {
  std::filesystem::path out = "runs";  ///< parent of the run directory; empty: none is made
  std::uint64_t max_steps = 0;         ///< 0: no limit
  std::stop_token stop = {};
  std::filesystem::path trace = {};  ///< a trace of all threads goes there; empty: none
  /// A run directory to go on in, instead: `loaded` is its config.yaml. Empty: a new one is made.
  std::filesystem::path resume = {};
};

/// Runs a configuration to its end and returns the run directory. Throws gp::Error; after a stop
/// InterruptedError, with the state saved.
///
/// A run directory holds config.yaml and run.json from its first moment on, so that a run can be
/// resumed whenever it was killed, and is locked (FolderLock) as long as it is written to.
std::filesystem::path run_pipeline(const LoadedConfig& loaded, const RunRequest& request, Log& log);

/// Checks everything short of running: makes every stage, opens the data, takes one sample through
/// every stage. Returns what to print: shapes per stage, and the resolved configuration.
std::string dry_run(const LoadedConfig& loaded);

}  // namespace gp
