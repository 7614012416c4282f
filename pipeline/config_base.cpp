#include <algorithm>
#include <system_error>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

using Node = ConfigNode;
namespace fs = std::filesystem;

constexpr std::size_t kMaxFiles = 16;

bool is_change(const Node& item) {
  return item.find("change") != nullptr || item.find("remove") != nullptr ||
         item.find("after") != nullptr || item.find("before") != nullptr;
}

/// Takes the member out of a map.
std::optional<Node> take(Node& map, std::string_view key) {
  for (auto item = map.items.begin(); item != map.items.end(); ++item) {
    if (item->key != key) continue;
    Node taken = std::move(*item);
    map.items.erase(item);
    return taken;
  }
  return std::nullopt;
}

/// Puts the members of `changes` into `map`; maps within both are merged.
void merge_maps(Node& map, const Node& changes) {
  for (const Node& item : changes.items) {
    Node* member = map.find(item.key);
    if (member == nullptr) {
      map.items.push_back(item);
    } else if (member->type == Node::Type::kMap && item.type == Node::Type::kMap) {
      merge_maps(*member, item);
    } else {
      *member = item;
    }
  }
}

/// The stage that a change names.
std::optional<StagePlace> find_place(Node& stages, const Node& address, Problems& problems) {
  if (!address.is_text()) {
    problems.add(address.mark,
                 address.key + " is " + found(address) + "; expected the address of a stage");
    return std::nullopt;
  }
  std::vector<std::string> addresses;
  std::optional<StagePlace> result;
  for (const StagePlace& place : stage_places(stages)) {
    addresses.push_back(place.address);
    if (place.address != address.text) continue;
    if (result) {
      problems.add(address.mark, address.key + " = '" + shown(address.text) +
                                     "' is there more than once; give those stages a `name:` each "
                                     "in the base");
      return std::nullopt;
    }
    result = place;
  }
  if (!result) {
    const std::string hint = did_you_mean(address.text, addresses);
    problems.add(address.mark, address.key + " = '" + shown(address.text) +
                                   "' is no stage of the base" +
                                   (hint.empty() ? "; its stages are " + joined(addresses) : hint));
  }
  return result;
}

/// Carries out one change of the list of stages.
void apply_change(Node& stages, Node change, Problems& problems) {
  std::vector<std::string> verbs;
  for (const char* verb : {"change", "remove", "after", "before"}) {
    if (change.find(verb) != nullptr) verbs.push_back(verb);
  }
  if (verbs.size() > 1) {
    problems.add(change.mark, "this has both '" + verbs[0] + "' and '" + verbs[1] +
                                  "'; expected one of change, remove, after, before");
    return;
  }
  const Node address = *take(change, verbs.front());
  const auto place = find_place(stages, address, problems);
  if (!place) return;
  const auto at = place->list->items.begin() + static_cast<std::ptrdiff_t>(place->index);
  if (address.key == "remove") {
    if (!change.items.empty()) {
      problems.add(change.items.front().key_mark,
                   "'remove' takes nothing else; found '" + shown(change.items.front().key) + "'");
      return;
    }
    place->list->items.erase(at);
  } else if (address.key == "change") {
    merge_maps(*at, change);
  } else if (change.find("use") == nullptr) {
    problems.add(change.mark, "a new stage has no 'use'; expected {use: NAME, " + address.key +
                                  ": " + shown(address.text) + "}");
  } else {
    place->list->items.insert(address.key == "after" ? at + 1 : at, std::move(change));
  }
}

void merge_stages(Node& base, const Node& derived, Problems& problems) {
  const bool changes = derived.type == Node::Type::kList &&
                       std::any_of(derived.items.begin(), derived.items.end(), is_change);
  if (!changes || base.type != Node::Type::kList) {
    base = derived;
    return;
  }
  for (const Node& item : derived.items) {
    if (is_change(item)) {
      apply_change(base, item, problems);
    } else {
      problems.add(item.mark,
                   "a list of changes says of each stage {change: ADDRESS}, {remove: ADDRESS}, or "
                   "where a new one goes: {use: NAME, after: ADDRESS}");
    }
  }
}

/// Adds the names that are not there yet.
void merge_names(Node& base, const Node& derived) {
  if (base.type != Node::Type::kList || derived.type != Node::Type::kList) {
    base = derived;
    return;
  }
  for (const Node& name : derived.items) {
    const bool known =
        std::any_of(base.items.begin(), base.items.end(), [&name](const Node& other) {
          return other.is_text() && name.is_text() && library_name(other) == library_name(name);
        });
    if (!known) base.items.push_back(name);
  }
}

Node merge(Node base, const Node& derived, Problems& problems) {
  for (const Node& item : derived.items) {
    Node* member = base.find(item.key);
    if (member == nullptr) {
      base.items.push_back(item);
    } else if (item.key == "stages") {
      merge_stages(*member, item, problems);
    } else if (item.key == "plugins" || item.key == "modules") {
      merge_names(*member, item);
    } else if (member->type == Node::Type::kMap && item.type == Node::Type::kMap) {
      merge_maps(*member, item);
    } else {
      *member = item;
    }
  }
  base.mark = derived.mark;
  return base;
}

/// `files` are those that led here, the last one being this one.
std::optional<Node> parse_file(const std::string& yaml, std::vector<fs::path> files,
                               Problems& problems) {
  const std::string name = files.back().string();
  const auto mark_of = [&name](int line, int column) { return Mark{name, line, column}; };
  std::optional<Node> root = parse_yaml(yaml, mark_of, problems);
  if (!root) return std::nullopt;
  if (root->type != Node::Type::kMap) {
    problems.add(
        root->mark,
        "expected a map of name, seed, plugins, stages, run at the top; found " + found(*root));
    return std::nullopt;
  }
  const std::optional<Node> base = take(*root, "base");
  if (!base) return root;

  const auto refuse = [&](const std::string& text) {
    problems.add(base->mark, text);
    return std::nullopt;
  };
  if (!base->is_text() || base->text.empty()) {
    return refuse("base is " + found(*base) + "; expected a YAML file");
  }
  const auto expanded = expand_path(base->text);
  if (!expanded.value) return refuse("base = " + shown(base->text) + " " + expanded.problem);
  const fs::path path = (files.back().parent_path() / *expanded.value).lexically_normal();
  const auto same = std::find_if(files.begin(), files.end(), [&path](const fs::path& file) {
    std::error_code error;
    return fs::equivalent(file, path, error);
  });
  if (same != files.end()) {
    std::string way;
    for (auto file = same; file != files.end(); ++file) way += file->string() + " -> ";
    return refuse("base = " + shown(base->text) + " leads back to itself: " + way + path.string());
  }
  if (files.size() >= kMaxFiles) {
    return refuse("base: more than " + std::to_string(kMaxFiles) + " files build on each other");
  }
  const auto file = read_config_text(path);
  if (!file.value)
    return refuse("base = " + shown(base->text) + " (" + path.string() + "): " + file.problem);
  files.push_back(path);
  std::optional<Node> merged = parse_file(*file.value, std::move(files), problems);
  if (!merged) return std::nullopt;
  return merge(std::move(*merged), *root, problems);
}

}  // namespace

std::optional<Node> parse_config(const std::string& yaml, const fs::path& path,
                                 Problems& problems) {
  return parse_file(yaml, {path}, problems);
}

}  // namespace gp
