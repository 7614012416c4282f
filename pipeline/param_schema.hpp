#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace gp {

enum class ParamType {
  kBool,
  kInt,
  kReal,
  kString,
  kChoice,  ///< one of `choices`
  kPath,    ///< resolved against the file that holds it
  kRealList,
  kOverrides,  ///< a map of other parameters, e.g. `reference: {split: trainval}`; kept as text
  kStages      ///< a list of stages, of which the engine makes one a sample (augment.one_of)
};

/// A validated parameter value.
using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<double>,
                           std::map<std::string, std::string>>;

/// How a value is written in YAML and in messages.
std::string to_string(const Value& value);

/// One parameter of a stage, as data: validates the YAML, prints `inspect`, makes the JSON Schema.
struct ParamSpec {
  std::string name;
  ParamType type = ParamType::kReal;
  std::optional<Value> default_value;  ///< none: `required`, or absent when `optional`
  bool optional = false;               ///< may be absent with no default; Params::has tells
  std::optional<double> min;           ///< inclusive; for lists: of every element
  std::optional<double> max;           ///< inclusive
  std::vector<std::string> choices;
  std::string doc;          ///< one line; unit in it
  bool may_change = false;  ///< a run may be resumed with another value
};

/// The parameters of a stage, in the order in which they are shown.
class ParamSchema {
 public:
  ParamSchema& flag(std::string name, bool default_value, std::string doc);
  ParamSchema& integer(std::string name, std::int64_t default_value, std::string doc,
                       std::optional<double> min = {}, std::optional<double> max = {});
  ParamSchema& real(std::string name, double default_value, std::string doc,
                    std::optional<double> min = {}, std::optional<double> max = {});
  ParamSchema& text(std::string name, std::string default_value, std::string doc);
  ParamSchema& choice(std::string name, std::string default_value, std::vector<std::string> choices,
                      std::string doc);
  ParamSchema& path(std::string name, std::string doc);  ///< required
  ParamSchema& real_list(std::string name, std::vector<double> default_value, std::string doc,
                         std::optional<double> min = {}, std::optional<double> max = {});
  ParamSchema& overrides(std::string name, std::string doc);  ///< optional
  ParamSchema& stages(std::string name, std::string doc);     ///< required
  ParamSchema& add(ParamSpec spec);
  /// Makes the parameter added last required (no default).
  ParamSchema& required();
  /// Makes the parameter added last optional (no default, may be absent).
  ParamSchema& maybe();
  /// A run may be resumed with another value of the parameter added last.
  ParamSchema& may_change();

  const std::vector<ParamSpec>& specs() const { return specs_; }
  const ParamSpec* find(std::string_view name) const;

 private:
  std::vector<ParamSpec> specs_;
};

/// Checked parameters of one stage instance. Asking for a name that the schema does not declare,
/// or with another type, is a programming error (std::logic_error).
class Params {
 public:
  void set(const std::string& name, Value value) { values_[name] = std::move(value); }
  bool has(const std::string& name) const { return values_.count(name) > 0; }

  bool flag(const std::string& name) const { return get<bool>(name); }
  std::int64_t integer(const std::string& name) const { return get<std::int64_t>(name); }
  double real(const std::string& name) const { return get<double>(name); }
  /// Strings, choices and paths.
  const std::string& text(const std::string& name) const { return get<std::string>(name); }
  const std::vector<double>& real_list(const std::string& name) const {
    return get<std::vector<double>>(name);
  }
  const std::map<std::string, std::string>& overrides(const std::string& name) const {
    return get<std::map<std::string, std::string>>(name);
  }
  const std::map<std::string, Value>& values() const { return values_; }

 private:
  const Value& at(const std::string& name) const;
  template <class T>
  const T& get(const std::string& name) const {
    const T* value = std::get_if<T>(&at(name));
    if (value == nullptr) wrong_type(name);
    return *value;
  }
  [[noreturn]] static void wrong_type(const std::string& name);

  std::map<std::string, Value> values_;
};

/// Parameters with every default of `schema` filled in and `given` on top: for tests and for
/// building stages in code. Throws ConfigError when a value breaks the schema.
Params make_params(const ParamSchema& schema, const std::map<std::string, Value>& given = {});

/// Checks one value against its spec (type, range, choices). Returns the value, with integers
/// widened to reals where the spec wants a real; otherwise throws ConfigError with a text such as
/// "p = 1.5 is outside [0, 1]", without a place: the caller adds it.
Value check_value(const ParamSpec& spec, const Value& value);

}  // namespace gp
