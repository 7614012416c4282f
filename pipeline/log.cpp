#include "pipeline/log.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

constexpr double kSecondsBetweenLines = 10;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Log::Log() : terminal_(::isatty(STDERR_FILENO) == 1) {}

Log::~Log() { clear_progress(); }

void Log::open(const std::filesystem::path& file) {
  const std::lock_guard lock(mutex_);
  append_line(file, GP_BUILD_ID);
  file_ = file;
}

void Log::clear_progress() {
  if (progress_shown_) std::fputs("\r\x1b[K", stderr);
  progress_shown_ = false;
}

void Log::write(const std::string& line, bool to_stderr) {
  if (to_stderr) {
    clear_progress();
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  if (file_.empty()) return;
  try {
    append_line(file_, line);
  } catch (const RunError& error) {
    if (file_failed_) return;
    file_failed_ = true;
    clear_progress();
    std::fprintf(stderr, "warning: the log has gaps from here on: %s\n", error.what());
  }
}

void Log::info(const std::string& text) {
  const std::lock_guard lock(mutex_);
  write(text, !quiet_);
}

void Log::warn(const std::string& text) {
  const std::lock_guard lock(mutex_);
  write("warning: " + text, true);
}

void Log::progress(const std::string& text) {
  const std::lock_guard lock(mutex_);
  const bool due = now() - last_progress_ >= kSecondsBetweenLines;
  if (terminal_ && !quiet_) {
    std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
    std::fflush(stderr);
    progress_shown_ = true;
  }
  if (!due) return;
  last_progress_ = now();
  write(text, !terminal_ && !quiet_);
}

}  // namespace gp
