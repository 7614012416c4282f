#pragma once

#include <filesystem>
#include <mutex>
#include <string>

namespace gp {

/// Messages for people: to stderr, and to the run's log.txt once `open` was called. Thread-safe.
class Log {
 public:
  Log();
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// Throws RunError when the file cannot be written. If that fails later, nobody stops for it: it
  /// is said once, and whatever can be written still is.
  void open(const std::filesystem::path& file);
  void info(const std::string& text);
  void warn(const std::string& text);
  /// A status line: redrawn in place on a terminal; elsewhere written every few seconds.
  void progress(const std::string& text);
  /// Nothing to stderr but warnings (tests, --json).
  void set_quiet(bool quiet) { quiet_ = quiet; }

 private:
  void write(const std::string& line, bool to_stderr);
  void clear_progress();

  std::mutex mutex_;
  std::filesystem::path file_;  ///< empty: none
  bool file_failed_ = false;
  bool terminal_ = false;
  bool quiet_ = false;
  bool progress_shown_ = false;
  double last_progress_ = -1e9;
};

}  // namespace gp
