#include "pipeline/param_schema.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "pipeline/config_node.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

/// The shortest text that reads back to exactly `value`.
std::string real_text(double value) {
  constexpr double kExactIntegers = 1e15;
  std::array<char, 40> buffer{};
  if (std::abs(value) < kExactIntegers && value == std::floor(value)) {
    // to_chars would write 100000 as 1e+05.
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                   std::chars_format::fixed, 0);
    return {buffer.data(), end.ptr};
  }
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end.ptr);
  // YAML 1.1 readers take 1e-5 for a string, 1.0e-5 for a number.
  const auto exponent = text.find('e');
  if (exponent == std::string::npos) return text;
  if (text[exponent + 2] == '0') text.erase(exponent + 2, 1);  // e-04
  if (text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

/// Whether some YAML reader would take the plain text for something other than a string.
bool reads_as_other_type(const std::string& text) {
  static const std::array<std::string_view, 11> kWords = {
      "true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "~"};
  std::string lower = text;
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const auto word : kWords) {
    if (lower == word) return true;
  }
  const auto digit = text.find_first_not_of("+-.");
  if (digit == std::string::npos) return true;
  // Numbers, dates, sexagesimals, .inf, .nan: quote whatever begins like one.
  return (text[digit] >= '0' && text[digit] <= '9' &&
          text.find_first_not_of("0123456789abcdefxABCDEFX+-.:_") == std::string::npos) ||
         (digit > 0 && (lower.substr(digit) == "inf" || lower.substr(digit) == "nan"));
}

/// Whether `text` is a string in YAML without quotes, in block and in flow context. Cautious:
/// letters, digits and a few signs only.
bool plain_is_safe(const std::string& text) {
  if (text.empty() || text.front() == '-' || text.front() == '%') return false;
  for (const char c : text) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      std::string_view("_-./+%~").find(c) != std::string_view::npos;
    if (!safe) return false;
  }
  return true;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        result += "\\\"";
        break;
      case '\\':
        result += "\\\\";
        break;
      case '\n':
        result += "\\n";
        break;
      case '\t':
        result += "\\t";
        break;
      case '\r':
        result += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          constexpr std::string_view kHex = "0123456789abcdef";
          const auto byte = static_cast<unsigned char>(c);
          result += "\\x";
          result += kHex[byte >> 4];
          result += kHex[byte & 15];
        } else {
          result += c;
        }
    }
  }
  return result + '"';
}

std::string string_text(const std::string& text) {
  return plain_is_safe(text) && !reads_as_other_type(text) ? text : quoted(text);
}

std::string list_text(const std::vector<double>& list) {
  std::string text = "[";
  for (const double item : list) {
    if (text.size() > 1) text += ", ";
    text += real_text(item);
  }
  return text + "]";
}

std::string describe_type(ParamType type) {
  switch (type) {
    case ParamType::kBool:
      return "true or false";
    case ParamType::kInt:
      return "a whole number";
    case ParamType::kReal:
      return "a number";
    case ParamType::kString:
    case ParamType::kChoice:
      return "a text";
    case ParamType::kPath:
      return "a path";
    case ParamType::kRealList:
      return "a list of numbers";
    case ParamType::kOverrides:
      return "a map of parameters";
    case ParamType::kStages:
      return "a list of stages";
  }
  return "?";
}

[[noreturn]] void refuse(const std::string& text) { throw ConfigError(text); }

void check_number(const ParamSpec& spec, const std::string& name, double number,
                  const std::string& text) {
  if (!std::isfinite(number)) refuse(name + " = " + text + " is not a finite number");
  if (spec.min && spec.max && (number < *spec.min || number > *spec.max)) {
    refuse(name + " = " + text + " is outside [" + real_text(*spec.min) + ", " +
           real_text(*spec.max) + "]");
  }
  if (spec.min && number < *spec.min) {
    refuse(name + " = " + text + " is less than " + real_text(*spec.min) +
           ", the smallest that is allowed");
  }
  if (spec.max && number > *spec.max) {
    refuse(name + " = " + text + " is more than " + real_text(*spec.max) +
           ", the largest that is allowed");
  }
}

ParamSpec spec_of(std::string name, ParamType type, std::optional<Value> default_value,
                  std::string doc, std::optional<double> min = {}, std::optional<double> max = {}) {
  ParamSpec spec;
  spec.name = std::move(name);
  spec.type = type;
  spec.default_value = std::move(default_value);
  spec.min = min;
  spec.max = max;
  spec.doc = std::move(doc);
  return spec;
}

}  // namespace

std::string to_string(const Value& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          return std::to_string(v);
        } else if constexpr (std::is_same_v<T, double>) {
          return real_text(v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return string_text(v);
        } else if constexpr (std::is_same_v<T, std::vector<double>>) {
          return list_text(v);
        } else {
          std::string text = "{";
          for (const auto& [key, item] : v) {
            if (text.size() > 1) text += ", ";
            // The types are not known here; 0.1 is meant as a number more often than as a text.
            text += string_text(key) + ": " + (plain_is_safe(item) ? item : quoted(item));
          }
          return text + "}";
        }
      },
      value);
}

Value check_value(const ParamSpec& spec, const Value& value) {
  const std::string shown = to_string(value);
  const auto wrong_type = [&]() -> Value {
    refuse(spec.name + " = " + shown + " is not " + describe_type(spec.type));
  };
  switch (spec.type) {
    case ParamType::kBool:
      return std::holds_alternative<bool>(value) ? value : wrong_type();
    case ParamType::kInt: {
      const auto* number = std::get_if<std::int64_t>(&value);
      if (std::holds_alternative<double>(value)) {  // 2.0 is shown as 2
        refuse(spec.name + " = " + shown + " is a real number; expected a whole number");
      }
      if (number == nullptr) return wrong_type();
      check_number(spec, spec.name, static_cast<double>(*number), shown);
      return value;
    }
    case ParamType::kReal: {
      double number = 0;
      if (const auto* real = std::get_if<double>(&value)) {
        number = *real;
      } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
        number = static_cast<double>(*integer);
      } else {
        return wrong_type();
      }
      check_number(spec, spec.name, number, shown);
      return number;
    }
    case ParamType::kString:
      return std::holds_alternative<std::string>(value) ? value : wrong_type();
    case ParamType::kPath: {
      const auto* path = std::get_if<std::string>(&value);
      if (path == nullptr) return wrong_type();
      if (path->empty()) refuse(spec.name + " is empty; expected a path");
      return value;
    }
    case ParamType::kChoice: {
      const auto* text = std::get_if<std::string>(&value);
      if (text == nullptr) return wrong_type();
      for (const auto& choice : spec.choices) {
        if (choice == *text) return value;
      }
      const std::string near = nearest_name(*text, spec.choices);
      refuse(spec.name + " = " + shown + " is not one of " + joined(spec.choices) +
             (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
    case ParamType::kRealList: {
      const auto* list = std::get_if<std::vector<double>>(&value);
      if (list == nullptr) return wrong_type();
      for (std::size_t i = 0; i < list->size(); ++i) {
        check_number(spec, spec.name + "[" + std::to_string(i) + "]", (*list)[i],
                     real_text((*list)[i]));
      }
      return value;
    }
    case ParamType::kOverrides:
      return std::holds_alternative<std::map<std::string, std::string>>(value) ? value
                                                                               : wrong_type();
    case ParamType::kStages:
      break;  // never a value: its stages are checked one by one
  }
  return wrong_type();
}

ParamSchema& ParamSchema::add(ParamSpec spec) {
  // Dots part addresses; `use` and `name` are keys of every stage.
  const bool is_name =
      spec.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos &&
      !spec.name.empty() && spec.name.front() > '9';
  if (!is_name || spec.name == "use" || spec.name == "name") {
    throw std::logic_error("'" + spec.name +
                           "' can't be a parameter's name: [a-z][a-z0-9_]*, not use or name");
  }
  if (find(spec.name) != nullptr) {
    throw std::logic_error("parameter '" + spec.name + "' is declared twice");
  }
  if (spec.type == ParamType::kChoice && spec.choices.empty()) {
    throw std::logic_error("parameter '" + spec.name + "' has no choices");
  }
  if (spec.default_value) {
    try {
      spec.default_value = check_value(spec, *spec.default_value);
    } catch (const ConfigError& error) {
      throw std::logic_error(std::string("bad default: ") + error.what());
    }
  }
  specs_.push_back(std::move(spec));
  return *this;
}

ParamSchema& ParamSchema::flag(std::string name, bool default_value, std::string doc) {
  return add(spec_of(std::move(name), ParamType::kBool, default_value, std::move(doc)));
}

ParamSchema& ParamSchema::integer(std::string name, std::int64_t default_value, std::string doc,
                                  std::optional<double> min, std::optional<double> max) {
  return add(spec_of(std::move(name), ParamType::kInt, default_value, std::move(doc), min, max));
}

ParamSchema& ParamSchema::real(std::string name, double default_value, std::string doc,
                               std::optional<double> min, std::optional<double> max) {
  return add(spec_of(std::move(name), ParamType::kReal, default_value, std::move(doc), min, max));
}

ParamSchema& ParamSchema::text(std::string name, std::string default_value, std::string doc) {
  return add(
      spec_of(std::move(name), ParamType::kString, std::move(default_value), std::move(doc)));
}

ParamSchema& ParamSchema::choice(std::string name, std::string default_value,
                                 std::vector<std::string> choices, std::string doc) {
  ParamSpec spec =
      spec_of(std::move(name), ParamType::kChoice, std::move(default_value), std::move(doc));
  spec.choices = std::move(choices);
  return add(std::move(spec));
}

ParamSchema& ParamSchema::path(std::string name, std::string doc) {
  return add(spec_of(std::move(name), ParamType::kPath, {}, std::move(doc)));
}

ParamSchema& ParamSchema::real_list(std::string name, std::vector<double> default_value,
                                    std::string doc, std::optional<double> min,
                                    std::optional<double> max) {
  return add(spec_of(std::move(name), ParamType::kRealList, std::move(default_value),
                     std::move(doc), min, max));
}

ParamSchema& ParamSchema::overrides(std::string name, std::string doc) {
  return add(spec_of(std::move(name), ParamType::kOverrides, {}, std::move(doc))).maybe();
}

ParamSchema& ParamSchema::stages(std::string name, std::string doc) {
  return add(spec_of(std::move(name), ParamType::kStages, {}, std::move(doc)));
}

ParamSchema& ParamSchema::required() {
  if (specs_.empty()) throw std::logic_error("required() before any parameter");
  specs_.back().default_value.reset();
  specs_.back().optional = false;
  return *this;
}

ParamSchema& ParamSchema::maybe() {
  if (specs_.empty()) throw std::logic_error("maybe() before any parameter");
  specs_.back().default_value.reset();
  specs_.back().optional = true;
  return *this;
}

ParamSchema& ParamSchema::may_change() {
  if (specs_.empty()) throw std::logic_error("may_change() before any parameter");
  specs_.back().may_change = true;
  return *this;
}

const ParamSpec* ParamSchema::find(std::string_view name) const {
  for (const auto& spec : specs_) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

const Value& Params::at(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) {
    throw std::logic_error("parameter '" + name +
                           "' has no value: it is not declared, or it is optional and has() was "
                           "not asked");
  }
  return found->second;
}

void Params::wrong_type(const std::string& name) {
  throw std::logic_error("parameter '" + name + "' was declared with another type");
}

Params make_params(const ParamSchema& schema, const std::map<std::string, Value>& given) {
  std::string errors;
  const auto note = [&](const std::string& text) { errors += (errors.empty() ? "" : "\n") + text; };

  Params params;
  for (const auto& spec : schema.specs()) {
    const auto found = given.find(spec.name);
    if (found != given.end()) {
      try {
        params.set(spec.name, check_value(spec, found->second));
      } catch (const ConfigError& error) {
        note(error.what());
      }
    } else if (spec.default_value) {
      params.set(spec.name, *spec.default_value);
    } else if (!spec.optional) {
      note("parameter '" + spec.name + "' is required");
    }
  }
  std::vector<std::string> names;
  for (const auto& spec : schema.specs()) names.push_back(spec.name);
  for (const auto& [name, value] : given) {
    if (schema.find(name) != nullptr) continue;
    const std::string near = nearest_name(name, names);
    note("unknown parameter '" + name + "'" +
         (near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  if (!errors.empty()) throw ConfigError(errors);
  return params;
}

}  // namespace gp
