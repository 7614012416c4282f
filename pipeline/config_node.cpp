#include "pipeline/config_node.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "pipeline/error.hpp"

namespace gp {

std::string Mark::text() const {
  if (line <= 0) return file;
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::filesystem::path folder_of(const std::filesystem::path& file) {
  // absolute("") is an error.
  return file.empty() ? std::filesystem::current_path()
                      : std::filesystem::absolute(file).parent_path();
}

const ConfigNode* ConfigFile::Node::find(std::string_view name) const {
  if (type != Type::kMap) return nullptr;
  for (const Node& item : items) {
    if (item.key == name) return &item;
  }
  return nullptr;
}

ConfigNode* ConfigFile::Node::find(std::string_view name) {
  return const_cast<Node*>(std::as_const(*this).find(name));
}

void Problems::add(const Mark& mark, std::string text) { problems_.push_back({mark, text}); }

void Problems::throw_if_any() const {
  if (problems_.empty()) return;
  auto sorted = problems_;
  std::vector<std::string> files;  // those of the command line come last
  for (const Problem& problem : sorted) {
    if (problem.mark.line > 0 &&
        std::find(files.begin(), files.end(), problem.mark.file) == files.end()) {
      files.push_back(problem.mark.file);
    }
  }
  const auto rank = [&files](const Mark& mark) {
    const auto file =
        mark.line > 0 ? std::find(files.begin(), files.end(), mark.file) : files.end();
    return std::tuple(file - files.begin(), mark.line, mark.column);
  };
  std::stable_sort(sorted.begin(), sorted.end(), [&rank](const Problem& a, const Problem& b) {
    return rank(a.mark) < rank(b.mark);
  });
  std::vector<std::string> lines;
  std::set<std::string> seen;
  for (const Problem& problem : sorted) {
    std::string line = problem.mark.text() + ": " + problem.text;
    // An alias brings the same error as often as it is used.
    if (seen.insert(line).second) lines.push_back(std::move(line));
  }
  constexpr std::size_t kMaxShown = 50;
  std::string text;
  for (std::size_t i = 0; i < lines.size() && i < kMaxShown; ++i) {
    text += (i == 0 ? "" : "\n") + lines[i];
  }
  if (lines.size() > 1) text += std::string("\n") + std::to_string(lines.size()) + " errors";
  if (lines.size() > kMaxShown) text += ", the first " + std::to_string(kMaxShown) + " shown";
  throw ConfigError(text);
}

std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 100;
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (i >= kLongest && (byte & 0xc0) != 0x80) return result + "...";
    if (byte < 0x20 || byte == 0x7f) {
      constexpr std::string_view kHex = "0123456789abcdef";
      result += byte == '\n' ? std::string("\\n")
                             : std::string{'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      result += text[i];
    }
  }
  return result;
}

std::string stage_address(const ConfigNode& stage) {
  for (const char* key : {"name", "use"}) {
    const ConfigNode* value = stage.find(key);
    if (value != nullptr && value->is_text()) return value->text;
  }
  return "";
}

std::vector<StagePlace> stage_places(ConfigNode& stages) {
  std::vector<StagePlace> places;
  const auto collect = [&places](ConfigNode& list, const std::string& parent, const auto& self) {
    if (list.type != ConfigNode::Type::kList) return;
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      const std::string own = stage_address(list.items[i]);
      if (own.empty()) continue;
      places.push_back({parent + own, &list, i});
      if (ConfigNode* choices = list.items[i].find("stages"))
        self(*choices, parent + own + ".", self);
    }
  };
  collect(stages, "", collect);
  return places;
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& names) {
  const std::string near = nearest_name(name, names);
  return near.empty() ? "" : "; did you mean '" + near + "'?";
}

std::string joined(const std::vector<std::string>& names, std::string_view separator) {
  std::string text;
  for (const std::string& name : names) {
    if (!text.empty()) text += separator;
    text += name;
  }
  return text;
}

std::string found(const ConfigNode& node) {
  switch (node.type) {
    case ConfigNode::Type::kNull:
      return "nothing";
    case ConfigNode::Type::kScalar:
      return std::string("'") + shown(node.text) + "'";
    case ConfigNode::Type::kList:
      return "a list";
    case ConfigNode::Type::kMap:
      return "a map";
  }
  return "?";
}

}  // namespace gp
