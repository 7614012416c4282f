#include "pipeline/line_file.hpp"

#include <string_view>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"

namespace gp {

void LineFile::add(std::string line) {
  if (path_.empty()) return;
  waiting_.push_back(std::move(line));
  try {
    write_waiting();
  } catch (const RunError& error) {
    if (!told_) log_->warn(std::string(error.what()) + ". The run goes on; the lines wait");
    told_ = true;
  }
}

void LineFile::write_waiting() {
  while (!waiting_.empty()) {
    append_line(path_, waiting_.front());
    waiting_.pop_front();
  }
  told_ = false;
}

void LineFile::sync() {
  if (path_.empty()) return;
  write_waiting();
  if (std::filesystem::exists(path_)) sync_file(path_);
}

void LineFile::keep_lines(
    const std::function<bool(std::uint64_t number, const std::string& line)>& keep) {
  if (path_.empty() || !std::filesystem::exists(path_)) return;
  const std::string text = read_text(path_);
  std::string kept;
  std::uint64_t number = 0;
  std::size_t start = 0;
  for (std::size_t stop; (stop = text.find('\n', start)) != std::string::npos; start = stop + 1) {
    const std::string line = text.substr(start, stop - start);
    if (keep(number++, line)) kept += line + '\n';
  }
  if (kept != text) write_file(path_, kept);
}

}  // namespace gp
