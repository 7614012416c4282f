#include "tools/options.hpp"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

#include "pipeline/config.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

namespace po = boost::program_options;

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  // Wakes the waiting thread when it is no longer needed.
  sigaddset(&signals, SIGUSR2);
  return signals;
}

}  // namespace

Options::Options(std::string usage, std::string doc)
    : usage_(std::move(usage)), doc_(std::move(doc)) {
  options_.add_options()("help,h", "show this text");
}

Options& Options::positional(const std::string& name, bool required) {
  hidden_.add_options()(name.c_str(), po::value<std::string>());
  positional_.add(name.c_str(), 1);
  if (required) required_.push_back(name);
  return *this;
}

Options& Options::with_config_options() {
  add()("set", po::value<std::vector<std::string>>()->composing()->value_name("KEY=VALUE"),
        "override a value of the configuration, e.g. stages.batch.size=32 (repeatable)");
  add()("plugin-path", po::value<std::vector<std::string>>()->composing()->value_name("DIR"),
        "search plugins here first (repeatable)");
  return *this;
}

bool Options::parse(const std::vector<std::string>& arguments) {
  po::options_description all;
  all.add(options_).add(hidden_);
  try {
    const int style =
        po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    po::store(
        po::command_line_parser(arguments).options(all).positional(positional_).style(style).run(),
        values_);
    po::notify(values_);
  } catch (const po::error& error) {
    throw ConfigError(std::string(error.what()) + "\nusage: " + usage_);
  }
  if (has("help")) {
    std::cout << "usage: " << usage_ << "\n\n" << doc_ << "\n\n" << options_;
    return false;
  }
  for (const std::string& name : required_) {
    if (!has(name)) throw ConfigError("missing " + name + "\nusage: " + usage_);
  }
  // Most often a shell variable that is not set.
  for (const auto& [name, value] : values_) {
    const po::option_description* option = options_.find_nothrow(name, false);
    if (option != nullptr && option->semantic()->max_tokens() == 0) continue;  // a switch
    const auto* text = boost::any_cast<std::string>(&value.value());
    if (text == nullptr || !text->empty()) continue;
    throw ConfigError((option != nullptr ? "--" : "") + name + " is empty\nusage: " + usage_);
  }
  return true;
}

std::vector<std::string> Options::list(const std::string& name) const {
  return get_or(name, std::vector<std::string>());
}

std::vector<std::filesystem::path> Options::paths(const std::string& name) const {
  const std::vector<std::string> texts = list(name);
  return {texts.begin(), texts.end()};
}

std::pair<int, int> parse_grid(const std::string& text) {
  int rows = 0;
  int columns = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%dx%d%c", &rows, &columns, &rest) != 2 || rows < 1 ||
      columns < 1 || rows > 1000 || columns > 1000) {
    throw ConfigError("--grid " + text + ": expected ROWSxCOLUMNS, e.g. 4x8");
  }
  return {rows, columns};
}

int run_command(const std::string& program, const std::string& doc,
                const std::vector<Command>& commands, int argc, char** argv) {
  const auto help = [&](std::ostream& out) {
    out << "usage: " << program << " COMMAND ...\n\n" << doc << "\n\ncommands:\n";
    for (const Command& command : commands) {
      out << "  " << command.name << std::string(12 - command.name.size(), ' ') << command.doc
          << '\n';
    }
    out << "\n" << program << " COMMAND --help tells more of each.\n";
  };
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    help(std::cerr);
    return static_cast<int>(ExitCode::kUsage);
  }
  if (arguments[0] == "--help" || arguments[0] == "-h") {
    help(std::cout);
    return 0;
  }
  std::signal(SIGXFSZ, SIG_IGN);  // writing beyond a limit is an error like a full disk
  try {
    std::vector<std::string> names;
    for (const Command& command : commands) {
      if (command.name == arguments[0]) {
        const int exit_code = command.run({arguments.begin() + 1, arguments.end()});
        // A result that nobody got is no success.
        if (!std::cout.flush()) throw RunError("cannot write the results to standard output");
        return exit_code;
      }
      names.push_back(command.name);
    }
    const std::string near = nearest_name(arguments[0], names);
    throw ConfigError("'" + arguments[0] + "' is no command of " + program +
                      (near.empty() ? "" : "; did you mean '" + near + "'?"));
  } catch (const Error& error) {
    std::cerr << program << ": " << error.what() << '\n';
    return static_cast<int>(error.exit_code());
  } catch (const std::exception& error) {
    std::cerr << program << ": unexpected error: " << error.what() << '\n';
    return static_cast<int>(ExitCode::kRunFailed);
  }
}

StopOnSignal::StopOnSignal() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this, signals] {
    for (;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0 || signal == SIGUSR2) return;
      if (source_.stop_requested()) _exit(static_cast<int>(ExitCode::kInterrupted));
      source_.request_stop();
      const char text[] = "\nstopping after this step; once more stops at once\n";
      if (write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
    }
  });
}

StopOnSignal::~StopOnSignal() {
  pthread_kill(thread_.native_handle(), SIGUSR2);
  thread_.join();
}

}  // namespace gp
