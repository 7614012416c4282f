#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/param_schema.hpp"
#include "pipeline/stage_registry.hpp"

namespace gp {

/// A place in a file; lines and columns (in bytes) count from 1. Values of --set have no line, and
/// their `file` is the option itself: "--set stages.augment.flip.p=0.3".
struct Mark {
  std::string file;
  int line = 0;
  int column = 0;
  std::string text() const;  ///< "configs/a.yaml:12:11"; without a line `file` alone
};

/// One YAML file and those that it builds on, parsed once into nodes that keep their marks, with
/// `--set` applied. Nothing but the config_*.cpp files looks inside (config_node.hpp).
///
/// The YAML is one document of at most 1 MiB in UTF-8: maps, lists, plain and quoted scalars,
/// anchors and aliases. Tags, merge keys and duplicate keys are errors. Quoted scalars are texts;
/// what a plain scalar is, its parameter's type says: numbers are decimal (2.0e-4, never 010, 0x10,
/// 1_000, .nan; whole numbers without point or exponent), bools are `true` and `false`, and a text
/// may be any plain scalar (`label: 010`).
///
/// `base: other.yaml` takes everything from another file, and that from its own base: maps are
/// merged, `plugins` and `modules` added, anything else is replaced. In a file with a base, the
/// list `stages` either replaces the base's, or holds changes, carried out in their order:
///   - {change: ADDRESS, PARAMETER: VALUE..}
///   - {remove: ADDRESS}
///   - {use: NAME, after: ADDRESS, PARAMETER: VALUE..}       or before: ADDRESS
class ConfigFile {
 public:
  struct Node;
  ConfigFile(ConfigFile&&) noexcept;
  ConfigFile& operator=(ConfigFile&&) noexcept;
  ~ConfigFile();

  /// Reads `path`; `overrides` are the texts of --set, KEY=VALUE, applied in their order. KEY is
  /// `name`, `seed`, `plugins`, `modules`, `run.KEY` or `stages.ADDRESS.PARAMETER[.KEY]`, where the
  /// longest address of the file that fits wins. (A stage within augment.one_of has the address of
  /// that, a dot, its own.) VALUE is a YAML list, map or quoted text where it
  /// begins so, else one plain scalar, whatever signs it holds.
  /// Throws ConfigError with every error found.
  static ConfigFile read(const std::filesystem::path& path,
                         const std::vector<std::string>& overrides = {});
  static ConfigFile parse(const std::string& yaml, const std::filesystem::path& path,
                          const std::vector<std::string>& overrides = {});

  /// What must be loaded before the stages can be checked.
  std::vector<std::string> plugins() const;
  std::vector<std::string> modules() const;
  /// The `use` of every stage, in order; those within a stage before it.
  std::vector<std::string> stage_names() const;

  /// Ends the list of stages where images end: `batch`, `train.*` or `sink.*`, and all that follows
  /// it, are replaced by the one stage `use`. For looking at data without loading what trains.
  void end_images_with(const std::string& use);

  const Node& root() const { return *root_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  ConfigFile();
  std::unique_ptr<Node> root_;
  std::filesystem::path path_;
};

/// One stage of the list, checked.
struct StageConfig {
  std::string use;
  std::string address;  ///< `use`, or `name:` where given; within one_of with its address in front
  Mark mark;
  const StageInfo* info = nullptr;
  /// Every parameter, defaults filled in, paths absolute; a source's hold common_source_params too.
  Params params;
  /// Where each parameter was written ("reference.split" within maps); absent: its default.
  std::map<std::string, Mark> marks;
  /// augment.one_of: the stages of which one is chosen a sample, by their weights.
  std::vector<StageConfig> choices;
  double weight = 1;  ///< of a choice
};

/// `run:` of the YAML.
struct RunSettings {
  std::string device = "auto";
  std::string precision = "auto";
  int threads = 0;       ///< 0: auto
  int data_threads = 0;  ///< 0: auto
  int max_in_flight = 512;
  int prefetch = 2;

  /// What max_in_flight must be for batches of `size`. Two of them at least: a trainer may ask for
  /// the next one before it lets go of the last.
  std::int64_t least_in_flight(std::int64_t size) const { return size * std::max(prefetch + 1, 2); }
};

/// What the source of a run does with bad samples.
struct RejectPolicy {
  bool stop = false;              ///< on_error: stop
  std::int64_t max_rejects = -1;  ///< an epoch; -1: no limit by number
  double max_reject_share = -1;   ///< of the source's size; -1: no limit by share
};

/// A whole checked configuration.
struct Config {
  std::string name;
  std::uint64_t seed = 0;
  std::filesystem::path path;
  std::vector<std::string> plugins;
  std::vector<std::string> modules;
  std::vector<StageConfig> stages;  ///< source, transforms.., batch?, end, evaluators..
  RunSettings run;
  RejectPolicy rejects;
  /// Where "name", "seed", "plugins[0]", "modules[0]", "run.threads".. were written; absent:
  /// default.
  std::map<std::string, Mark> marks;

  /// The whole configuration as YAML that reads back to the same: defaults filled in, paths
  /// absolute, no base.
  std::string resolved_yaml() const;
  /// Every value with the place that it comes from: file:line:column, --set, or default.
  std::string explain() const;
  /// The stage of this address, also within augment.one_of; null: there is none.
  const StageConfig* find_stage(const std::string& address) const;
};

/// Checks everything that can be checked without opening data: names, parameters, the order of
/// kinds along the list, one source, `batch` before train.*, RunSettings::least_in_flight(). Throws
/// ConfigError with all errors together, one a line, such as
/// `configs/aircraft.yaml:12:11: stages[4] 'augment.flip': p = 1.5 is outside [0, 1]`.
/// `registry` holds the built-in stages and what file.plugins() and file.modules() name; it
/// outlives the result.
Config check_config(const ConfigFile& file, const StageRegistry& registry);

/// The parameters of `stage` with some overridden, checked by the same schema (for evaluation's
/// `reference: {split: trainval}`). Throws ConfigError that names `where`.
Params override_params(const StageConfig& stage,
                       const std::map<std::string, std::string>& overrides,
                       const std::string& where);

/// Adds the stages that the engine itself carries out: `batch`, and `augment.one_of`, which chooses
/// among other stages.
void add_built_in_stages(StageRegistry& registry);
inline constexpr const char* kBatchStage = "batch";
inline constexpr const char* kOneOfStage = "augment.one_of";
/// Parameters that every source has besides its own (on_error, max_rejects).
const ParamSchema& common_source_params();
/// `weight`, which a choice of augment.one_of has besides its own parameters.
const ParamSpec& choice_weight_spec();
/// The settings below `run:`.
const ParamSchema& run_schema();
/// `fraction`, which evaluators may ask for beside the source's own parameters
/// (`held_out: {fraction: 0.1}`); the engine carries it out.
const ParamSpec& held_out_fraction_spec();

/// `inspect`: one line a stage; everything about one stage; the same as JSON:
///
///   {"stages": [STAGE..]}, or STAGE alone with `only`, where STAGE is
///   {"name", "doc", "origin", "in", "out": nothing | bytes | image | batch | snapshot,
///    "random", "geometric": bool, "concurrency": "serial" | "unlimited",
///    "params": [{"name", "type": bool | int | real | text | choice | path | real_list | overrides
///                | stages,
///                "required": bool, "default": value or null, "min", "max": number or null,
///                "choices": [text..], "doc", "common": bool (every source has it)}..],
///    "example": a line for the list of stages}
std::string describe_stages(const StageRegistry& registry);
std::string describe_stage(const StageInfo& info);
std::string describe_json(const StageRegistry& registry, const StageInfo* only = nullptr);
/// JSON Schema (draft-07, which editors read) of configurations that use the registry's stages.
std::string config_schema(const StageRegistry& registry);

/// The nearest of `names` to `name` by edit distance, or "" when none is near: for hints.
std::string nearest_name(const std::string& name, const std::vector<std::string>& names);

}  // namespace gp
