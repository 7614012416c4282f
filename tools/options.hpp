#pragma once

#include <boost/program_options.hpp>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace gp {

/// The command line of one subcommand: `program COMMAND POSITIONAL.. --options`. Abbreviated
/// options are off; every mistake is a ConfigError that names the option.
class Options {
 public:
  /// `usage` is the line shown by --help and with mistakes.
  Options(std::string usage, std::string doc);

  boost::program_options::options_description_easy_init add() { return options_.add_options(); }
  /// A positional argument, in order; the last one may be optional.
  Options& positional(const std::string& name, bool required = true);
  /// --set, --plugin-path.
  Options& with_config_options();

  /// Returns false when --help was asked for and printed.
  bool parse(const std::vector<std::string>& arguments);

  bool has(const std::string& name) const { return values_.count(name) > 0; }
  template <class T>
  T get(const std::string& name) const {
    return values_[name].as<T>();
  }
  template <class T>
  T get_or(const std::string& name, T otherwise) const {
    return has(name) ? get<T>(name) : otherwise;
  }
  std::vector<std::string> list(const std::string& name) const;
  std::vector<std::filesystem::path> paths(const std::string& name) const;

 private:
  std::string usage_;
  std::string doc_;
  boost::program_options::options_description options_{"options"};
  boost::program_options::options_description hidden_;
  boost::program_options::positional_options_description positional_;
  std::vector<std::string> required_;
  boost::program_options::variables_map values_;
};

/// "3x8" as rows and columns, 1 to 1000 each. Throws ConfigError that names --grid.
std::pair<int, int> parse_grid(const std::string& text);

/// A subcommand: its name, one line about it, and what it does with the arguments after the name.
struct Command {
  std::string name;
  std::string doc;
  std::function<int(const std::vector<std::string>& arguments)> run;
};

/// `main` of a tool: picks the command, turns errors into messages and exit codes.
int run_command(const std::string& program, const std::string& doc,
                const std::vector<Command>& commands, int argc, char** argv);

/// Turns SIGINT and SIGTERM into a stop request; the second one ends the process at once. Make it
/// before any thread is started, so that all of them leave these signals to it.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::thread thread_;
};

}  // namespace gp
