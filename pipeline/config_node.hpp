#pragma once

// Internal to the configuration and what is written about it: the parsed YAML and the errors found
// in it. Only the engine's own .cpp files include it.

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/config.hpp"

namespace gp {

/// A YAML value. Members of a map keep their key; order is that of the file.
struct ConfigFile::Node {
  enum class Type { kNull, kScalar, kList, kMap };

  Type type = Type::kNull;
  Mark mark;                ///< of the value
  std::string text;         ///< scalars
  bool quoted = false;      ///< scalars: written in quotes or as a block, so a text
  std::vector<Node> items;  ///< of a list, or members of a map
  std::string key;          ///< members of a map
  Mark key_mark;

  const Node* find(std::string_view name) const;
  Node* find(std::string_view name);
  bool is_text() const { return type == Type::kScalar; }
};

using ConfigNode = ConfigFile::Node;

/// The errors of one configuration, in the end thrown as one ConfigError: a line each, sorted by
/// place (files in the order in which their first error was found), then a count.
class Problems {
 public:
  void add(const Mark& mark, std::string text);
  bool empty() const { return problems_.empty(); }
  void throw_if_any() const;

 private:
  struct Problem {
    Mark mark;
    std::string text;
  };
  std::vector<Problem> problems_;
};

/// The folder of a file, absolute; the working directory for an empty path.
std::filesystem::path folder_of(const std::filesystem::path& file);

/// A value, or why there is none, in words that follow what was read.
template <class T>
struct Parsed {
  std::optional<T> value;
  std::string problem;
};

/// The text of a configuration file, or a problem such as "there is no such file".
Parsed<std::string> read_config_text(const std::filesystem::path& path);

/// User's text for a message: control characters escaped, long ones cut.
std::string shown(std::string_view text);
/// "; did you mean 'x'?" or "".
std::string did_you_mean(const std::string& name, const std::vector<std::string>& names);
/// "a, b, c"
std::string joined(const std::vector<std::string>& names, std::string_view separator = ", ");
/// "a list", "a map", "nothing", "the text 'x'"
std::string found(const ConfigNode& node);

/// Parses one YAML document. Empty when it is too broken to go on; problems say why.
/// `mark_of` makes the marks: (line, column), counted from 1.
std::optional<ConfigNode> parse_yaml(const std::string& yaml,
                                     const std::function<Mark(int, int)>& mark_of,
                                     Problems& problems);

/// Parses a configuration, the content of the file `path`, and merges what it takes from its
/// `base:`. Empty after a problem.
std::optional<ConfigNode> parse_config(const std::string& yaml, const std::filesystem::path& path,
                                       Problems& problems);

/// Applies one --set.
void apply_override(ConfigNode& root, const std::string& text, Problems& problems);

/// A stage's own part of its address: `name:`, else `use`, else "".
std::string stage_address(const ConfigNode& stage);

/// A stage of the list `stages`, or of the list within one: where it is, and its whole address.
struct StagePlace {
  std::string address;
  ConfigNode* list = nullptr;
  std::size_t index = 0;
  ConfigNode& node() const { return list->items[index]; }
};
/// All stages that have an address, parents before their choices. Valid until a list changes.
std::vector<StagePlace> stage_places(ConfigNode& stages);

/// A path with `~`, $NAME, ${NAME} and ${NAME:-default} replaced ($$ is a dollar sign), or what is
/// wrong with it (a text that follows "root = $DATA ").
Parsed<std::string> expand_path(const std::string& text);
/// Relative paths start at the folder of the file that holds them, those of --set at the working
/// directory.
std::string absolute_path(const std::string& path, const Mark& mark);

/// A plugin or module of the YAML as it is looked for: a name, or with a slash the whole path.
/// Throws ConfigError when the path can't be expanded.
std::string library_name(const ConfigNode& node);

/// Reads values: checks them against their specs and resolves paths.
class ValueReader {
 public:
  /// `expands`: whether paths may hold variables; those that were resolved before may not.
  explicit ValueReader(Problems& problems, bool expands = true)
      : problems_(problems), expands_(expands) {}

  /// What kOverrides parameters may name: see overridable_specs.
  void set_overridable(std::vector<const ParamSpec*> specs) { overridable_ = std::move(specs); }

  /// Empty after a problem. `where` begins every message, such as "stages[4] 'augment.flip': ".
  std::optional<Value> read(const ConfigNode& node, const ParamSpec& spec,
                            const std::string& where) const;

 private:
  std::optional<Value> read_named(const ConfigNode& node, ParamSpec spec, const std::string& name,
                                  const std::string& where) const;
  std::optional<Value> read_list(const ConfigNode& node, const ParamSpec& spec,
                                 const std::string& where) const;
  std::optional<Value> read_overrides(const ConfigNode& node, const ParamSpec& spec,
                                      const std::string& where) const;

  Problems& problems_;
  bool expands_;
  std::optional<std::vector<const ParamSpec*>> overridable_;
};

/// A number as we write them, or why it is none (a text that follows "p = 1_000 "). YAML 1.1's
/// other forms (octal, hexadecimal, sexagesimal, grouped digits, .inf, .nan) are refused.
Parsed<std::int64_t> parse_integer(const std::string& text);
Parsed<double> parse_real(const std::string& text);
/// Seeds: 0 .. 2^64 - 1.
std::optional<std::uint64_t> parse_unsigned(const std::string& text);

/// An absolute path as YAML: signs that expand_path would replace are escaped.
std::string path_yaml(const std::string& path);
/// run.threads and run.data_threads as YAML: 0 is auto.
std::string threads_text(int threads);
/// A parameter's value as YAML, with types known: `overridable` are the specs behind overrides.
std::string yaml_value(const Value& value, const ParamSpec& spec,
                       const std::vector<const ParamSpec*>& overridable);

/// The parameters of a stage: its own and, for a source, those that every source has.
std::vector<const ParamSpec*> all_specs(const StageInfo& info);
/// What an `overrides` parameter of an evaluator may name.
std::vector<const ParamSpec*> overridable_specs(const StageInfo& source);
const ParamSpec* find_spec(const std::vector<const ParamSpec*>& specs, std::string_view name);
std::vector<std::string> names_of(const std::vector<const ParamSpec*>& specs);

/// "10", "10%" into the policy; false when it is neither.
bool parse_max_rejects(const std::string& text, RejectPolicy& policy);

}  // namespace gp
