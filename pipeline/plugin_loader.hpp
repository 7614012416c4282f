#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/stage_registry.hpp"

namespace gp {

/// Finds and loads plugins (C ABI) and stage modules (C++). Nothing is ever unloaded. Call before
/// threads start. Every failure is a PluginError that says what to do.
class PluginLoader {
 public:
  /// `plugin_path`: --plugin-path. Searched in order: these, GAN_PIPELINE_PLUGIN_PATH
  /// (colon-separated), the folder `gan-pipeline/plugins` beside libgp_pipeline.so (the installed
  /// tree and the build tree alike).
  explicit PluginLoader(std::vector<std::filesystem::path> plugin_path = {});
  /// `check_plugins`: with guards around what they write (see plugin_stage_info).
  PluginLoader(std::vector<std::filesystem::path> plugin_path, bool check_plugins);

  /// By name ("augment_flip") on the path, or by file when the name holds a slash. Adds its stages.
  void load_plugin(const std::string& name, StageRegistry& registry);
  /// By name ("data", "torch") in `gan-pipeline/modules` beside libgp_pipeline.so, or by file.
  void load_module(const std::string& name, StageRegistry& registry);
  /// Loads the shipped modules that hold the given stages: source.*, image.*, sink.* are in "data",
  /// train.*, evaluate.* in "torch". Names that are registered already, or unknown, are left alone.
  void load_modules_for(const std::vector<std::string>& stage_names, StageRegistry& registry);

  /// Names of all plugins on the path (for `inspect`).
  std::vector<std::string> available_plugins() const;
  /// Files loaded so far, in order: for run.json.
  struct Loaded {
    std::string name;
    std::string version;  ///< a plugin's own; of a module its build id
    std::string abi;      ///< of a plugin, "1.0"
    std::filesystem::path file;
    std::string sha256;  ///< of the file
  };
  const std::vector<Loaded>& loaded() const { return loaded_; }

 private:
  std::vector<std::filesystem::path> plugin_path_;
  bool check_plugins_;
  std::vector<Loaded> loaded_;
};

}  // namespace gp
