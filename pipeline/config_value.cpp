#include <charconv>
#include <cmath>
#include <cstdlib>
#include <system_error>

#include "pipeline/config_node.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

using Node = ConfigNode;
namespace fs = std::filesystem;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// [+-] digits [. digits] [e [+-] digits], with a digit before or after the point.
struct NumberForm {
  bool valid = false;
  bool integer = false;       ///< neither point nor exponent
  bool leading_zero = false;  ///< 010
};

NumberForm number_form(std::string_view text) {
  NumberForm form;
  std::size_t at = 0;
  const auto digits = [&] {
    const std::size_t start = at;
    while (at < text.size() && is_digit(text[at])) ++at;
    return at - start;
  };
  if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
  const std::size_t first = at;
  const std::size_t whole = digits();
  form.leading_zero = whole > 1 && text[first] == '0';
  form.integer = true;
  std::size_t fraction = 0;
  if (at < text.size() && text[at] == '.') {
    form.integer = false;
    ++at;
    fraction = digits();
  }
  if (whole + fraction == 0) return form;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    form.integer = false;
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    if (digits() == 0) return form;
  }
  form.valid = at == text.size();
  return form;
}

std::string_view without_plus(std::string_view text) {
  return text.starts_with('+') ? text.substr(1) : text;
}

std::optional<double> to_real(std::string_view text) {
  text = without_plus(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

/// Why `text` is no number, for the forms that other readers of YAML take for one.
std::string why_no_number(const std::string& text, const char* expected) {
  std::string plain;
  for (const char c : text) {
    if (c != '_') plain += c;
  }
  const NumberForm form = number_form(plain);
  if (form.valid && plain.size() < text.size()) {
    return "has grouped digits; write " + (form.leading_zero ? expected : plain);
  }
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'o' || text[1] == 'b')) {
    return "is not a decimal number; write it with digits 0 to 9";
  }
  if (text.ends_with('%')) {
    const auto share = to_real(std::string_view(text).substr(0, text.size() - 1));
    if (share) return "is not a number; write " + to_string(Value(*share / 100));
  }
  std::string dotted = text;
  for (char& c : dotted) {
    if (c == ',') c = '.';
  }
  if (dotted != text && number_form(dotted).valid) return "is not a number; write " + dotted;
  std::string lower;
  for (const char c : text) {
    if (c != '+' && c != '-' && c != '.') lower += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  }
  if (lower == "nan" || lower == "inf" || lower == "infinity") return "is not a finite number";
  return std::string("is not ") + expected;
}

std::string without_leading_zeros(std::string text) {
  const std::size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  while (text.size() > sign + 1 && text[sign] == '0' && is_digit(text[sign + 1])) {
    text.erase(sign, 1);
  }
  return text;
}

std::string leading_zero_problem(const std::string& text) {
  return "has a leading zero, which some readers take for octal; write " +
         without_leading_zeros(text);
}

std::string bool_problem(const std::string& text) {
  std::string lower;
  for (const char c : text) lower += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  if (lower == "true" || lower == "yes" || lower == "on" || lower == "y" || lower == "1") {
    return "is not true or false; write true";
  }
  if (lower == "false" || lower == "no" || lower == "off" || lower == "n" || lower == "0") {
    return "is not true or false; write false";
  }
  return "is not true or false";
}

const char* expected_of(ParamType type) {
  switch (type) {
    case ParamType::kBool:
      return "true or false";
    case ParamType::kInt:
      return "a whole number";
    case ParamType::kReal:
      return "a number";
    case ParamType::kString:
      return "a text";
    case ParamType::kChoice:
      return "one of its choices";
    case ParamType::kPath:
      return "a path";
    case ParamType::kRealList:
      return "a list of numbers, such as [0.5, 1]";
    case ParamType::kOverrides:
      return "a map of parameters, such as {split: test}";
    case ParamType::kStages:
      return "a list of stages, such as [{use: augment.flip}]";
  }
  return "";
}

/// Parses the text of a scalar. The second member says what is wrong with it.
std::pair<std::optional<Value>, std::string> parse_scalar(const std::string& text, ParamType type) {
  switch (type) {
    case ParamType::kBool:
      if (text == "true") return {Value(true), ""};
      if (text == "false") return {Value(false), ""};
      return {std::nullopt, bool_problem(text)};
    case ParamType::kInt: {
      auto parsed = parse_integer(text);
      if (parsed.value) return {Value(*parsed.value), ""};
      return {std::nullopt, parsed.problem};
    }
    case ParamType::kReal: {
      auto parsed = parse_real(text);
      if (parsed.value) return {Value(*parsed.value), ""};
      return {std::nullopt, parsed.problem};
    }
    default:
      return {Value(text), ""};
  }
}

bool is_number_or_bool(ParamType type) {
  return type == ParamType::kBool || type == ParamType::kInt || type == ParamType::kReal;
}

}  // namespace

Parsed<std::int64_t> parse_integer(const std::string& text) {
  const NumberForm form = number_form(text);
  if (!form.valid) return {{}, why_no_number(text, "a whole number")};
  if (form.leading_zero) return {{}, leading_zero_problem(text)};
  if (!form.integer) {
    const auto real = to_real(text);
    constexpr double kExact = 9e15;
    if (real && *real == std::floor(*real) && std::abs(*real) < kExact) {
      return {{},
              "is not written as a whole number; write " +
                  std::to_string(static_cast<std::int64_t>(*real))};
    }
    return {{}, "is not a whole number"};
  }
  const std::string_view digits = without_plus(text);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return {{}, "does not fit into 64 bits"};
  }
  return {value, ""};
}

Parsed<double> parse_real(const std::string& text) {
  const NumberForm form = number_form(text);
  if (!form.valid) return {{}, why_no_number(text, "a number")};
  if (form.leading_zero) return {{}, leading_zero_problem(text)};
  const auto value = to_real(text);
  if (!value) return {{}, "does not fit into a double"};
  return {value, ""};
}

std::optional<std::uint64_t> parse_unsigned(const std::string& text) {
  const NumberForm form = number_form(text);
  if (!form.valid || !form.integer || form.leading_zero || text.starts_with('-')) return {};
  const std::string_view digits = without_plus(text);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  return value;
}

bool parse_max_rejects(const std::string& text, RejectPolicy& policy) {
  policy.max_rejects = -1;
  policy.max_reject_share = -1;
  if (text.ends_with('%')) {
    const auto percent = parse_real(text.substr(0, text.size() - 1));
    if (!percent.value || *percent.value < 0 || *percent.value > 100) return false;
    policy.max_reject_share = *percent.value / 100;
    return true;
  }
  const auto number = parse_integer(text);
  if (!number.value || *number.value < 0) return false;
  policy.max_rejects = *number.value;
  return true;
}

namespace {

/// `~` and `~/..` with the home folder in its place.
Parsed<std::string> expand_home(const std::string& text) {
  if (!text.starts_with('~')) return {text, ""};
  if (text.size() > 1 && text[1] != '/') {
    return {{}, "begins with another user's home; write it out (./~ for a file of that name)"};
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {{}, "needs HOME, which is not set"};
  return {home + text.substr(1), ""};
}

}  // namespace

Parsed<std::string> expand_path(const std::string& text) {
  std::string path;
  std::size_t at = 0;
  const auto is_name = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || is_digit(c) || c == '_';
  };
  while (at < text.size()) {
    if (text[at] != '$') {
      path += text[at++];
      continue;
    }
    ++at;
    if (at < text.size() && text[at] == '$') {
      path += text[at++];
      continue;
    }
    const bool braces = at < text.size() && text[at] == '{';
    if (braces) ++at;
    const std::size_t start = at;
    while (at < text.size() && is_name(text[at])) ++at;
    const std::string name = text.substr(start, at - start);
    std::optional<std::string> otherwise;
    if (braces && text.compare(at, 2, ":-") == 0) {
      const std::size_t end = std::min(text.find('}', at), text.size());
      otherwise = text.substr(at + 2, end - at - 2);
      at = end;
    }
    if (name.empty() || is_digit(name.front()) ||
        (braces && (at == text.size() || text[at++] != '}'))) {
      return {{},
              "has a '$' that begins no $NAME, ${NAME} or ${NAME:-default}; write $$ for the "
              "sign itself"};
    }
    const char* value = std::getenv(name.c_str());
    if (value != nullptr && *value != '\0') {
      path += value;
    } else if (otherwise) {
      path += *otherwise;
    } else {
      return {{},
              "needs the environment variable " + name +
                  ", which is not set; set it, or write "
                  "${" +
                  name + ":-DEFAULT}"};
    }
  }
  return expand_home(path);
}

std::string absolute_path(const std::string& path, const Mark& mark) {
  // Only a file's own values have a line; others come from the command line or from code.
  const fs::path folder = mark.line > 0 ? folder_of(mark.file) : fs::current_path();
  fs::path full = (folder / path).lexically_normal();
  if (!full.has_filename() && full.has_relative_path()) full = full.parent_path();
  return full.string();
}

std::optional<Value> ValueReader::read(const Node& node, const ParamSpec& spec,
                                       const std::string& where) const {
  return read_named(node, spec, spec.name, where);
}

std::optional<Value> ValueReader::read_named(const Node& node, ParamSpec spec,
                                             const std::string& name,
                                             const std::string& where) const {
  spec.name = name;  // messages of check_value begin with it
  const auto refuse = [&](const std::string& text) -> std::optional<Value> {
    problems_.add(node.mark, where + name + text);
    return std::nullopt;
  };

  if (node.type == Node::Type::kNull) {
    return refuse(spec.type == ParamType::kString
                      ? std::string(" has no value; write \"\" for an empty text")
                      : std::string(" has no value; expected ") + expected_of(spec.type));
  }
  if (spec.type == ParamType::kRealList) return read_list(node, spec, where);
  if (spec.type == ParamType::kOverrides) return read_overrides(node, spec, where);
  if (!node.is_text()) return refuse(" is " + found(node) + "; expected " + expected_of(spec.type));

  if (node.quoted && is_number_or_bool(spec.type)) {
    const bool would_do = parse_scalar(node.text, spec.type).first.has_value();
    return refuse(
        " = \"" + shown(node.text) + "\" is a text, because of its quotes; " +
        (would_do ? "write " + node.text : std::string("expected ") + expected_of(spec.type)));
  }
  auto [value, problem] = parse_scalar(node.text, spec.type);
  if (!value) return refuse(" = " + shown(node.text) + " " + problem);
  if (spec.type == ParamType::kPath && !node.text.empty()) {
    auto [path, why] = expands_ ? expand_path(node.text) : Parsed<std::string>{node.text, ""};
    if (!path) return refuse(" = " + shown(node.text) + " " + why);
    value = Value(absolute_path(*path, node.mark));
  }
  try {
    return check_value(spec, *value);
  } catch (const ConfigError& error) {
    problems_.add(node.mark, where + error.what());
    return std::nullopt;
  }
}

std::optional<Value> ValueReader::read_list(const Node& node, const ParamSpec& spec,
                                            const std::string& where) const {
  if (node.type != Node::Type::kList) {
    problems_.add(node.mark, where + spec.name + " is " + found(node) + "; expected " +
                                 expected_of(spec.type));
    return std::nullopt;
  }
  ParamSpec element = spec;
  element.type = ParamType::kReal;
  std::vector<double> list;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const auto value =
        read_named(node.items[i], element, spec.name + "[" + std::to_string(i) + "]", where);
    if (value) list.push_back(std::get<double>(*value));
  }
  if (list.size() < node.items.size()) return std::nullopt;
  return Value(std::move(list));
}

std::optional<Value> ValueReader::read_overrides(const Node& node, const ParamSpec& spec,
                                                 const std::string& where) const {
  if (node.type != Node::Type::kMap) {
    problems_.add(node.mark, where + spec.name + " is " + found(node) + "; expected " +
                                 expected_of(spec.type));
    return std::nullopt;
  }
  std::map<std::string, std::string> texts;
  for (const Node& item : node.items) {
    const std::string name = spec.name + "." + shown(item.key);
    if (!overridable_) {  // the source is unknown, which has been said
      continue;
    }
    const ParamSpec* target = find_spec(*overridable_, item.key);
    if (target == nullptr) {
      const auto names = names_of(*overridable_);
      const std::string hint = did_you_mean(item.key, names);
      problems_.add(item.key_mark,
                    where + "unknown parameter '" + name + "'; the source has none called so" +
                        (hint.empty() ? "; its parameters are " + joined(names) : hint));
      continue;
    }
    if (target->type == ParamType::kOverrides) {
      problems_.add(item.key_mark, where + name + " can't be overridden");
      continue;
    }
    if (const auto value = read_named(item, *target, name, where)) {
      const auto* text = std::get_if<std::string>(&*value);
      texts[item.key] = text != nullptr ? *text : to_string(*value);
    }
  }
  return Value(std::move(texts));
}

std::string path_yaml(const std::string& path) {
  std::string escaped;
  for (const char c : path) escaped += c == '$' ? "$$" : std::string(1, c);
  return to_string(Value(escaped));
}

std::string threads_text(int threads) { return threads == 0 ? "auto" : std::to_string(threads); }

std::string yaml_value(const Value& value, const ParamSpec& spec,
                       const std::vector<const ParamSpec*>& overridable) {
  if (spec.type == ParamType::kPath) return path_yaml(std::get<std::string>(value));
  const auto* texts = std::get_if<std::map<std::string, std::string>>(&value);
  if (spec.type != ParamType::kOverrides || texts == nullptr) return to_string(value);
  std::string yaml = "{";
  for (const auto& [name, text] : *texts) {
    const ParamSpec* target = find_spec(overridable, name);
    const bool literal = target != nullptr &&
                         (is_number_or_bool(target->type) || target->type == ParamType::kRealList);
    const bool path = target != nullptr && target->type == ParamType::kPath;
    if (yaml.size() > 1) yaml += ", ";
    yaml += to_string(Value(name)) + ": " +
            (literal ? text
             : path  ? path_yaml(text)
                     : to_string(Value(text)));
  }
  return yaml + "}";
}

std::vector<const ParamSpec*> all_specs(const StageInfo& info) {
  std::vector<const ParamSpec*> specs;
  for (const ParamSpec& spec : info.params.specs()) specs.push_back(&spec);
  if (info.in == Kind::kNothing) {
    for (const ParamSpec& spec : common_source_params().specs()) {
      if (info.params.find(spec.name) == nullptr) specs.push_back(&spec);
    }
  }
  return specs;
}

std::vector<const ParamSpec*> overridable_specs(const StageInfo& source) {
  auto specs = all_specs(source);
  specs.push_back(&held_out_fraction_spec());
  return specs;
}

const ParamSpec* find_spec(const std::vector<const ParamSpec*>& specs, std::string_view name) {
  for (const ParamSpec* spec : specs) {
    if (spec->name == name) return spec;
  }
  return nullptr;
}

std::vector<std::string> names_of(const std::vector<const ParamSpec*>& specs) {
  std::vector<std::string> names;
  for (const ParamSpec* spec : specs) names.push_back(spec->name);
  return names;
}

}  // namespace gp
