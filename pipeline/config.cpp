#include "pipeline/config.hpp"

#include <algorithm>
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
  for (const ConfigNode& item : list->items) {
    if (!item.is_text() || item.text.empty()) continue;
    names.push_back(library_name(item));
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

std::string library_name(const ConfigNode& node) {
  if (node.text.find('/') == std::string::npos) return node.text;
  const auto expanded = expand_path(node.text);
  if (!expanded.value) {
    throw ConfigError(node.mark.text() + ": " + shown(node.text) + " " + expanded.problem);
  }
  return absolute_path(*expanded.value, node.mark);
}

ConfigFile::ConfigFile() = default;
ConfigFile::ConfigFile(ConfigFile&&) noexcept = default;
ConfigFile& ConfigFile::operator=(ConfigFile&&) noexcept = default;
ConfigFile::~ConfigFile() = default;

Parsed<std::string> read_config_text(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {{}, "there is no such file" + missing_file_hint(path)};
  if (fs::is_directory(path, error)) return {{}, "this is a folder; expected a YAML file"};
  std::ifstream file(path, std::ios::binary);
  // One byte more than parse() takes, so that it can say "too large" of any device or file.
  std::string text((std::size_t{1} << 20) + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof()))
    return {{}, "can't be read; check its permissions"};
  text.resize(static_cast<std::size_t>(file.gcount()));
  return {std::move(text), ""};
}

ConfigFile ConfigFile::read(const fs::path& path, const std::vector<std::string>& overrides) {
  const auto file = read_config_text(path);
  if (!file.value) throw ConfigError(path.string() + ": " + file.problem);
  return parse(*file.value, path, overrides);
}

ConfigFile ConfigFile::parse(const std::string& yaml, const fs::path& path,
                             const std::vector<std::string>& overrides) {
  Problems problems;
  std::optional<Node> root = parse_config(yaml, path, problems);
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
  const auto collect = [&names](const Node* stages, const auto& self) -> void {
    if (stages == nullptr || stages->type != Node::Type::kList) return;
    for (const Node& stage : stages->items) {
      const Node* use = stage.find("use");
      self(stage.find("stages"), self);
      if (use != nullptr && use->is_text()) names.push_back(use->text);
    }
  };
  collect(root_->find("stages"), collect);
  return names;
}

void ConfigFile::end_images_with(const std::string& use) {
  Node* stages = root_->find("stages");
  if (stages == nullptr || stages->type != Node::Type::kList) return;  // check_config says so
  const auto end = std::find_if(stages->items.begin(), stages->items.end(), [](const Node& stage) {
    const Node* name = stage.find("use");
    return name != nullptr && (name->text == kBatchStage || name->text.starts_with("train.") ||
                               name->text.starts_with("sink."));
  });
  const Mark mark = end != stages->items.end() ? end->mark : stages->mark;
  stages->items.erase(end, stages->items.end());
  Node name;
  name.type = Node::Type::kScalar;
  name.key = "use";
  name.text = use;
  name.mark = name.key_mark = mark;
  Node stage;
  stage.type = Node::Type::kMap;
  stage.mark = mark;
  stage.items.push_back(std::move(name));
  stages->items.push_back(std::move(stage));
}

std::string Config::resolved_yaml() const {
  const auto text = [](const std::string& value) { return to_string(Value(value)); };
  const auto list = [&](const std::vector<std::string>& values) {
    std::string yaml = "[";
    for (const std::string& value : values) {
      // With a slash it is a file.
      yaml += (yaml.size() > 1 ? ", " : "") +
              (value.find('/') == std::string::npos ? text(value) : path_yaml(value));
    }
    return yaml + "]";
  };
  std::vector<const ParamSpec*> overridable;
  if (!stages.empty()) overridable = overridable_specs(*stages.front().info);

  std::string yaml = "name: " + text(name) + "\nseed: " + std::to_string(seed) + "\n";
  if (!plugins.empty()) yaml += "plugins: " + list(plugins) + "\n";
  if (!modules.empty()) yaml += "modules: " + list(modules) + "\n";
  yaml += "stages:\n";
  const auto add_stages = [&](const std::vector<StageConfig>& some, const std::string& parent,
                              const std::string& indent, const auto& self) -> void {
    for (const StageConfig& stage : some) {
      yaml += indent + "- use: " + text(stage.use) + "\n";
      const std::string own = stage.address.substr(parent.size());
      if (own != stage.use) yaml += indent + "  name: " + text(own) + "\n";
      if (!parent.empty()) yaml += indent + "  weight: " + to_string(Value(stage.weight)) + "\n";
      for (const ParamSpec* spec : all_specs(*stage.info)) {
        if (spec->type == ParamType::kStages) {
          yaml += indent + "  " + spec->name + ":\n";
          self(stage.choices, stage.address + ".", indent + "    ", self);
        }
        const auto value = stage.params.values().find(spec->name);
        if (value == stage.params.values().end()) continue;
        yaml += indent + "  " + spec->name + ": " + yaml_value(value->second, *spec, overridable) +
                "\n";
      }
    }
  };
  add_stages(stages, "", "  ", add_stages);
  yaml += "run:\n";
  yaml += "  device: " + text(run.device) + "\n";
  yaml += "  precision: " + text(run.precision) + "\n";
  yaml += "  threads: " + threads_text(run.threads) + "\n";
  yaml += "  data_threads: " + threads_text(run.data_threads) + "\n";
  yaml += "  max_in_flight: " + std::to_string(run.max_in_flight) + "\n";
  yaml += "  prefetch: " + std::to_string(run.prefetch) + "\n";
  return yaml;
}

const StageConfig* Config::find_stage(const std::string& wanted) const {
  const auto find = [&wanted](const std::vector<StageConfig>& list,
                              const auto& self) -> const StageConfig* {
    for (const StageConfig& stage : list) {
      if (stage.address == wanted) return &stage;
      if (const StageConfig* choice = self(stage.choices, self)) return choice;
    }
    return nullptr;
  };
  return find(stages, find);
}

void add_built_in_stages(StageRegistry& registry) {
  StageInfo info;
  info.name = kBatchStage;
  info.doc = "Gathers images into batches, in the order of the data";
  info.in = Kind::kImage;
  info.out = Kind::kBatch;
  info.concurrency = Concurrency::kSerial;
  info.params.integer("size", 64, "images in a batch", 1, 16384)
      .choice("last", "drop", {"drop", "keep"},
              "what becomes of the last batch of an epoch when it is not full");
  registry.add(std::move(info));

  StageInfo one_of;
  one_of.name = kOneOfStage;
  one_of.doc = "Sends each image through one of several stages, chosen by their weights";
  one_of.in = Kind::kImage;
  one_of.out = Kind::kImage;
  one_of.random = true;
  one_of.params.real("p", 1, "probability that any is chosen", 0, 1)
      .stages("stages", "what to choose from; each may have a `weight` (default 1)");
  registry.add(std::move(one_of));
}

const ParamSpec& choice_weight_spec() {
  static const ParamSpec kSpec = [] {
    ParamSchema schema;
    schema.real("weight", 1, "how often this stage is chosen, relative to the others", 0, 1e9);
    return schema.specs().front();
  }();
  return kSpec;
}

const ParamSchema& run_schema() {
  static const ParamSchema kSchema = [] {
    const RunSettings defaults;
    ParamSchema schema;
    schema
        .text("device", defaults.device,
              "where to train: auto (a GPU where there is one) | cpu | cuda | cuda:N")
        .choice("precision", defaults.precision, {"auto", "fp32", "bf16"},
                "arithmetic of the trainer; auto: bf16 where that is faster")
        .integer("threads", 1, "thread budget of the run; auto: all processors", 1, 512)
        .integer(
            "data_threads", 1,
            "threads of the data path; auto: measured before the first step where `threads` is "
            "auto, too, else an eighth beside a trainer on the CPU, all but one on a GPU",
            1, 512)
        .integer("max_in_flight", defaults.max_in_flight,
                 "samples between source and trainer, at least batch size * (prefetch + 1)", 1,
                 1000000)
        .integer("prefetch", defaults.prefetch, "batches made ahead", 0, 64);
    return schema;
  }();
  return kSchema;
}

const ParamSpec& held_out_fraction_spec() {
  static const ParamSpec kSpec = [] {
    ParamSchema schema;
    schema
        .real("fraction", 0, "share of the keys that is held out of training, chosen by their hash",
              0, 1)
        .maybe();
    return schema.specs().front();
  }();
  return kSpec;
}

const ParamSchema& common_source_params() {
  static const ParamSchema kSchema = [] {
    ParamSchema schema;
    schema
        .choice("on_error", "skip", {"stop", "skip"},
                "what a bad sample does: stop the run, or be left out and noted in rejects.jsonl")
        .may_change();
    schema
        .text("max_rejects", "10%",
              "bad samples an epoch before the run stops: a number, or a share of the source "
              "such as 10%")
        .may_change();
    return schema;
  }();
  return kSchema;
}

}  // namespace gp
