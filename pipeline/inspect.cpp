#include <algorithm>
#include <nlohmann/json.hpp>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;

std::string type_name(ParamType type) {
  switch (type) {
    case ParamType::kBool:
      return "bool";
    case ParamType::kInt:
      return "int";
    case ParamType::kReal:
      return "real";
    case ParamType::kString:
      return "text";
    case ParamType::kChoice:
      return "choice";
    case ParamType::kPath:
      return "path";
    case ParamType::kRealList:
      return "list of real";
    case ParamType::kOverrides:
      return "map of the source's parameters";
    case ParamType::kStages:
      return "list of stages";
  }
  return "?";
}

/// The same as an identifier.
std::string type_id(ParamType type) {
  switch (type) {
    case ParamType::kRealList:
      return "real_list";
    case ParamType::kOverrides:
      return "overrides";
    case ParamType::kStages:
      return "stages";
    default:
      return type_name(type);
  }
}

bool is_common(const StageInfo& info, const ParamSpec& spec) {
  return info.params.find(spec.name) == nullptr;
}

/// "[0, 1]", ">= 1", "<= 5", or "".
std::string range_text(const ParamSpec& spec) {
  const auto number = [](double value) { return to_string(Value(value)); };
  if (spec.min && spec.max) return "in [" + number(*spec.min) + ", " + number(*spec.max) + "]";
  if (spec.min) return ">= " + number(*spec.min);
  if (spec.max) return "<= " + number(*spec.max);
  return "";
}

/// "real in [0, 1], default 0.5"
std::string signature(const ParamSpec& spec) {
  std::string text = type_name(spec.type);
  if (spec.type == ParamType::kChoice) {
    text.clear();
    for (const std::string& choice : spec.choices) text += (text.empty() ? "" : " | ") + choice;
  }
  const std::string range = range_text(spec);
  if (!range.empty()) text += (spec.type == ParamType::kRealList ? ", each " : " ") + range;
  if (spec.default_value) {
    text += ", default " + to_string(*spec.default_value);
  } else {
    text += spec.optional ? ", optional" : ", required";
  }
  return text;
}

/// A value that the spec accepts, to show how it is written.
std::string example_value(const ParamSpec& spec) {
  if (spec.default_value) return to_string(*spec.default_value);
  const double low = spec.min.value_or(std::min(1.0, spec.max.value_or(1.0)));
  switch (spec.type) {
    case ParamType::kBool:
      return "true";
    case ParamType::kInt:
    case ParamType::kReal:
      return to_string(Value(low));
    case ParamType::kString:
      return "text";
    case ParamType::kChoice:
      return to_string(Value(spec.choices.front()));
    case ParamType::kPath:
      return "path/to/" + spec.name;
    case ParamType::kRealList:
      return to_string(Value(std::vector<double>{low}));
    case ParamType::kOverrides:
      return "{}";
    case ParamType::kStages:
      return "[{use: augment.flip, weight: 2}, {use: augment.affine}]";
  }
  return "";
}

/// A line for the YAML: all that is required, and the first few parameters to show their form.
std::string example(const StageInfo& info) {
  constexpr std::size_t kMaxShown = 4;
  std::string text = "{use: " + info.name;
  std::size_t n_shown = 0;
  for (const ParamSpec& spec : info.params.specs()) {
    const bool required = !spec.default_value && !spec.optional;
    if (!required && (spec.optional || n_shown >= kMaxShown)) continue;
    text += ", " + spec.name + ": " + example_value(spec);
    ++n_shown;
  }
  return "- " + text + "}";
}

std::string kinds(const StageInfo& info) {
  if (info.in == Kind::kNothing) return "gives " + to_string(info.out);
  if (info.out == Kind::kNothing) return "takes " + to_string(info.in);
  return to_string(info.in) + " -> " + to_string(info.out);
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string params_text(const StageInfo& info, bool common) {
  std::string text;
  std::size_t width = 0;
  const auto specs = all_specs(info);
  for (const ParamSpec* spec : specs) width = std::max(width, spec->name.size());
  for (const ParamSpec* spec : specs) {
    if (is_common(info, *spec) != common) continue;
    text += "  " + padded(spec->name, width) + "  " + signature(*spec) + "\n";
    if (!spec->doc.empty()) text += "  " + padded("", width) + "  " + spec->doc + "\n";
  }
  return text;
}

Json value_json(const Value& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

/// Whole numbers as such: a range of [1, 4096] should not read [1.0, 4096.0].
Json number_json(const ParamSpec& spec, double number) {
  if (spec.type == ParamType::kInt) return Json(static_cast<std::int64_t>(number));
  return Json(number);
}

Json param_json(const StageInfo& info, const ParamSpec& spec) {
  Json json;
  json["name"] = spec.name;
  json["type"] = type_id(spec.type);
  json["required"] = !spec.default_value && !spec.optional;
  json["default"] = spec.default_value ? value_json(*spec.default_value) : Json();
  json["min"] = spec.min ? number_json(spec, *spec.min) : Json();
  json["max"] = spec.max ? number_json(spec, *spec.max) : Json();
  json["choices"] = spec.choices;
  json["doc"] = spec.doc;
  json["common"] = is_common(info, spec);
  return json;
}

Json stage_json(const StageInfo& info) {
  Json json;
  json["name"] = info.name;
  json["doc"] = info.doc;
  json["origin"] = info.origin;
  json["in"] = to_string(info.in);
  json["out"] = to_string(info.out);
  json["random"] = info.random;
  json["geometric"] = info.geometric;
  json["concurrency"] = info.concurrency == Concurrency::kSerial ? "serial" : "unlimited";
  json["params"] = Json::array();
  for (const ParamSpec* spec : all_specs(info)) json["params"].push_back(param_json(info, *spec));
  json["example"] = example(info);
  return json;
}

}  // namespace

std::string describe_stages(const StageRegistry& registry) {
  std::size_t name_width = 0, kinds_width = 0;
  const auto stages = registry.list();
  for (const StageInfo* info : stages) {
    name_width = std::max(name_width, info->name.size());
    kinds_width = std::max(kinds_width, kinds(*info).size());
  }
  std::string text;
  for (const StageInfo* info : stages) {
    text += padded(info->name, name_width) + "  " + padded(kinds(*info), kinds_width) + "  " +
            info->doc + "\n";
  }
  return text;
}

std::string describe_stage(const StageInfo& info) {
  std::string text = info.name + "\n  " + info.doc + "\n\n";
  text += "  kinds     " + kinds(info) + "\n";
  text += "  origin    " + info.origin + "\n";
  if (info.in == Kind::kBytes || info.in == Kind::kImage) {
    text += std::string("  threads   ") +
            (info.concurrency == Concurrency::kSerial ? "one sample at a time"
                                                      : "any number of samples at once") +
            "\n";
  }
  text += std::string("  random    ") +
          (info.random ? "yes: reproducible from the seed; left out of evaluation" : "no") + "\n";
  if (info.geometric) text += "  geometry  one resampling together with its geometric neighbours\n";

  const std::string own = params_text(info, false);
  text += "\nParameters\n" + (own.empty() ? "  none\n" : own);
  const std::string common = params_text(info, true);
  if (!common.empty()) text += "\nParameters of every source\n" + common;
  text += "\nExample\n  " + example(info) + "\n";
  return text;
}

std::string describe_json(const StageRegistry& registry, const StageInfo* only) {
  Json json;
  if (only != nullptr) {
    json = stage_json(*only);
  } else {
    json["stages"] = Json::array();
    for (const StageInfo* info : registry.list()) json["stages"].push_back(stage_json(*info));
  }
  // Texts of plugins may hold anything; replacing bad bytes beats failing.
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace gp
