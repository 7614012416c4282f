#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/line_file.hpp"
#include "stages/torch/step_means.hpp"

namespace gp {

/// The written record of one training: metrics.jsonl, rejects.jsonl and, at the end, plots/loss.png
/// and plots/acc.png. With an empty run directory it writes nothing.
class TrainingRecord {
 public:
  TrainingRecord(const std::filesystem::path& directory, Log& log);

  /// Goes on with the files of a run: lines of metrics.jsonl after `step` and those of
  /// rejects.jsonl after the first `rejects` are removed; the rest belongs to the curves.
  void resume_after(std::uint64_t step, std::uint64_t rejects);

  struct Line {
    std::uint64_t step = 0;   ///< steps done
    std::uint32_t epoch = 0;  ///< counted from 1
    std::uint64_t images = 0;
    StepMeans means;  ///< over the steps since the line before
    double images_per_second = 0;
    double waited = 0;                       ///< share of the time that the trainer waited for data
    std::uint32_t data_epoch = 0;            ///< from 1, where epochs are counted in steps; else 0
    std::vector<std::string> findings = {};  ///< of the BalanceMonitor, as JSON
  };
  void add(const Line& line);
  /// A line of findings alone: what came out after the last step's line. Not kept by a run that
  /// goes on, which comes to them again.
  void add_findings(std::uint64_t step, const std::vector<std::string>& findings);
  void add_rejects(const std::vector<Reject>& rejects);
  /// Lines of rejects.jsonl so far.
  std::uint64_t rejects() const { return rejected_; }
  /// All lines are on the disk afterwards. Throws RunError.
  void sync();
  /// The curves of all lines so far. Where there are many, each point is a mean of neighbours.
  void write_plots() const;

 private:
  void add_point(double step, double loss_d, double loss_g, double accuracy_real,
                 double accuracy_fake);

  std::filesystem::path directory_;
  LineFile metrics_file_;
  LineFile rejects_file_;
  std::uint64_t rejected_ = 0;
  std::vector<double> steps_, loss_d_, loss_g_, accuracy_real_, accuracy_fake_;
};

/// At most `points` means of equal runs of neighbouring values.
std::vector<double> thin(const std::vector<double>& values, std::size_t points);

}  // namespace gp
