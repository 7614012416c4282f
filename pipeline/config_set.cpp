#include <algorithm>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

using Node = ConfigNode;

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  for (;;) {
    const auto dot = path.find('.', start);
    parts.push_back(path.substr(start, dot - start));
    if (dot == std::string::npos) return parts;
    start = dot + 1;
  }
}

/// The value of a --set: lists, maps and quoted texts as in YAML, anything else is one plain scalar
/// as it stands (so a path may hold " #" or ": ").
std::optional<Node> parse_set_value(const std::string& text, const Mark& mark, Problems& problems) {
  if (!text.empty() && std::string_view("[{\"'").find(text.front()) != std::string_view::npos) {
    const auto mark_of = [&mark](int, int) { return mark; };
    return parse_yaml(text, mark_of, problems);
  }
  Node node;
  node.mark = mark;
  if (!text.empty() && text != "~" && text != "null") {
    node.type = Node::Type::kScalar;
    node.text = text;
  }
  return node;
}

/// Walks into maps along `path`, making those that are missing, and puts `value` at its end.
void assign(Node& map, const std::vector<std::string>& path, std::size_t at, Node value,
            Problems& problems) {
  Node* node = &map;
  for (; at < path.size(); ++at) {
    if (node->type == Node::Type::kNull) {
      node->type = Node::Type::kMap;
      node->mark = value.mark;
    } else if (node->type != Node::Type::kMap) {
      problems.add(value.mark, "there is no '" + shown(path[at]) + "' in '" + shown(path[at - 1]) +
                                   "': that is " + found(*node));
      return;
    }
    Node* member = node->find(path[at]);
    if (member == nullptr) {
      Node fresh;
      fresh.key = path[at];
      fresh.key_mark = value.mark;
      fresh.mark = value.mark;
      node->items.push_back(std::move(fresh));
      member = &node->items.back();
    }
    node = member;
  }
  value.key = node->key;
  value.key_mark = value.mark;
  *node = std::move(value);
}

/// "stages.ADDRESS.PARAM": finds the stage by the longest address that fits.
void assign_in_stage(Node& root, const std::string& rest, Node value, Problems& problems) {
  Node* stages = root.find("stages");
  if (stages == nullptr || stages->type != Node::Type::kList) {
    problems.add(value.mark, "the file has no list of stages to set it in");
    return;
  }
  Node* best = nullptr;
  std::string best_address;
  bool ambiguous = false;
  std::vector<std::string> addresses;
  for (const StagePlace& place : stage_places(*stages)) {
    addresses.push_back(place.address);
    const bool fits = rest == place.address || rest.starts_with(place.address + ".");
    if (!fits || place.address.size() < best_address.size()) continue;
    ambiguous = place.address == best_address;
    best = &place.node();
    best_address = place.address;
  }
  if (best == nullptr) {
    // The last part is the parameter, so the stage is what stands before it.
    const auto dot = rest.rfind('.');
    const std::string hint =
        did_you_mean(dot == std::string::npos ? rest : rest.substr(0, dot), addresses);
    problems.add(value.mark, "no stage of the file is called so" + hint +
                                 (hint.empty() ? "; the stages are " + joined(addresses) : ""));
    return;
  }
  if (ambiguous) {
    problems.add(value.mark, std::string("'") + shown(best_address) +
                                 "' is there more than once; give those stages a `name:` each and "
                                 "use that");
    return;
  }
  if (rest.size() <= best_address.size() + 1) {
    problems.add(value.mark,
                 "this is a stage; expected stages." + shown(best_address) + ".PARAMETER=VALUE");
    return;
  }
  // One assign per override, so a name within `overrides` parameters may follow the parameter.
  assign(*best, split(rest.substr(best_address.size() + 1)), 0, std::move(value), problems);
}

}  // namespace

void apply_override(Node& root, const std::string& text, Problems& problems) {
  Mark mark;
  mark.file = "--set " + shown(text);
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems.add(mark, "expected KEY=VALUE, such as stages.augment.flip.p=0.3");
    return;
  }
  const std::string path = text.substr(0, equals);
  auto value = parse_set_value(text.substr(equals + 1), mark, problems);
  if (!value) return;

  const std::vector<std::string> parts = split(path);
  const auto is_empty = [](const std::string& part) { return part.empty(); };
  if (std::any_of(parts.begin(), parts.end(), is_empty)) {
    problems.add(mark, "the address '" + shown(path) + "' has an empty part");
    return;
  }
  if (parts.front() == "stages") {
    if (parts.size() == 1) {
      problems.add(mark,
                   "the list of stages is changed in the file; a --set changes one value: "
                   "stages.ADDRESS.PARAMETER=VALUE");
      return;
    }
    assign_in_stage(root, path.substr(parts.front().size() + 1), std::move(*value), problems);
    return;
  }
  const std::vector<std::string> keys = {"name", "seed", "plugins", "modules", "stages", "run"};
  if (std::find(keys.begin(), keys.end(), parts.front()) == keys.end()) {
    std::string hint = did_you_mean(parts.front(), keys);
    // "augment.flip.p=0.3": the word `stages` was left out.
    if (Node* stages = root.find("stages")) {
      for (const StagePlace& place : stage_places(*stages)) {
        if (path.starts_with(place.address + ".")) {
          hint = "; did you mean 'stages." + shown(path) + "'?";
        }
      }
    }
    problems.add(mark, "there is no '" + shown(parts.front()) + "' in a configuration" + hint +
                           (hint.empty() ? "; expected one of " + joined(keys) : ""));
    return;
  }
  assign(root, parts, 0, std::move(*value), problems);
}

}  // namespace gp
