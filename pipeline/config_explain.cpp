#include <algorithm>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

/// Rows of three columns: what, its value, where that comes from.
class Table {
 public:
  void add(std::string what, std::string value = "", std::string from = "") {
    rows_.push_back({std::move(what), std::move(value), std::move(from)});
  }
  std::string text() const {
    // Long values (paths) push only their own row aside.
    constexpr std::size_t kWidest = 40;
    std::size_t widths[2] = {};
    for (const Row& row : rows_) {
      widths[0] = std::max(widths[0], row.what.size());
      widths[1] = std::max(widths[1], std::min(row.value.size(), kWidest));
    }
    const auto padded = [](std::string text, std::size_t width) {
      text.resize(std::max(text.size(), width), ' ');
      return text + "  ";
    };
    std::string result;
    for (const Row& row : rows_) {
      std::string line = padded(row.what, widths[0]) + padded(row.value, widths[1]) + row.from;
      line.erase(line.find_last_not_of(' ') + 1);
      result += line + "\n";
    }
    return result;
  }

 private:
  struct Row {
    std::string what, value, from;
  };
  std::vector<Row> rows_;
};

std::string from(const std::map<std::string, Mark>& marks, const std::string& key) {
  const auto mark = marks.find(key);
  return mark == marks.end() ? "default" : mark->second.text();
}

void add_stage(Table& table, const StageConfig& stage, const std::string& place,
               const std::string& indent, const std::vector<const ParamSpec*>& overridable) {
  table.add(indent + place, stage.address, stage.mark.text());
  const std::string inner = indent + "  ";
  for (const ParamSpec* spec : all_specs(*stage.info)) {
    const auto value = stage.params.values().find(spec->name);
    if (value == stage.params.values().end()) continue;
    const auto* members = std::get_if<std::map<std::string, std::string>>(&value->second);
    if (members == nullptr) {
      table.add(inner + spec->name, yaml_value(value->second, *spec, overridable),
                from(stage.marks, spec->name));
      continue;
    }
    for (const auto& [name, text] : *members) {
      const std::string key = spec->name + "." + name;
      table.add(inner + key, text, from(stage.marks, key));
    }
  }
  for (std::size_t i = 0; i < stage.choices.size(); ++i) {
    const StageConfig& choice = stage.choices[i];
    add_stage(table, choice, "stages[" + std::to_string(i) + "]", inner, overridable);
    const std::string& weight = choice_weight_spec().name;
    table.add(inner + "  " + weight, to_string(Value(choice.weight)), from(choice.marks, weight));
  }
}

}  // namespace

std::string Config::explain() const {
  Table table;
  table.add("name", name, marks.count("name") > 0 ? from(marks, "name") : "the file's name");
  table.add("seed", std::to_string(seed), from(marks, "seed"));
  for (const auto& [key, list] : {std::pair{"plugins", &plugins}, {"modules", &modules}}) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      const std::string place = std::string(key) + "[" + std::to_string(i) + "]";
      table.add(place, (*list)[i], from(marks, place));
    }
  }
  const auto overridable = overridable_specs(*stages.front().info);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    add_stage(table, stages[i], "stages[" + std::to_string(i) + "]", "", overridable);
  }
  table.add("run");
  for (const auto& [key, value] : {std::pair{"device", run.device},
                                   {"precision", run.precision},
                                   {"threads", threads_text(run.threads)},
                                   {"data_threads", threads_text(run.data_threads)},
                                   {"max_in_flight", std::to_string(run.max_in_flight)},
                                   {"prefetch", std::to_string(run.prefetch)}}) {
    table.add(std::string("  ") + key, value, from(marks, std::string("run.") + key));
  }
  return table.text();
}

}  // namespace gp
