#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pipeline/runner.hpp"
#include "tools/options.hpp"

namespace gp {

/// --device and --threads.
void add_device_options(Options& options);
/// --set, plus --device and --threads as what they are short for.
std::vector<std::string> config_overrides(const Options& options);
/// The configuration of the positional CONFIG.
std::unique_ptr<LoadedConfig> load_config(const Options& options);

// Commands that have a file of their own.
int bench_command(const std::vector<std::string>& arguments);     ///< gan-pipeline bench
int evaluate_command(const std::vector<std::string>& arguments);  ///< gan-pipeline evaluate
int replay_command(const std::vector<std::string>& arguments);    ///< gan-pipeline replay
int preview_command(const std::vector<std::string>& arguments);   ///< gan-prep preview

}  // namespace gp
