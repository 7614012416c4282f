#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>

namespace gp {

class Log;

/// A text file that gets a line now and then while a run goes on, and stays whole whatever
/// interrupts that. Lines that a full disk refuses wait in memory and are tried again with the
/// next. One thread.
class LineFile {
 public:
  /// With an empty path nothing is ever written. `log` outlives it.
  LineFile(std::filesystem::path path, Log& log) : path_(std::move(path)), log_(&log) {}

  /// Appends a line. Where that fails, it waits; that is said once, until it works again.
  void add(std::string line);
  /// Writes what waits and fsyncs. Throws RunError.
  void sync();
  /// Removes the lines that `keep` (given number, from 0, and text) refuses, and a torn line at the
  /// end. The file is replaced as a whole, or left alone where nothing changes. Throws RunError.
  void keep_lines(const std::function<bool(std::uint64_t number, const std::string& line)>& keep);

 private:
  void write_waiting();

  std::filesystem::path path_;
  Log* log_;
  std::deque<std::string> waiting_;
  bool told_ = false;
};

}  // namespace gp
