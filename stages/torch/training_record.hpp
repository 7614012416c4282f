#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "stages/torch/gan_trainer.hpp"

namespace gp {

/// Means over the steps since the last reset.
class StepMeans {
 public:
  void add(const GanStep& step, int images);
  void reset() { *this = {}; }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t images() const { return images_; }
  double loss_d() const { return mean(loss_d_); }
  double loss_g() const { return mean(loss_g_); }
  double accuracy_real() const { return mean(accuracy_real_); }
  double accuracy_fake() const { return mean(accuracy_fake_); }

 private:
  double mean(double sum) const { return steps_ == 0 ? 0 : sum / static_cast<double>(steps_); }

  std::uint64_t steps_ = 0;
  std::uint64_t images_ = 0;
  double loss_d_ = 0, loss_g_ = 0, accuracy_real_ = 0, accuracy_fake_ = 0;
};

/// The written record of one training: metrics.jsonl, rejects.jsonl and, at the end, plots/loss.png
/// and plots/acc.png. With an empty run directory it writes nothing.
class TrainingRecord {
 public:
  explicit TrainingRecord(std::filesystem::path directory) : directory_(std::move(directory)) {}

  struct Line {
    std::uint64_t step = 0;   ///< steps done
    std::uint32_t epoch = 0;  ///< counted from 1
    std::uint64_t images = 0;
    StepMeans means;  ///< over the steps since the line before
    double images_per_second = 0;
    double waited = 0;  ///< share of the time that the trainer waited for data
  };
  void add(const Line& line);
  void add_rejects(const std::vector<Reject>& rejects);
  /// The curves of all lines so far. Where there are many, each point is a mean of neighbours.
  void write_plots() const;

 private:
  std::filesystem::path directory_;
  std::vector<double> steps_, loss_d_, loss_g_, accuracy_real_, accuracy_fake_;
};

/// At most `points` means of equal runs of neighbouring values.
std::vector<double> thin(const std::vector<double>& values, std::size_t points);

}  // namespace gp
