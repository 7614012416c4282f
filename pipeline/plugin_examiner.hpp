#pragma once

#include <chrono>
#include <filesystem>
#include <string>

namespace gp {

/// Loads a plugin in a child process, describes its stages, and runs each of those without required
/// parameters once on a small picture, with guards around its buffers. Whatever the plugin does,
/// this process lives on. Call it before threads are started.
///
/// Returns text for people or with `json` for programs: {"plugin", "version", "abi", "file",
/// "stages": [as describe_json gives them, each with "trial": text or null]}.
/// Throws PluginError when the plugin is faulty, crashes, ends the process, or takes longer than
/// `limit`.
std::string examine_plugin(const std::filesystem::path& file, bool json,
                           std::chrono::milliseconds limit = std::chrono::seconds(20));

}  // namespace gp
