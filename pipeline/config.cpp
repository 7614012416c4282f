#include "pipeline/config.hpp"

#include <fstream>
#include <system_error>

#include "pipeline/config_node.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// The plugins or modules that are named; what is malformed is check_config's to complain about.
std::vector<std::string> library_names(const ConfigFile& file, std::string_view key) {
  std::vector<std::string> names;
  const ConfigNode* list = file.root().find(key);
  if (list == nullptr || list->type != ConfigNode::Type::kList) return names;
  Problems unused;
  const ValueReader reader(folder_of(file.path()), unused);
  for (const ConfigNode& item : list->items) {
    if (!item.is_text() || item.text.empty()) continue;
    const bool is_file = item.text.find('/') != std::string::npos;
    names.push_back(is_file ? reader.absolute_path(item.text, item.mark) : item.text);
  }
  return names;
}

std::string missing_file_hint(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".yaml" || entry->path().extension() == ".yml") {
      names.push_back(entry->path().filename().string());
    }
  }
  return did_you_mean(path.filename().string(), names);
}

}  // namespace

ConfigFile::ConfigFile() = default;
ConfigFile::ConfigFile(ConfigFile&&) noexcept = default;
ConfigFile& ConfigFile::operator=(ConfigFile&&) noexcept = default;
ConfigFile::~ConfigFile() = default;

ConfigFile ConfigFile::read(const fs::path& path, const std::vector<std::string>& overrides) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    throw ConfigError(path.string() + ": there is no such file" + missing_file_hint(path));
  }
  if (fs::is_directory(path, error)) {
    throw ConfigError(path.string() + ": this is a folder; expected a YAML file");
  }
  std::ifstream file(path, std::ios::binary);
  // One byte more than parse() takes, so that it can say "too large" of any device or file.
  std::string text((std::size_t{1} << 20) + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof())) {
    throw ConfigError(path.string() + ": can't be read; check its permissions");
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse(text, path, overrides);
}

ConfigFile ConfigFile::parse(const std::string& yaml, const fs::path& path,
                             const std::vector<std::string>& overrides) {
  const std::string name = path.string();
  const auto mark_of = [&name](int line, int column) { return Mark{name, line, column}; };
  Problems problems;
  std::optional<Node> root = parse_yaml(yaml, mark_of, problems);
  if (root && root->type != Node::Type::kMap) {
    problems.add(
        root->mark,
        "expected a map of name, seed, plugins, stages, run at the top; found " + found(*root));
    root.reset();
  }
  if (root) {
    for (const std::string& text : overrides) apply_override(*root, text, problems);
  }
  problems.throw_if_any();

  ConfigFile file;
  file.root_ = std::make_unique<Node>(std::move(*root));
  file.path_ = path;
  return file;
}

std::vector<std::string> ConfigFile::plugins() const { return library_names(*this, "plugins"); }

std::vector<std::string> ConfigFile::modules() const { return library_names(*this, "modules"); }

std::vector<std::string> ConfigFile::stage_names() const {
  std::vector<std::string> names;
  const Node* stages = root_->find("stages");
  if (stages == nullptr || stages->type != Node::Type::kList) return names;
  for (const Node& stage : stages->items) {
    const Node* use = stage.find("use");
    if (use != nullptr && use->is_text()) names.push_back(use->text);
  }
  return names;
}

std::string Config::resolved_yaml() const {
  const auto text = [](const std::string& value) { return to_string(Value(value)); };
  const auto list = [&](const std::vector<std::string>& values) {
    std::string yaml = "[";
    for (const std::string& value : values) yaml += (yaml.size() > 1 ? ", " : "") + text(value);
    return yaml + "]";
  };
  std::vector<const ParamSpec*> overridable;
  if (!stages.empty()) overridable = overridable_specs(*stages.front().info);

  std::string yaml = "name: " + text(name) + "\nseed: " + std::to_string(seed) + "\n";
  if (!plugins.empty()) yaml += "plugins: " + list(plugins) + "\n";
  if (!modules.empty()) yaml += "modules: " + list(modules) + "\n";
  yaml += "stages:\n";
  for (const StageConfig& stage : stages) {
    yaml += "  - use: " + text(stage.use) + "\n";
    if (stage.address != stage.use) yaml += "    name: " + text(stage.address) + "\n";
    for (const ParamSpec* spec : all_specs(*stage.info)) {
      const auto value = stage.params.values().find(spec->name);
      if (value == stage.params.values().end()) continue;
      yaml += "    " + spec->name + ": " + yaml_value(value->second, *spec, overridable) + "\n";
    }
  }
  yaml += "run:\n";
  yaml += "  device: " + text(run.device) + "\n";
  yaml += "  precision: " + text(run.precision) + "\n";
  yaml += "  threads: " + (run.threads == 0 ? "auto" : std::to_string(run.threads)) + "\n";
  yaml += "  max_in_flight: " + std::to_string(run.max_in_flight) + "\n";
  yaml += "  prefetch: " + std::to_string(run.prefetch) + "\n";
  return yaml;
}

StageInfo batch_stage_info() {
  StageInfo info;
  info.name = "batch";
  info.doc = "Gathers images into batches, in the order of the data";
  info.in = Kind::kImage;
  info.out = Kind::kBatch;
  info.concurrency = Concurrency::kSerial;
  info.params.integer("size", 64, "images in a batch", 1, 16384)
      .choice("last", "drop", {"drop", "keep"},
              "what becomes of the last batch of an epoch when it is not full");
  return info;
}

const ParamSpec& held_out_fraction_spec() {
  static const ParamSpec kSpec = [] {
    ParamSpec spec;
    spec.name = "fraction";
    spec.type = ParamType::kReal;
    spec.optional = true;
    spec.min = 0;
    spec.max = 1;
    spec.doc = "share of the keys that is held out of training, chosen by their hash";
    return spec;
  }();
  return kSpec;
}

const ParamSchema& common_source_params() {
  static const ParamSchema kSchema = [] {
    ParamSchema schema;
    schema.choice(
        "on_error", "skip", {"stop", "skip"},
        "what a bad sample does: stop the run, or be left out and noted in rejects.jsonl");
    schema.text("max_rejects", "10%",
                "bad samples an epoch before the run stops: a number, or a share of the source "
                "such as 10%");
    return schema;
  }();
  return kSchema;
}

}  // namespace gp
