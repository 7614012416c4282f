#include "pipeline/log.hpp"

#include <unistd.h>

#include <chrono>
#include <cstring>

#include "pipeline/error.hpp"

namespace gp {
namespace {

constexpr double kSecondsBetweenLines = 5;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Log::Log() : terminal_(::isatty(STDERR_FILENO) == 1) {}

Log::~Log() {
  clear_progress();
  if (file_ != nullptr) std::fclose(file_);
}

void Log::open(const std::filesystem::path& file) {
  const std::lock_guard lock(mutex_);
  if (file_ != nullptr) std::fclose(file_);
  file_ = std::fopen(file.c_str(), "ae");
  if (file_ == nullptr) {
    throw RunError(file.string() + ": cannot open the log: " + std::strerror(errno));
  }
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
  if (file_ != nullptr) {
    std::fprintf(file_, "%s\n", line.c_str());
    std::fflush(file_);
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
