#include "pipeline/plugin_examiner.hpp"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "pipeline/config.hpp"
#include "pipeline/error.hpp"
#include "pipeline/plugin_loader.hpp"
#include "pipeline/stage_tester.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// The child tells the parent what it is doing in messages: one of these, a text, a zero byte.
constexpr char kDoing = 'd';
constexpr char kReport = 'r';
constexpr char kFault = 'f';

void tell(int pipe, char what, const std::string& text) {
  std::string message = what + text + '\0';
  for (std::size_t sent = 0; sent < message.size();) {
    const ssize_t n = write(pipe, message.data() + sent, message.size() - sent);
    if (n < 0) _exit(1);
    sent += static_cast<std::size_t>(n);
  }
}

/// Ramps in all three colours.
Image trial_picture() {
  Image image(32, 48);
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 48; ++x) {
      std::uint8_t* pixel = image.view().row(y) + x * kChannels;
      pixel[0] = static_cast<std::uint8_t>(5 * x);
      pixel[1] = static_cast<std::uint8_t>(7 * y);
      pixel[2] = static_cast<std::uint8_t>(3 * (x + y));
    }
  }
  return image;
}

/// What becomes of the trial picture; empty: the stage needs parameters.
std::string try_stage(const StageInfo& info) {
  for (const ParamSpec& spec : info.params.specs()) {
    if (!spec.default_value && !spec.optional) return "";
  }
  const auto made = info.create(make_params(info.params));
  const Image picture = trial_picture();
  std::string text = to_string(picture.shape()) + " pixels with its defaults: ";
  try {
    const StageResult result =
        run_stage(dynamic_cast<const TransformStage&>(*made), picture.view(), Rng(1, info.name, 0));
    if (result.dropped) return text + "dropped, " + *result.dropped;
    return text + to_string(result.image.shape()) +
           (result.image.pixels() == picture.pixels() ? ", unchanged" : ", changed");
  } catch (const SampleError& error) {
    return text + "refused, " + error.what();
  }
}

std::string examine(const std::filesystem::path& file, bool json, int pipe) {
  tell(pipe, kDoing, "while it was loaded");
  StageRegistry registry;
  PluginLoader loader({}, true);
  loader.load_plugin(std::filesystem::absolute(file).string(), registry);
  const PluginLoader::Loaded& plugin = loader.loaded().front();
  Json report = {{"plugin", plugin.name},
                 {"version", plugin.version},
                 {"abi", plugin.abi},
                 {"file", plugin.file.string()},
                 {"stages", Json::array()}};
  std::string text = "plugin " + plugin.name + " " + plugin.version + ", ABI " + plugin.abi +
                     "\n  " + plugin.file.string() + "\n";
  for (const StageInfo* info : registry.list()) {
    tell(pipe, kDoing, "while its stage '" + info->name + "' was tried");
    const std::string trial = try_stage(*info);
    Json stage = Json::parse(describe_json(registry, info));
    stage["trial"] = trial.empty() ? Json() : Json(trial);
    report["stages"].push_back(std::move(stage));
    text += "\n" + describe_stage(*info) + "\nTried on " +
            (trial.empty() ? "nothing: it has required parameters" : trial) + "\n";
  }
  return json ? report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : text;
}

[[noreturn]] void child(const std::filesystem::path& file, bool json, int pipe) {
  try {
    tell(pipe, kReport, examine(file, json, pipe));
  } catch (const std::exception& error) {
    tell(pipe, kFault, error.what());
  }
  _exit(0);  // none of the plugin's clean-up
}

/// What the child said last of each kind.
struct Messages {
  std::string doing, report, fault;
  std::string rest;

  void add(std::string_view bytes) {
    rest += bytes;
    for (auto end = rest.find('\0'); end != std::string::npos; end = rest.find('\0')) {
      const std::string text = rest.substr(1, end - 1);
      switch (rest.front()) {
        case kDoing:
          doing = text;
          break;
        case kReport:
          report = text;
          break;
        default:
          fault = text;
      }
      rest.erase(0, end + 1);
    }
  }
};

}  // namespace

std::string examine_plugin(const std::filesystem::path& file, bool json,
                           std::chrono::milliseconds limit) {
  int ends[2];
  if (pipe(ends) != 0) throw RunError(std::string("cannot make a pipe: ") + std::strerror(errno));
  const pid_t process = fork();
  if (process < 0) throw RunError(std::string("cannot fork: ") + std::strerror(errno));
  if (process == 0) {
    close(ends[0]);
    child(file, json, ends[1]);
  }
  close(ends[1]);

  Messages messages;
  const auto deadline = Clock::now() + limit;
  bool late = false;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd watched{ends[0], POLLIN, 0};
    const int ready = poll(&watched, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      late = true;
      kill(process, SIGKILL);
      break;
    }
    char buffer[4096];
    const ssize_t n = read(ends[0], buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    messages.add({buffer, static_cast<std::size_t>(n)});
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }

  if (!messages.fault.empty()) throw PluginError(messages.fault);
  if (!messages.report.empty()) return messages.report;
  const std::string what = "plugin " + file.string() + " ";
  if (late) {
    throw PluginError(what + "did not come to an end " + messages.doing + "; it was given " +
                      std::to_string(limit.count() / 1000.0).substr(0, 4) + " s");
  }
  if (WIFSIGNALED(status)) {
    throw PluginError(what + "crashed " + messages.doing + ": signal " +
                      std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) +
                      "). Run it in a debugger, or build it with -fsanitize=address.");
  }
  throw PluginError(what + "ended the process " + messages.doing + " (exit code " +
                    std::to_string(WEXITSTATUS(status)) + "); a plugin must return instead");
}

}  // namespace gp
