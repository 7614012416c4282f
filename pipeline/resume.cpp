#include "pipeline/resume.hpp"

#include <algorithm>

#include "pipeline/error.hpp"
#include "pipeline/log.hpp"
#include "pipeline/runner.hpp"

namespace gp {
namespace {

/// A configuration as a flat list of values.
struct Entry {
  std::string key;
  std::string value;
  bool may_change;
};

const ParamSpec* spec_of(const StageConfig& stage, const std::string& name) {
  const ParamSpec* spec = stage.info->params.find(name);
  return spec != nullptr ? spec : common_source_params().find(name);
}

void add_stage(const StageConfig& stage, std::vector<Entry>& all) {
  const bool evaluates = stage.info->in == Kind::kSnapshot;
  for (const auto& [name, value] : stage.params.values()) {
    const ParamSpec* spec = spec_of(stage, name);
    const bool may_change =
        spec != nullptr && (spec->may_change || spec->type == ParamType::kPath ||
                            (evaluates && spec->type != ParamType::kOverrides));
    all.push_back({"stages." + stage.address + "." + name, to_string(value), may_change});
  }
  for (const StageConfig& choice : stage.choices) {
    all.push_back({"stages." + choice.address + ".weight", to_string(Value(choice.weight)), false});
    add_stage(choice, all);
  }
}

std::vector<Entry> flatten(const Config& config) {
  std::vector<Entry> all;
  std::string list;
  for (const StageConfig& stage : config.stages) {
    list += (list.empty() ? "" : ", ") +
            (stage.address == stage.use ? stage.use : stage.address + " (" + stage.use + ")");
  }
  all.push_back({"seed", std::to_string(config.seed), false});
  all.push_back({"stages", "[" + list + "]", false});
  for (const StageConfig& stage : config.stages) add_stage(stage, all);
  const RunSettings& run = config.run;
  const auto threads = [](int number) {
    return number == 0 ? std::string("auto") : std::to_string(number);
  };
  all.push_back({"run.device", run.device, true});
  all.push_back({"run.precision", run.precision, true});
  all.push_back({"run.threads", threads(run.threads), true});
  all.push_back({"run.data_threads", threads(run.data_threads), true});
  all.push_back({"run.max_in_flight", std::to_string(run.max_in_flight), true});
  all.push_back({"run.prefetch", std::to_string(run.prefetch), true});
  return all;
}

const Entry* find(const std::vector<Entry>& all, const std::string& key) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Entry& entry) { return entry.key == key; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace

std::vector<ConfigDifference> config_differences(const Config& before, const Config& now) {
  const std::vector<Entry> old_entries = flatten(before);
  const std::vector<Entry> new_entries = flatten(now);
  std::vector<ConfigDifference> differences;
  for (const Entry& entry : old_entries) {
    const Entry* other = find(new_entries, entry.key);
    if (other != nullptr && other->value == entry.value) continue;
    differences.push_back(
        {entry.key, entry.value, other != nullptr ? other->value : "", entry.may_change});
  }
  for (const Entry& entry : new_entries) {
    if (find(old_entries, entry.key) != nullptr) continue;
    differences.push_back({entry.key, "", entry.value, entry.may_change});
  }
  return differences;
}

std::vector<ConfigDifference> check_resume(const SavedTraining& saved, const LoadedConfig& loaded,
                                           const Pipeline& pipeline, Log& log) {
  const std::string file = saved.file.string();
  std::vector<ConfigDifference> differences;
  try {
    const ConfigFile yaml = ConfigFile::parse(saved.config_yaml, file);
    differences = config_differences(check_config(yaml, loaded.registry), loaded.config);
  } catch (const ConfigError& error) {
    throw ConfigError("the configuration that trained it cannot be read any more:\n" +
                      std::string(error.what()));
  }
  std::string refused;
  for (const ConfigDifference& difference : differences) {
    const auto shown = [](const std::string& value) { return value.empty() ? "nothing" : value; };
    const std::string text =
        difference.key + " is " + shown(difference.now) + ", was " + shown(difference.before);
    if (difference.may_change) {
      log.info("changed: " + text);
    } else {
      refused += "\n  " + text;
    }
  }
  if (!refused.empty()) {
    throw ConfigError(file + ": was trained with another configuration:" + refused +
                      "\nGoing on would be another training; write back what was, or start anew.");
  }
  const StreamInfo stream = pipeline.stream_info();
  if (saved.source_digest != stream.source_digest) {
    throw DataError(file + ": was trained on other data: their digest was " + saved.source_digest +
                    ", that of '" + loaded.config.stages.front().address + "' is " +
                    stream.source_digest +
                    " now (files were added, removed, or changed their size). The order of an "
                    "epoch depends on all of them; put back what was, or start anew.");
  }
  if (saved.data_digest != stream.data_digest) {
    // Values and files are the same, so it can only be the code.
    log.warn(
        "the data were prepared by other builds of their plugins or modules so far: batches "
        "may differ from those of an undisturbed run");
  }
  return differences;
}

}  // namespace gp
