#include <nlohmann/json.hpp>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;

Json reference(const std::string& definition) { return {{"$ref", "#/definitions/" + definition}}; }

Json value_json(const Value& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

/// What `found(..)` and check_value accept, as a schema.
Json value_schema(const ParamSpec& spec) {
  Json json = Json::object();
  Json number = {{"type", spec.type == ParamType::kInt ? "integer" : "number"}};
  if (spec.min) number["minimum"] = *spec.min;
  if (spec.max) number["maximum"] = *spec.max;
  switch (spec.type) {
    case ParamType::kBool:
      json["type"] = "boolean";
      break;
    case ParamType::kInt:
    case ParamType::kReal:
      json = number;
      break;
    case ParamType::kString:
      json["type"] = {"string", "number",
                      "boolean"};  // plain scalars are texts where one is wanted
      break;
    case ParamType::kChoice:
      json["enum"] = spec.choices;
      break;
    case ParamType::kPath:
      json["type"] = "string";
      json["minLength"] = 1;
      break;
    case ParamType::kRealList:
      json["type"] = "array";
      json["items"] = number;
      break;
    case ParamType::kOverrides:
      json = reference("overrides");
      break;
    case ParamType::kStages:
      json["type"] = "array";
      json["minItems"] = 1;
      json["items"] = reference("choice");
      break;
  }
  // Beside a $ref draft-07 ignores everything.
  if (json.contains("$ref")) json = {{"allOf", Json::array({json})}};
  if (!spec.doc.empty()) json["description"] = spec.doc;
  if (spec.default_value) json["default"] = value_json(*spec.default_value);
  return json;
}

Json properties(const std::vector<const ParamSpec*>& specs) {
  Json json = Json::object();
  for (const ParamSpec* spec : specs) json[spec->name] = value_schema(*spec);
  return json;
}

Json map_of(Json members) {
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", std::move(members)}};
}

const Json kAddress = {{"type", "string"},
                       {"pattern", "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"},
                       {"description", "an address of its own, where a stage is used twice"}};

/// An entry of a list of stages; `more` are keys that it may have there.
Json stage_schema(const StageInfo& info, const Json& more) {
  Json members = {{"use", {{"const", info.name}, {"description", info.doc}}}, {"name", kAddress}};
  members.update(properties(all_specs(info)));
  members.update(more);
  Json json = map_of(std::move(members));
  json["description"] = info.doc;
  Json required = {"use"};
  for (const ParamSpec& spec : info.params.specs()) {
    if (!spec.default_value && !spec.optional) required.push_back(spec.name);
  }
  json["required"] = required;
  return json;
}

/// A list whose entries are any of `schemas`.
Json any_of(std::vector<Json> schemas) { return {{"anyOf", std::move(schemas)}}; }

}  // namespace

std::string config_schema(const StageRegistry& registry) {
  Json definitions = Json::object();
  std::vector<Json> stages, choices, added, overrides;
  const Json place = {{"description", "address of a stage of the base"}, {"type", "string"}};
  for (const StageInfo* info : registry.list()) {
    definitions[info->name] = stage_schema(*info, Json::object());
    stages.push_back(reference(info->name));
    for (const char* where : {"after", "before"}) {
      Json inserted = stage_schema(*info, {{where, place}});
      inserted["required"].push_back(where);
      added.push_back(std::move(inserted));
    }
    if (info->in == Kind::kImage && info->out == Kind::kImage) {
      choices.push_back(
          stage_schema(*info, {{choice_weight_spec().name, value_schema(choice_weight_spec())}}));
    }
    if (info->in == Kind::kNothing) {
      Json members = properties(overridable_specs(*info));
      overrides.push_back(map_of(std::move(members)));
    }
  }
  definitions["choice"] = any_of(std::move(choices));
  definitions["overrides"] = any_of(std::move(overrides));
  Json remove = map_of({{"remove", place}});
  remove["required"] = {"remove"};
  Json change = {{"type", "object"}, {"properties", {{"change", place}}}, {"required", {"change"}}};
  added.push_back(std::move(change));
  added.push_back(std::move(remove));

  const auto list_of = [](Json items, const char* description) -> Json {
    return {{"type", "array"},
            {"minItems", 1},
            {"items", std::move(items)},
            {"description", description}};
  };
  const auto names = [](const char* description) -> Json {
    return {{"type", "array"},
            {"items", {{"type", "string"}, {"minLength", 1}}},
            {"description", description}};
  };
  std::vector<const ParamSpec*> settings;
  for (const ParamSpec& spec : run_schema().specs()) settings.push_back(&spec);
  Json run = map_of(properties(settings));
  run["properties"]["device"] = {{"type", "string"},
                                 {"pattern", "^(auto|cpu|cuda(:[0-9]{1,2})?)$"},
                                 {"description", run_schema().find("device")->doc}};
  for (const char* key : {"threads", "data_threads"}) {
    const Json number = run["properties"][key];
    run["properties"][key] = {
        {"anyOf",
         {{{"const", "auto"}},
          {{"type", "integer"}, {"minimum", number["minimum"]}, {"maximum", number["maximum"]}}}},
        {"default", "auto"},
        {"description", number["description"]}};
  }

  Json schema = map_of({
      {"base",
       {{"type", "string"}, {"description", "another configuration that this one changes"}}},
      {"name",
       {{"type", "string"},
        {"pattern", "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"},
        {"maxLength", 100},
        {"description", "begins the name of the run directory; the default is the file's name"}}},
      {"seed",
       {{"type", "integer"},
        {"minimum", 0},
        {"maximum", UINT64_MAX},
        {"default", 0},
        {"description", "of every random number"}}},
      {"plugins", names("sample plugins to load: names on the plugin path, or files")},
      {"modules", names("C++ stage modules to load besides the shipped ones")},
      {"stages", list_of(any_of(stages), "from a source to a train.* or sink.* stage")},
      {"run", run},
  });
  Json head = {{"$schema", "http://json-schema.org/draft-07/schema#"},
               {"title", "gan-pipeline configuration"},
               {"definitions", definitions}};
  // With a base the list may hold changes; without one it must be there.
  Json changes = list_of(any_of(added), "changes to the stages of the base, in their order");
  head.update(schema);
  head["properties"]["stages"] = {{"type", "array"}};
  head["if"] = {{"required", {"base"}}};
  head["then"] = {{"properties", {{"stages", any_of({schema["properties"]["stages"], changes})}}}};
  head["else"] = {{"properties", {{"stages", schema["properties"]["stages"]}}},
                  {"required", {"stages"}}};
  return head.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace gp
