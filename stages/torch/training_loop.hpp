#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"
#include "stages/torch/adversarial_trainer.hpp"
#include "stages/torch/balance_monitor.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/device_feed.hpp"
#include "stages/torch/training_record.hpp"

namespace gp {

/// What load_training hands to the run that goes on from it.
struct SavedGan : SavedTraining {
  Checkpoint checkpoint;
};

/// One training: the loop, its clock, what is written when, and what happens where it goes wrong.
/// Metrics, grids, checkpoints and plots go into the run directory; without one nothing is written.
class TrainingLoop {
 public:
  using MakeTrainer = std::function<std::unique_ptr<AdversarialTrainer>()>;
  /// `stage`: its name, for messages. `make_trainer` makes it in the state of its beginning. All
  /// are kept by reference.
  /// `ahead`: fetches the next batch, and reads what steps measured late, while the device still
  /// computes; for those that do so beside this thread.
  TrainingLoop(std::string stage, const Params& params, EndContext& context,
               MakeTrainer make_trainer, bool ahead);

  const AdversarialTrainer& trainer() const { return *trainer_; }
  void run();

 private:
  bool writes() const { return !context_.run.directory.empty(); }
  bool skips() const { return params_.text("on_nan") == "skip"; }
  bool limit_reached() const {
    return context_.max_steps > 0 && trainer_->steps() >= context_.max_steps;
  }
  /// A step that the device may not have finished.
  struct PendingStep {
    at::Tensor values;  ///< see AdversarialTrainer::start_step()
    std::uint64_t step = 0;
    int images = 0;
    std::vector<std::string> keys;
  };
  bool resume();
  std::filesystem::path in_samples(const std::string& name) const;
  /// Whether training counts its epochs in steps, and how many: `steps_per_epoch`.
  bool counts_steps() const { return steps_per_epoch_ > 0; }
  /// The epoch of the last step, from 1.
  std::uint32_t current_epoch() const;
  DeviceFeed::Item next_batch();
  void train(const DeviceFeed::Item& item);
  void settle();
  void settle(const GanStep& step, const PendingStep& pending);
  void recover(const GanStep& step, const PendingStep& pending);
  void watch_balance(const GanStep& step, std::uint64_t number);
  void watch_evaluations();
  void tell_findings();
  std::string roll_back();
  void report(bool epoch_ends);
  bool end_epoch();
  void tell_epoch(std::uint32_t number) const;
  void write_reals(const Batch& batch) const;
  void write_fakes(std::uint32_t number);
  void save_checkpoint();
  void attempt(const std::string& what, const std::function<void()>& write);
  void try_to_save();
  std::set<std::uint64_t> checkpoints_to_keep() const;
  [[noreturn]] void refuse_empty_epoch(std::uint32_t number) const;
  double seconds_left() const;

  const std::string stage_;
  const Params& params_;
  const std::uint32_t epochs_;
  EndContext& context_;
  MakeTrainer make_trainer_;
  std::unique_ptr<AdversarialTrainer> trainer_;
  DeviceFeed feed_;
  const bool ahead_;
  const std::uint64_t steps_per_epoch_;  ///< 0: an epoch is the data's
  TrainingRecord record_;
  BalanceMonitor monitor_;

  StreamPosition position_;        ///< behind the batch trained last
  std::uint32_t epochs_done_ = 0;  ///< whole ones
  std::uint64_t rejects_ = 0;      ///< lines of rejects.jsonl up to position_
  std::uint64_t saved_step_ = 0;   ///< what is the newest checkpoint's; nothing is saved of step 0

  std::set<std::uint64_t> evaluated_;  ///< steps saved for keep_best

  std::vector<PendingStep> pending_;  ///< trained, not yet measured
  StepMeans line_;                    ///< since the last line of metrics.jsonl
  std::uint64_t metrics_step_ = 0;    ///< that line's
  StepMeans epoch_means_;
  std::vector<std::string> findings_;  ///< JSON, for the next line of metrics.jsonl
  std::uint64_t bad_steps_ = 0;        ///< whose losses or gradients were not finite
  int bad_in_a_row_ = 0;  ///< skipped one after the other, or rolled back to one checkpoint
  bool last_was_bad_ = false;
  std::uint64_t first_step_ = 0;  ///< this process's
  std::uint64_t data_step_ = 0;   ///< steps done when the last epoch of the data ended
  double started_ = 0;
  double line_started_ = 0;
  double line_waited_ = 0;
  double epoch_started_ = 0;
  double rate_ = 0;  ///< images a second, smoothed
  double waited_share_ = 0;
};

}  // namespace gp
