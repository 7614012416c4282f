#include "pipeline/plugin_loader.hpp"

#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <set>
#include <string_view>
#include <utility>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/plugin_abi.h"
#include "pipeline/plugin_stage.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPathVariable = "GAN_PIPELINE_PLUGIN_PATH";

// Size of gp_plugin in ABI 1.0: the least that a plugin may bring. Never changes.
constexpr std::size_t kPluginSize10 = offsetof(gp_plugin, n_stages) + sizeof(std::size_t);

/// The folder `gan-pipeline` beside libgp_pipeline.so, in the installed tree and the build tree.
fs::path own_folder() {
  Dl_info info{};
  // Any address inside this library will do.
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) {
    throw PluginError("cannot find out where libgp_pipeline.so is, to look for modules beside it");
  }
  return fs::canonical(info.dli_fname).parent_path() / "gan-pipeline";
}

std::vector<fs::path> search_path(const std::vector<fs::path>& first) {
  std::vector<fs::path> path = first;
  if (const char* variable = std::getenv(kPathVariable); variable != nullptr) {
    std::string_view rest = variable;
    while (!rest.empty()) {
      const std::size_t colon = rest.find(':');
      if (colon != 0) path.emplace_back(rest.substr(0, colon));
      rest.remove_prefix(colon == std::string_view::npos ? rest.size() : colon + 1);
    }
  }
  path.push_back(own_folder() / "plugins");
  return path;
}

bool is_file_name(const std::string& name) { return name.find('/') != std::string::npos; }

std::string list_lines(const std::vector<fs::path>& paths) {
  std::string text;
  for (const auto& path : paths) text += "\n  " + path.string();
  return text;
}

/// dlopen maps a file without asking how long it is, and touching what a truncated one lacks is a
/// SIGBUS. So the loadable segments are compared with the file's size first; everything else that
/// may be wrong with a file, dlopen reports.
void check_complete(const fs::path& file, const std::string& what) {
  std::ifstream in(file, std::ios::binary);
  Elf64_Ehdr header{};
  if (!in.read(reinterpret_cast<char*>(&header), sizeof header) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return;
  }
  const std::uint64_t size = fs::file_size(file);
  std::uint64_t needed = header.e_phoff + std::uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  in.seekg(static_cast<std::streamoff>(header.e_phoff));
  Elf64_Phdr segment{};
  for (int i = 0; i < header.e_phnum; ++i) {
    if (!in.read(reinterpret_cast<char*>(&segment), sizeof segment)) break;
    if (segment.p_type == PT_LOAD) needed = std::max(needed, segment.p_offset + segment.p_filesz);
  }
  if (size < needed) {
    throw PluginError(what + " cannot be loaded: the file is truncated, it has " +
                      std::to_string(size) + " bytes of at least " + std::to_string(needed) +
                      ". Copy or build it again.");
  }
}

/// Loads a shared library for good. `what` begins the message.
void* open_library(const fs::path& file, const std::string& what) {
  check_complete(file, what);
  dlerror();
  // RTLD_NOW: a missing symbol shows here and not in the middle of a run. RTLD_LOCAL: plugins don't
  // see each other. RTLD_NODELETE: tables and code stay valid for ever.
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library != nullptr) return library;
  const char* text = dlerror();
  const std::string reason = text == nullptr ? "no reason given" : text;
  std::string advice;
  if (reason.find("undefined symbol") != std::string::npos) {
    advice = " Link it with the library that defines the symbol.";
  } else if (reason.find("ELF") != std::string::npos ||
             reason.find("file too short") != std::string::npos ||
             reason.find("Is a directory") != std::string::npos ||
             reason.find("invalid") != std::string::npos) {
    advice = " Expected a shared library for this machine.";
  } else if (reason.find("cannot open shared object file") != std::string::npos) {
    advice = " Check that the file and all libraries that it needs can be found (ldd shows them).";
  }
  throw PluginError(what + " cannot be loaded: " + reason + "." + advice);
}

std::string abi_text(std::uint32_t major, std::uint32_t minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

/// The plugin's exported table, checked as far as it concerns the plugin as a whole.
gp_plugin check_entry(const gp_plugin* entry, const std::string& what) {
  const std::string versions =
      what + " was built for plugin ABI " + abi_text(entry->abi_major, entry->abi_minor) +
      ", this gan-pipeline offers ABI " + abi_text(GP_ABI_MAJOR, GP_ABI_MINOR) + ".";
  // The version comes first: nothing else may be read before it is known to agree.
  if (entry->abi_major != GP_ABI_MAJOR) {
    throw PluginError(versions +
                      " The major numbers must be equal: build the plugin again with the headers "
                      "of this version.");
  }
  if (entry->abi_minor > GP_ABI_MINOR) {
    throw PluginError(versions +
                      " The plugin needs a newer host: update gan-pipeline, or build the plugin "
                      "with the headers of this version.");
  }
  if (entry->struct_size < kPluginSize10) {
    throw PluginError(what + " has a gp_plugin_entry of " + std::to_string(entry->struct_size) +
                      " bytes, expected at least " + std::to_string(kPluginSize10) +
                      ". Set struct_size to sizeof(gp_plugin).");
  }
  gp_plugin plugin{};
  std::memcpy(&plugin, entry, std::min<std::size_t>(entry->struct_size, sizeof plugin));
  if (plugin.name == nullptr || *plugin.name == '\0') {
    throw PluginError(what + " has no name in its gp_plugin_entry.");
  }
  if (plugin.version == nullptr || *plugin.version == '\0') {
    throw PluginError(what + " has no version in its gp_plugin_entry.");
  }
  if (plugin.n_stages == 0 || plugin.stages == nullptr) {
    throw PluginError(what + " has no stages in its gp_plugin_entry.");
  }
  return plugin;
}

/// Adds stages all at once, or none: a plugin that fails leaves nothing behind.
void add_all(std::vector<StageInfo> infos, const std::string& what, const fs::path& file,
             StageRegistry& registry) {
  std::set<std::string> names;
  for (const StageInfo& info : infos) {
    if (!names.insert(info.name).second) {
      throw PluginError(what + " lists the stage '" + info.name + "' twice.");
    }
    if (const StageInfo* other = registry.find(info.name); other != nullptr) {
      throw PluginError("stage '" + info.name + "' is defined twice: by " + other->origin +
                        " and by " + file.string() +
                        ". Load only one of them, or rename the stage in one.");
    }
  }
  registry.set_origin(file.string());
  for (StageInfo& info : infos) registry.add(std::move(info));
  registry.set_origin("built in");
}

std::string library_name(const std::string& module) { return "libgp_stages_" + module + ".so"; }

bool is_loaded(const std::vector<PluginLoader::Loaded>& loaded, const fs::path& file) {
  return std::any_of(loaded.begin(), loaded.end(),
                     [&](const PluginLoader::Loaded& one) { return one.file == file; });
}

/// Which code it is, for StageInfo::identity. The version alone would miss what an author tries out
/// without counting it up.
std::string identity(const PluginLoader::Loaded& loaded) {
  // A plugin's name is its own, a module's is how the configuration calls it: perhaps with a path.
  const std::string name =
      loaded.abi.empty() ? loaded.file.stem().string() : loaded.name + " " + loaded.version;
  return name + ", SHA-256 " + loaded.sha256;
}

/// The shipped module that has the stages of this family; empty: none.
std::string module_of(std::string_view stage) {
  const std::string_view family = stage.substr(0, stage.find('.'));
  if (family == "source" || family == "image" || family == "sink") return "data";
  if (family == "train" || family == "evaluate") return "torch";
  return {};
}

}  // namespace

PluginLoader::PluginLoader(std::vector<fs::path> plugin_path)
    : PluginLoader(std::move(plugin_path), check_plugins_by_default()) {}

PluginLoader::PluginLoader(std::vector<fs::path> plugin_path, bool check_plugins)
    : plugin_path_(std::move(plugin_path)), check_plugins_(check_plugins) {}

void PluginLoader::load_plugin(const std::string& name, StageRegistry& registry) {
  fs::path file;
  std::error_code error;
  if (is_file_name(name)) {
    file = name;
    if (!fs::exists(file, error)) {
      throw PluginError("plugin '" + name + "': there is no such file (looked from " +
                        fs::current_path().string() + ").");
    }
  } else {
    const std::vector<fs::path> folders = search_path(plugin_path_);
    const auto found = std::find_if(folders.begin(), folders.end(), [&](const fs::path& folder) {
      return fs::exists(folder / (name + ".so"), error);
    });
    if (found == folders.end()) {
      const bool has_suffix = name.size() > 3 && name.ends_with(".so");
      throw PluginError("plugin '" + name + "' was not found; looked for " + name + ".so in" +
                        list_lines(folders) + "\n" +
                        (has_suffix ? "Give its name without .so, or a path with a slash."
                                    : "Check the name, or add its folder with --plugin-path or " +
                                          std::string(kPathVariable) + "."));
    }
    file = *found / (name + ".so");
  }
  file = fs::canonical(file);
  if (is_loaded(loaded_, file)) return;

  const std::string what = "plugin '" + name + "' (" + file.string() + ")";
  void* library = open_library(file, what);
  const auto* entry = static_cast<const gp_plugin*>(dlsym(library, "gp_plugin_entry"));
  if (entry == nullptr && dlsym(library, "gp_module_register") != nullptr) {
    throw PluginError(what +
                      " is a stage module, not a plugin. Name it under `modules:` of the "
                      "configuration, with its path.");
  }
  if (entry == nullptr) {
    throw PluginError(what +
                      " does not export gp_plugin_entry, so it is not a plugin of gan-pipeline. "
                      "Define it as in pipeline/plugin_abi.h, or use GP_PLUGIN of "
                      "pipeline/plugin_sdk.hpp.");
  }
  const gp_plugin plugin = check_entry(entry, what);
  std::vector<StageInfo> infos;
  for (std::size_t i = 0; i < plugin.n_stages; ++i) {
    if (plugin.stages[i] == nullptr) {
      throw PluginError(what + " has stages[" + std::to_string(i) + "] NULL.");
    }
    infos.push_back(plugin_stage_info(plugin.stages[i], plugin.name, file, check_plugins_));
  }
  const Loaded loaded{plugin.name, plugin.version, abi_text(plugin.abi_major, plugin.abi_minor),
                      file, sha256_file(file)};
  for (StageInfo& info : infos) info.identity = identity(loaded);
  add_all(std::move(infos), what, file, registry);
  loaded_.push_back(loaded);
}

void PluginLoader::load_module(const std::string& name, StageRegistry& registry) {
  const fs::path folder = own_folder() / "modules";
  fs::path file = is_file_name(name) ? fs::path(name) : folder / library_name(name);
  std::error_code error;
  if (!fs::exists(file, error)) {
    if (name == "torch") {
      throw PluginError(
          "the stages train.* and evaluate.* are in the module 'torch', which is not built: there "
          "is no " +
          file.string() +
          ". Run tools/bootstrap to get libtorch, and configure with -DGP_TORCH=ON.");
    }
    throw PluginError("module '" + name + "' was not found; looked for " + file.string() +
                      ". Check the name, or give the file with a path that holds a slash.");
  }
  file = fs::canonical(file);
  if (is_loaded(loaded_, file)) return;

  const std::string what = "module '" + name + "' (" + file.string() + ")";
  void* library = open_library(file, what);
  const auto symbol = [&](const char* symbol_name) {
    void* address = dlsym(library, symbol_name);
    if (address == nullptr && dlsym(library, "gp_plugin_entry") != nullptr) {
      throw PluginError(what +
                        " is a plugin, not a stage module. Name it under `plugins:` of the "
                        "configuration.");
    }
    if (address == nullptr) {
      throw PluginError(what + " does not export " + symbol_name +
                        ", so it is not a stage module of gan-pipeline. Define it with "
                        "GP_STAGE_MODULE of pipeline/module.hpp.");
    }
    return address;
  };
  const auto build_id = reinterpret_cast<const char* (*)()>(symbol("gp_module_build_id"));
  const auto fill = reinterpret_cast<void (*)(StageRegistry&)>(symbol("gp_module_register"));
  const std::string found_id = build_id();
  if (found_id != GP_BUILD_ID) {
    throw PluginError(what + " was built with\n  " + found_id + "\nbut this gan-pipeline is\n  " +
                      GP_BUILD_ID +
                      "\nC++ modules fit only the build that they were made for: "
                      "build the module again.");
  }
  StageRegistry its_own;
  its_own.set_origin(file.string());
  try {
    fill(its_own);
  } catch (const PluginError& fault) {
    throw PluginError(what + ": " + fault.what());
  } catch (const std::exception& fault) {
    throw PluginError(what + " failed to register its stages: " + fault.what());
  } catch (...) {
    throw PluginError(what + " failed to register its stages.");
  }
  std::vector<StageInfo> infos;
  for (const StageInfo* info : its_own.list()) infos.push_back(*info);
  const Loaded loaded{name, found_id, "", file, sha256_file(file)};
  // The shipped modules are this program; their change is its change of version.
  if (file.parent_path() != fs::weakly_canonical(folder)) {
    for (StageInfo& info : infos) info.identity = identity(loaded);
  }
  add_all(std::move(infos), what, file, registry);
  loaded_.push_back(loaded);
}

void PluginLoader::load_modules_for(const std::vector<std::string>& stage_names,
                                    StageRegistry& registry) {
  for (const std::string& name : stage_names) {
    if (registry.find(name) != nullptr) continue;
    if (const std::string module = module_of(name); !module.empty()) load_module(module, registry);
  }
}

std::vector<std::string> PluginLoader::available_plugins() const {
  std::set<std::string> names;
  for (const fs::path& folder : search_path(plugin_path_)) {
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      if (entry->path().extension() == ".so") names.insert(entry->path().stem().string());
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace gp
