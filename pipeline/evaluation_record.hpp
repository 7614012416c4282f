#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "pipeline/line_file.hpp"

namespace gp {

/// evaluation.jsonl of a run: one line for each snapshot that an evaluator has measured, its record
/// with the evaluator's address as "stage". Thread-safe.
class EvaluationRecord {
 public:
  /// With an empty directory it writes nothing.
  EvaluationRecord(const std::filesystem::path& directory, Log& log);

  /// For a run that is resumed after `step`: later lines are removed, earlier ones are known.
  void resume_after(std::uint64_t step);
  /// Whether this evaluator's line of that step is there.
  bool has(const std::string& stage, std::uint64_t step) const;
  /// `record`: a JSON object with "step".
  void add(const std::string& stage, const std::string& record);
  /// Writes what a full disk refused before. Throws RunError.
  void sync();

 private:
  mutable std::mutex mutex_;
  LineFile file_;
  std::set<std::pair<std::string, std::uint64_t>> done_;
};

}  // namespace gp
