#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pipeline/graph_builder.hpp"

namespace gp {

class Log;
struct LoadedConfig;

/// A value in which two configurations differ.
struct ConfigDifference {
  std::string key;  ///< "seed", "run.threads", "stages.batch.size"
  std::string before;
  std::string now;          ///< empty: not there
  bool may_change = false;  ///< a run may be resumed with it
};

/// What differs between the configuration of a training and the one to go on with. May change: what
/// the schema says (ParamSpec::may_change: how long, what is written when), all below `run`,
/// paths (data are compared by their digests), and how it is evaluated, but not on which data.
std::vector<ConfigDifference> config_differences(const Config& before, const Config& now);

/// Checks that a training can go on with this configuration and these data. Tells `log` what
/// differs and may, and returns it. Throws ConfigError with everything that must not differ,
/// DataError where the data are others.
std::vector<ConfigDifference> check_resume(const SavedTraining& saved, const LoadedConfig& loaded,
                                           const Pipeline& pipeline, Log& log);

}  // namespace gp
