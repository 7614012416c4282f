#pragma once

#include <filesystem>
#include <string>

#include "pipeline/plugin_abi.h"
#include "pipeline/stage.hpp"

namespace gp {

/// A plugin's stage as one of the host's: checks the descriptor and everything it points to (names,
/// kinds, flags, functions, the parameter table with its defaults), and returns a StageInfo whose
/// instances are TransformStages that call the plugin. `plugin` and `file` are for messages.
///
/// With `checked`, the plugin works on guarded copies: writing outside its output or into its
/// input is a PluginError that names it. Costs two copies of the image for each call.
///
/// Throws PluginError. What a plugin does wrong later (a bad status, an exception across the C
/// boundary, random numbers that it did not declare) is a PluginError, too; GP_ERROR for one sample
/// is a SampleError with the plugin's text.
StageInfo plugin_stage_info(const gp_stage* descriptor, const std::string& plugin,
                            const std::filesystem::path& file, bool checked);

/// Whether plugins are checked unless somebody says otherwise: in builds with assertions or the
/// address sanitizer, and where the environment sets GAN_PIPELINE_CHECK_PLUGINS to 1.
bool check_plugins_by_default();

}  // namespace gp
