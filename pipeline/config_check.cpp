#include <algorithm>
#include <array>
#include <set>

#include "pipeline/config_node.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

using Node = ConfigNode;
namespace fs = std::filesystem;

constexpr std::size_t kLongestName = 100;

/// Names become parts of file names and addresses.
bool safe_name(const std::string& name) {
  if (name.empty() || name.size() > kLongestName || name.front() == '.' || name.front() == '-') {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

std::string name_from(const fs::path& path) {
  std::string name = path.stem().string().substr(0, kLongestName);
  for (char& c : name) {
    if (!safe_name(std::string("x") + c)) c = '_';
  }
  return safe_name(name) ? name : "run" + name.substr(0, kLongestName - 3);
}

bool device_is_known(const std::string& device) {
  if (device == "auto" || device == "cpu" || device == "cuda") return true;
  constexpr std::string_view kPrefix = "cuda:";
  if (!device.starts_with(kPrefix)) return false;
  const std::string number = device.substr(kPrefix.size());
  return !number.empty() && number.size() <= 2 &&
         number.find_first_not_of("0123456789") == std::string::npos &&
         (number.size() == 1 || number.front() != '0');
}

bool is_source(const StageInfo& info) { return info.in == Kind::kNothing; }
bool is_trainer(const StageInfo& info) { return info.out == Kind::kSnapshot; }
bool is_evaluator(const StageInfo& info) { return info.in == Kind::kSnapshot; }
bool is_sink(const StageInfo& info) { return info.out == Kind::kNothing && !is_evaluator(info); }

class Checker {
 public:
  Checker(const ConfigFile& file, const StageRegistry& registry)
      : file_(file), registry_(registry), reader_(problems_) {}

  Config check() {
    const Node& root = file_.root();
    config_.path = file_.path();
    check_keys(root, {"base", "name", "seed", "plugins", "modules", "stages", "run"});
    check_name(root.find("name"));
    check_seed(root.find("seed"));
    config_.plugins = file_.plugins();
    config_.modules = file_.modules();
    check_libraries(root.find("plugins"), "plugins");
    check_libraries(root.find("modules"), "modules");
    check_run(root.find("run"));
    check_stages(root.find("stages"));
    problems_.throw_if_any();
    return std::move(config_);
  }

 private:
  /// One entry of the list while it is checked.
  struct Entry {
    const Node* node = nullptr;
    const StageInfo* info = nullptr;  ///< null: unknown, which has been said
    std::string place;                ///< stages[4]
    std::string address;
    std::string label;  ///< stages[4] 'augment.flip'
    Mark mark;          ///< of the `use`
    std::vector<Entry> choices;
  };

  void check_keys(const Node& root, const std::vector<std::string>& known) {
    for (const Node& item : root.items) {
      if (std::find(known.begin(), known.end(), item.key) != known.end()) continue;
      std::string hint = did_you_mean(item.key, known);
      if (run_schema().find(item.key) != nullptr) hint = "; it belongs below `run:`";
      problems_.add(item.key_mark, "unknown key '" + shown(item.key) + "'" +
                                       (hint.empty() ? "; expected " + joined(known) : hint));
    }
  }

  void check_name(const Node* node) {
    config_.name = name_from(file_.path());
    if (node == nullptr) return;
    if (!node->is_text()) {
      problems_.add(node->mark, "name is " + found(*node) + "; expected a text");
    } else if (!safe_name(node->text)) {
      problems_.add(node->mark, "name = '" + shown(node->text) +
                                    "' can't be part of a file name; use letters, digits, '_', '-' "
                                    "and '.', at most " +
                                    std::to_string(kLongestName));
    } else {
      config_.name = node->text;
      config_.marks["name"] = node->mark;
    }
  }

  void check_seed(const Node* node) {
    if (node == nullptr) return;
    const auto value = node->is_text() && !node->quoted ? parse_unsigned(node->text) : std::nullopt;
    if (value) {
      config_.seed = *value;
      config_.marks["seed"] = node->mark;
    } else {
      const std::string why = node->is_text() ? parse_integer(node->text).problem : "";
      problems_.add(node->mark, "seed is " + found(*node) + (node->quoted ? " in quotes" : "") +
                                    (why.empty() ? "" : ", which " + why) +
                                    "; expected a whole number from 0 to 18446744073709551615");
    }
  }

  void check_libraries(const Node* node, const std::string& what) {
    if (node == nullptr) return;
    if (node->type != Node::Type::kList) {
      problems_.add(node->mark, what + " is " + found(*node) +
                                    "; expected a list of names, such as [" +
                                    (what == "plugins" ? "augment_flip" : "data") + "]");
      return;
    }
    std::set<std::string> seen;
    for (std::size_t i = 0; i < node->items.size(); ++i) {
      const Node& item = node->items[i];
      const std::string label = what + "[" + std::to_string(i) + "]";
      config_.marks[label] = item.mark;
      if (!item.is_text() || item.text.empty()) {
        problems_.add(item.mark, label + " is " + found(item) + "; expected a name or a file");
      } else if (!seen.insert(library_name(item)).second) {
        problems_.add(item.mark, label + " = '" + shown(item.text) + "' is there twice");
      }
    }
  }

  void check_run(const Node* node) {
    if (node == nullptr) return;
    if (node->type != Node::Type::kMap) {
      problems_.add(node->mark,
                    "run is " + found(*node) + "; expected a map such as {device: auto}");
      return;
    }
    RunSettings& run = config_.run;
    for (const Node& item : node->items) {
      const ParamSpec* spec = run_schema().find(item.key);
      if (spec == nullptr) {
        std::vector<std::string> names;
        for (const ParamSpec& known : run_schema().specs()) names.push_back(known.name);
        const std::string hint = did_you_mean(item.key, names);
        problems_.add(item.key_mark, "run: unknown key '" + shown(item.key) + "'" +
                                         (hint.empty() ? "; expected " + joined(names) : hint));
        continue;
      }
      config_.marks["run." + item.key] = item.mark;
      const bool counts_threads = item.key == "threads" || item.key == "data_threads";
      if (counts_threads && item.is_text() && item.text == "auto") {
        (item.key == "threads" ? run.threads : run.data_threads) = 0;
        continue;
      }
      const auto value = reader_.read(item, *spec, "run: ");
      if (!value) continue;
      if (item.key == "device") {
        run.device = std::get<std::string>(*value);
        if (!device_is_known(run.device)) {
          problems_.add(item.mark, "run: device = " + to_string(*value) +
                                       " is not one of auto, cpu, cuda, cuda:N");
        }
      } else if (item.key == "precision") {
        run.precision = std::get<std::string>(*value);
      } else {
        const int number = static_cast<int>(std::get<std::int64_t>(*value));
        if (item.key == "threads") run.threads = number;
        if (item.key == "data_threads") run.data_threads = number;
        if (item.key == "max_in_flight") run.max_in_flight = number;
        if (item.key == "prefetch") run.prefetch = number;
      }
    }
  }

  void check_stages(const Node* node) {
    if (node == nullptr) {
      problems_.add(file_.root().mark,
                    "'stages' is missing; expected a list that begins with a "
                    "source.* and ends in a train.* or sink.* stage");
      return;
    }
    if (node->type != Node::Type::kList || node->items.empty()) {
      problems_.add(node->mark,
                    "stages is " +
                        (node->type == Node::Type::kList ? "an empty list" : found(*node)) +
                        "; expected a list of stages, such as '- {use: image.decode}'");
      return;
    }
    for (std::size_t i = 0; i < node->items.size(); ++i) {
      entries_.push_back(identify(node->items[i], "stages[" + std::to_string(i) + "]", ""));
    }
    std::map<std::string, std::string> places;
    check_addresses(entries_, places);
    const auto source = std::find_if(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return entry.info != nullptr && is_source(*entry.info);
    });
    if (source != entries_.end()) reader_.set_overridable(overridable_specs(*source->info));
    for (const Entry& entry : entries_) {
      if (entry.info != nullptr) config_.stages.push_back(check_stage(entry, false));
    }
    check_kinds();
    check_in_flight();
  }

  /// `parent`: the address of the stage that this one is a choice of, and a dot.
  Entry identify(const Node& node, const std::string& place, const std::string& parent) {
    Entry entry;
    entry.node = &node;
    entry.mark = node.mark;
    entry.place = entry.label = place;
    const Node* use = node.find("use");
    if (node.type != Node::Type::kMap) {
      problems_.add(node.mark, place + " is " + found(node) + "; expected a map: {use: " +
                                   (node.is_text() ? shown(node.text) : "NAME") + "}");
    } else if (use == nullptr) {
      const bool changes = node.find("change") != nullptr || node.find("remove") != nullptr;
      problems_.add(node.mark, place + (changes ? " changes a stage, which only a file with a "
                                                  "`base:` can"
                                                : " has no 'use'; expected {use: NAME, ...}"));
    } else if (!use->is_text()) {
      problems_.add(use->mark, place + ": use is " + found(*use) + "; expected a stage's name");
    } else {
      entry.mark = use->mark;
      entry.info = registry_.find(use->text);
      entry.address = parent + stage_address(node);
      entry.label += " '" + shown(entry.address) + "'";
      if (entry.info == nullptr) {
        problems_.add(use->mark, place + ": unknown stage '" + shown(use->text) + "'" +
                                     unknown_stage_hint(use->text));
      } else if (const ParamSpec* list = list_of_stages(*entry.info)) {
        identify_choices(entry, *list);
      }
    }
    return entry;
  }

  /// The parameter of a stage that is a list of stages, where it has one.
  static const ParamSpec* list_of_stages(const StageInfo& info) {
    for (const ParamSpec& spec : info.params.specs()) {
      if (spec.type == ParamType::kStages) return &spec;
    }
    return nullptr;
  }

  void identify_choices(Entry& entry, const ParamSpec& spec) {
    const Node* list = entry.node->find(spec.name);
    if (list == nullptr) return;  // which check_stage says
    if (list->type != Node::Type::kList || list->items.empty()) {
      problems_.add(list->mark,
                    entry.label + ": " + spec.name + " is " +
                        (list->type == Node::Type::kList ? "an empty list" : found(*list)) +
                        "; expected a list of stages, such as [{use: augment.flip}]");
      return;
    }
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      const std::string place = entry.place + "." + spec.name + "[" + std::to_string(i) + "]";
      Entry choice = identify(list->items[i], place, entry.address + ".");
      if (choice.info != nullptr &&
          (choice.info->in != Kind::kImage || choice.info->out != Kind::kImage)) {
        problems_.add(choice.mark, choice.label + " turns " + to_string(choice.info->in) +
                                       " into " + to_string(choice.info->out) + "; " +
                                       entry.info->name +
                                       " chooses among stages that turn image into image");
        choice.info = nullptr;
      }
      entry.choices.push_back(std::move(choice));
    }
  }

  std::string unknown_stage_hint(const std::string& name) const {
    std::vector<std::string> known, siblings;
    const std::string prefix = name.substr(0, name.find('.') + 1);  // "" without a dot
    for (const StageInfo* info : registry_.list()) {
      known.push_back(info->name);
      if (!prefix.empty() && info->name.starts_with(prefix)) siblings.push_back(info->name);
    }
    static constexpr std::array<std::string_view, 5> kShipped = {"source.", "image.", "sink.",
                                                                 "train.", "evaluate."};
    const bool shipped = std::find(kShipped.begin(), kShipped.end(), prefix) != kShipped.end();
    std::string hint = did_you_mean(name, known);
    if (!shipped && !prefix.empty()) {
      hint += hint.empty() ? "; is its plugin missing from `plugins:`?"
                           : " Or is its plugin missing from `plugins:`?";
    }
    if (hint.empty()) {
      hint = siblings.empty() ? "; `gan-pipeline inspect` lists all stages"
                              : "; there are " + joined(siblings);
    }
    return hint;
  }

  /// `places`: where each address was seen first.
  void check_addresses(const std::vector<Entry>& entries,
                       std::map<std::string, std::string>& places) {
    for (const Entry& entry : entries) {
      const Node* name = entry.node->find("name");
      if (name != nullptr && !name->is_text()) {
        problems_.add(name->mark, entry.label + ": name is " + found(*name) + "; expected a text");
        continue;
      }
      if (name != nullptr && !safe_name(name->text)) {
        problems_.add(name->mark,
                      entry.label + ": name = '" + shown(name->text) +
                          "' can't be an address; use letters, digits, '_', '-' and '.'");
        continue;
      }
      if (entry.address.empty()) continue;
      const auto [other, fresh] = places.try_emplace(entry.address, entry.place);
      if (!fresh) {
        problems_.add(name != nullptr ? name->mark : entry.mark,
                      entry.label + ": the address '" + shown(entry.address) + "' is that of " +
                          other->second + " too; give one of them a `name:` of its own");
      }
      check_addresses(entry.choices, places);
    }
  }

  /// A stage of the list, or with `is_choice` one that augment.one_of chooses.
  StageConfig check_stage(const Entry& entry, bool is_choice) {
    StageConfig stage;
    stage.mark = entry.mark;
    stage.info = entry.info;
    stage.use = entry.info->name;
    stage.address = entry.address;
    const std::string where = entry.label + ": ";
    auto specs = all_specs(*entry.info);
    if (is_choice) {
      const ParamSpec& weight = choice_weight_spec();
      if (find_spec(specs, weight.name) != nullptr) {
        problems_.add(entry.mark, where + "has a parameter '" + weight.name +
                                      "' of its own, so it can't be a choice of " + kOneOfStage);
      }
      specs.push_back(&weight);
    }
    for (const Node& item : entry.node->items) {
      if (item.key == "use" || item.key == "name") continue;
      const ParamSpec* spec = find_spec(specs, item.key);
      if (spec != nullptr && spec->type == ParamType::kStages) continue;  // see identify_choices
      if (spec == nullptr) {
        auto names = names_of(specs);
        const std::string hint = did_you_mean(item.key, names);
        problems_.add(item.key_mark, where + "unknown parameter '" + shown(item.key) + "'" +
                                         (!hint.empty()   ? hint
                                          : names.empty() ? "; it takes none"
                                                          : "; it takes " + joined(names)));
      } else if (auto value = reader_.read(item, *spec, where)) {
        if (spec == &choice_weight_spec()) {
          stage.weight = std::get<double>(*value);
        } else {
          stage.params.set(spec->name, std::move(*value));
        }
        stage.marks[spec->name] = item.mark;
        for (const Node& member : item.items) {
          if (!member.key.empty()) stage.marks[spec->name + "." + member.key] = member.mark;
        }
      }
    }
    for (const ParamSpec* spec : specs) {
      if (entry.node->find(spec->name) != nullptr || spec == &choice_weight_spec()) continue;
      if (spec->default_value) {
        stage.params.set(spec->name, with_full_path(*spec, entry.node->mark));
      } else if (!spec->optional) {
        problems_.add(entry.mark, where + "the parameter '" + spec->name + "' is missing" +
                                      (spec->doc.empty() ? "" : " (" + spec->doc + ")"));
      }
    }
    if (is_source(*entry.info)) check_rejects(entry, stage.params);
    double weights = 0;
    for (const Entry& choice : entry.choices) {
      if (choice.info == nullptr) return stage;  // said
      stage.choices.push_back(check_stage(choice, true));
      weights += stage.choices.back().weight;
    }
    if (!stage.choices.empty() && !(weights > 0)) {
      problems_.add(entry.mark, where +
                                    "the weights of its stages are all 0; at least one must "
                                    "be greater");
    }
    return stage;
  }

  /// Defaults that are paths start at the folder of the stage's file, as if they were written in
  /// it.
  static Value with_full_path(const ParamSpec& spec, const Mark& mark) {
    const auto* text = std::get_if<std::string>(&*spec.default_value);
    if (spec.type != ParamType::kPath || text == nullptr) return *spec.default_value;
    return Value(absolute_path(*text, mark));
  }

  void check_rejects(const Entry& entry, const Params& params) {
    if (params.has("on_error")) config_.rejects.stop = params.text("on_error") == "stop";
    if (!params.has("max_rejects")) return;
    const std::string& text = params.text("max_rejects");
    if (parse_max_rejects(text, config_.rejects)) return;
    const Node* node = entry.node->find("max_rejects");
    problems_.add(node != nullptr ? node->mark : entry.mark,
                  entry.label + ": max_rejects = " + shown(text) +
                      " is neither a whole number nor a share such as 10%");
  }

  /// Each stage must take what the one before it gives.
  void check_kinds() {
    const Entry& first = entries_.front();
    if (first.info != nullptr && !is_source(*first.info)) {
      problems_.add(first.mark, first.label + " takes " + to_string(first.info->in) +
                                    "; the first stage must be a source, such as source.folder");
    }
    const Entry* before = &first;
    bool ended = false;
    for (std::size_t i = 1; i < entries_.size(); ++i) {
      const Entry& entry = entries_[i];
      if (entry.info != nullptr && is_source(*entry.info)) {
        problems_.add(entry.mark,
                      entry.label + " is a source; there is one, and it is the first stage");
        continue;  // what follows still takes what came before
      }
      if (entry.info != nullptr && before->info != nullptr) {
        const std::string problem = link_problem(*before, entry);
        if (!problem.empty()) problems_.add(entry.mark, entry.label + " " + problem);
      }
      // All evaluators take the trainer's snapshot.
      if (entry.info == nullptr || !is_evaluator(*entry.info)) before = &entry;
    }
    for (const Entry& entry : entries_) {
      ended = ended || entry.info == nullptr || is_trainer(*entry.info) || is_sink(*entry.info);
    }
    if (!ended) {
      const Entry& last = entries_.back();
      problems_.add(last.mark, last.label + " is the last stage and gives " +
                                   to_string(last.info->out) +
                                   "; the list must end in a train.* or sink.* stage");
    }
  }

  static std::string steps_between(Kind from, Kind to) {
    std::string steps;
    const auto step = [&](Kind kind, const char* name) {
      if (from <= kind && kind < to) steps += (steps.empty() ? "" : ", then ") + std::string(name);
    };
    step(Kind::kBytes, "image.decode");
    step(Kind::kImage, "batch");
    step(Kind::kBatch, "a train.* stage");
    return steps;
  }

  static std::string link_problem(const Entry& before, const Entry& entry) {
    const Kind given = before.info->out;
    const Kind taken = entry.info->in;
    if (is_evaluator(*before.info)) return "";  // misplaced itself, which has been said
    if (given == taken) return "";
    if (given == Kind::kNothing) {
      return "comes after " + before.label + ", which is the end; move it before, or remove it";
    }
    const std::string link =
        "takes " + to_string(taken) + ", but " + before.label + " gives " + to_string(given) + "; ";
    if (taken > given) return link + "insert " + steps_between(given, taken) + " between them";
    if (given == Kind::kSnapshot) {
      return is_trainer(*entry.info) ? link + "one list trains one model: remove one of the two"
                                     : link + "only evaluate.* stages may follow a train.* stage";
    }
    if (given == Kind::kBatch) {
      if (entry.info->out == Kind::kBatch)
        return link + "batches are made once: remove one of the two";
      if (is_sink(*entry.info)) return link + "a sink takes single images: remove " + before.label;
      return link + "move it before " + before.label;
    }
    return link + "the images are decoded already: remove it";
  }

  void check_in_flight() {
    const auto batch =
        std::find_if(config_.stages.begin(), config_.stages.end(),
                     [](const StageConfig& stage) { return stage.info->out == Kind::kBatch; });
    if (batch == config_.stages.end() || !batch->params.has("size")) return;
    const std::int64_t size = batch->params.integer("size");
    const RunSettings& run = config_.run;
    const std::int64_t needed = run.least_in_flight(size);
    if (run.max_in_flight >= needed) return;
    // Point at what was written: the limit, else the batch.
    Mark mark = batch->mark;
    const Node* run_node = file_.root().find("run");
    const Node* limit = run_node == nullptr ? nullptr : run_node->find("max_in_flight");
    if (limit != nullptr) {
      mark = limit->mark;
    } else {
      for (const Entry& entry : entries_) {
        if (entry.info != batch->info) continue;
        if (const Node* written = entry.node->find("size")) mark = written->mark;
      }
    }
    problems_.add(
        mark,
        "run: max_in_flight = " + std::to_string(run.max_in_flight) + " is less than batch size " +
            std::to_string(size) + " * " +
            (run.prefetch == 0 ? "2" : "(prefetch " + std::to_string(run.prefetch) + " + 1)") +
            " = " + std::to_string(needed) + "; write run: {max_in_flight: " +
            std::to_string(needed) + "} or more, or make the batch smaller");
  }

  const ConfigFile& file_;
  const StageRegistry& registry_;
  Problems problems_;
  ValueReader reader_;
  Config config_;
  std::vector<Entry> entries_;
};

}  // namespace

Config check_config(const ConfigFile& file, const StageRegistry& registry) {
  return Checker(file, registry).check();
}

Params override_params(const StageConfig& stage,
                       const std::map<std::string, std::string>& overrides,
                       const std::string& where) {
  Problems problems;
  const ValueReader reader(problems, false);
  const auto specs = all_specs(*stage.info);
  Mark place;
  place.file = where;
  Params params = stage.params;
  for (const auto& [name, text] : overrides) {
    const ParamSpec* spec = find_spec(specs, name);
    if (spec == nullptr) {
      const auto names = names_of(specs);
      const std::string hint = did_you_mean(name, names);
      problems.add(place, "unknown parameter '" + shown(name) + "'; " + stage.use +
                              " has none called so" +
                              (hint.empty() ? "; its parameters are " + joined(names) : hint));
      continue;
    }
    ConfigNode node;
    node.type = ConfigNode::Type::kScalar;
    node.mark = place;
    node.text = text;
    if (spec->type == ParamType::kOverrides) {
      problems.add(place, name + " can't be overridden");
      continue;
    }
    if (spec->type == ParamType::kRealList) {
      const auto mark_of = [&place](int, int) { return place; };
      auto parsed = parse_yaml(text, mark_of, problems);
      if (!parsed) continue;
      node = std::move(*parsed);
    }
    if (auto value = reader.read(node, *spec, "")) params.set(name, std::move(*value));
  }
  problems.throw_if_any();
  return params;
}

}  // namespace gp
