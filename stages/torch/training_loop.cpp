#include "stages/torch/training_loop.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/common/png.hpp"
#include "stages/torch/clock.hpp"
#include "stages/torch/format_text.hpp"
#include "stages/torch/gan_snapshot.hpp"

namespace gp {
namespace {

/// How often a step that is not finite is left out one after the other, and how often the same
/// checkpoint is gone back to, before the run stops.
constexpr int kMostSkips = 10;
constexpr int kMostRollbacks = 3;
/// Of the grids of classes; more are no picture to look at.
constexpr int kMostClassRows = 100;

std::string duration_text(double seconds) {
  const auto s = static_cast<long>(std::lround(std::max(seconds, 0.0)));
  if (s < 60) return format("%lds", s);
  if (s < 3600) return format("%ldm%02lds", s / 60, s % 60);
  return format("%ldh%02ldm", s / 3600, s % 3600 / 60);
}

/// Metrics of which a larger value is better; of all others a smaller one is.
const std::set<std::string> kLargerIsBetter{"precision", "recall", "inception_score"};

/// The values of a metric in evaluation.jsonl, by step.
std::map<std::uint64_t, double> read_scores(const std::filesystem::path& directory,
                                            const std::string& metric) {
  std::map<std::uint64_t, double> scores;
  std::ifstream file(directory / "evaluation.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("step") || !record.contains("metrics")) continue;
    const auto& metrics = record["metrics"];
    if (!metrics.contains(metric) || !metrics[metric].is_number()) continue;
    scores[record["step"].get<std::uint64_t>()] = metrics[metric].get<double>();
  }
  return scores;
}

BalanceSettings balance_settings(const std::string& stage, const Params& params) {
  BalanceSettings settings;
  settings.stage = stage;
  settings.learning_rate = params.real("learning_rate");
  settings.learning_rate_d =
      params.has("learning_rate_d") ? params.real("learning_rate_d") : settings.learning_rate;
  settings.beta1 = params.real("beta1");
  settings.warm_up = static_cast<std::uint64_t>(params.integer("warm_up"));
  settings.dropout = params.real("dropout");
  settings.d_steps = static_cast<int>(params.integer("d_steps"));
  settings.label_smoothing = params.real("label_smoothing");
  settings.channels = static_cast<int>(params.integer("channels"));
  settings.channels_d =
      params.has("channels_d") ? static_cast<int>(params.integer("channels_d")) : settings.channels;
  if (!params.has("loss")) return settings;  // train.dcgan has no choice
  settings.loss = params.text("loss");
  settings.norm_d = params.text("norm_d");
  settings.norm_g = params.text("norm_g");
  settings.r1 = params.real("r1");
  settings.r2 = params.real("r2");
  settings.penalty_every = static_cast<int>(params.integer("penalty_every"));
  settings.colour = params.flag("augment_colour");
  settings.translation = params.flag("augment_translation");
  settings.cutout = params.flag("augment_cutout");
  settings.augment_p = params.real("augment_p");
  settings.augment_target = params.real("augment_target");
  settings.augment_speed_kimg = params.real("augment_speed_kimg");
  settings.minibatch_stddev = params.flag("minibatch_stddev");
  return settings;
}

}  // namespace

TrainingLoop::TrainingLoop(std::string stage, const Params& params, EndContext& context,
                           MakeTrainer make_trainer, bool ahead)
    : stage_(std::move(stage)),
      params_(params),
      epochs_(static_cast<std::uint32_t>(params.integer("epochs"))),
      context_(context),
      make_trainer_(std::move(make_trainer)),
      trainer_(make_trainer_()),
      feed_(context.batches, trainer_->options().device, ahead),
      ahead_(ahead),
      steps_per_epoch_(static_cast<std::uint64_t>(params.integer("steps_per_epoch"))),
      record_(context.run.directory, context.log),
      monitor_(balance_settings(stage_, params)) {}

std::uint32_t TrainingLoop::current_epoch() const {
  if (!counts_steps()) return position_.epoch + 1;
  return static_cast<std::uint32_t>((std::max<std::uint64_t>(trainer_->steps(), 1) - 1) /
                                    steps_per_epoch_) +
         1;
}

std::filesystem::path TrainingLoop::in_samples(const std::string& name) const {
  const std::filesystem::path folder = context_.run.directory / "samples";
  make_folders(folder);
  return folder / name;
}

void TrainingLoop::run() {
  started_ = line_started_ = epoch_started_ = now();
  bool finished = false;
  if (context_.resume != nullptr) {
    finished = resume() || context_.stop.stop_requested();
  } else {
    record_.resume_after(0, 0);  // a run that was killed before its first checkpoint left lines
  }
  while (!finished) {
    DeviceFeed::Item item = next_batch();
    if (!item.batch) break;
    const Batch& batch = *item.batch;
    record_.add_rejects(batch.rejects);
    const bool data_end = batch.end_of_epoch;
    if (batch.count > 0) {
      if (trainer_->steps() == 0 && writes()) {
        attempt("picture", [&] { write_reals(batch); });
      }
      train(item);
    }
    // A batch of rejects only, before the data fail, is no place to resume at: samples before it
    // wait for their batch.
    if (batch.count > 0 || data_end) {
      position_ = {batch.epoch, batch.next, batch.counts, trainer_->images()};
      rejects_ = record_.rejects();
    }
    const bool epoch_ends =
        counts_steps() ? batch.count > 0 && trainer_->steps() % steps_per_epoch_ == 0 : data_end;
    if (data_end && batch.counts.batched == 0 && trainer_->steps() == data_step_) {
      refuse_empty_epoch(batch.epoch + 1);
    }
    if (data_end) data_step_ = trainer_->steps();
    item = {};  // its places are the pipeline's again while this thread writes or evaluates

    report(epoch_ends);
    if (data_end) position_ = {position_.epoch + 1, 0, {}, trainer_->images()};
    if (epoch_ends) {
      epochs_done_ = counts_steps()
                         ? static_cast<std::uint32_t>(trainer_->steps() / steps_per_epoch_)
                         : position_.epoch;
    }
    if (context_.stop.stop_requested()) break;
    if (epoch_ends || limit_reached()) finished = end_epoch();
    if (context_.stop.stop_requested()) break;
  }
  settle();
  if (trainer_->steps() > 0) {
    save_checkpoint();
    if (finished && !findings_.empty()) record_.add_findings(trainer_->steps(), findings_);
    record_.sync();
    record_.write_plots();
  }
  if (bad_steps_ > 0) {
    context_.log.warn(format("%llu steps were not finite: see `on_nan` and the warnings above",
                             static_cast<unsigned long long>(bad_steps_)));
  }
  if (context_.stop.stop_requested()) {
    context_.log.info(format("stopped after step %llu; state saved",
                             static_cast<unsigned long long>(trainer_->steps())));
  }
}

/// Brings the state back. Returns whether there is nothing left to train.
bool TrainingLoop::resume() {
  const auto& saved = dynamic_cast<const SavedGan&>(*context_.resume);
  const CheckpointInfo& info = saved.checkpoint.info;
  trainer_->load_state(saved.checkpoint);
  trainer_->set_progress(info.step, info.position.images);
  position_ = info.position;
  epochs_done_ =
      counts_steps() ? static_cast<std::uint32_t>(info.step / steps_per_epoch_) : position_.epoch;
  saved_step_ = first_step_ = data_step_ = info.step;
  metrics_step_ = info.progress.metrics_step;
  rejects_ = info.progress.rejects;
  line_ = info.progress.line;
  epoch_means_ = info.progress.epoch;
  bad_steps_ = info.progress.bad_steps;
  bad_in_a_row_ = info.progress.bad_in_a_row;
  if (!info.progress.balance.empty()) {
    monitor_.read_json(nlohmann::ordered_json::parse(info.progress.balance));
  }
  findings_ = info.progress.findings;
  record_.resume_after(metrics_step_, rejects_);
  context_.log.info(format("resuming after step %llu, at sample %llu of epoch %u, from ",
                           static_cast<unsigned long long>(info.step),
                           static_cast<unsigned long long>(position_.next), position_.epoch + 1) +
                    saved.file.string());
  // What follows an epoch, or the last step, may have been interrupted; most of it is done again.
  const bool between_epochs =
      epochs_done_ > 0 &&
      (counts_steps() ? info.step % steps_per_epoch_ == 0 : position_.next == 0);
  if (!between_epochs && !limit_reached()) return false;
  const bool finished = end_epoch();
  if (finished) {
    context_.log.info(
        format("the training is finished: step %llu, epoch %u of %u; to go on, raise ",
               static_cast<unsigned long long>(trainer_->steps()), epochs_done_, epochs_) +
        (limit_reached() ? "--max-steps" : "its epochs: --set stages." + stage_ + ".epochs=N"));
  }
  return finished;
}

DeviceFeed::Item TrainingLoop::next_batch() {
  DeviceFeed::Item item;
  try {
    item = feed_.next();
  } catch (...) {
    // The data have failed, not the training: what was learned so far is kept.
    if (trainer_->steps() > 0) try_to_save();
    throw;
  }
  // Here it is known whether the step before was the last one of its epoch: then what was measured
  // over the epoch comes first.
  const auto every = static_cast<std::uint64_t>(params_.integer("save_every"));
  const bool epoch_ends = item.batch != nullptr && item.batch->end_of_epoch && !counts_steps();
  // A state that was just brought back is in a checkpoint already, or not yet worth one.
  if (trainer_->steps() > 0 && trainer_->steps() % every == 0 && !epoch_ends && !last_was_bad_) {
    try_to_save();
  }
  return item;
}

void TrainingLoop::train(const DeviceFeed::Item& item) {
  const Batch& batch = *item.batch;
  if (classes_of(trainer_->model()) > 0) {
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      if (batch.labels[i] >= 0 && batch.labels[i] < classes_of(trainer_->model())) continue;
      if (trainer_->steps() > 0) try_to_save();
      throw DataError(stage_ + ": '" + batch.keys[i] + "' has label " +
                      std::to_string(batch.labels[i]) +
                      ", and conditional: true needs one from 0 to " +
                      std::to_string(classes_of(trainer_->model()) - 1) +
                      " of every image; leave it out of the source, or set conditional: false");
    }
  }
  // The trainer copies the pixels before it returns; the batch keeps them alive until then.
  const at::Tensor values = trainer_->start_step(item.pixels, item.labels);
  pending_.push_back({values, trainer_->steps(), batch.count, batch.keys});
  feed_.fetch();
  // What follows a bad step depends on it, but for a run that it stops.
  if (!ahead_ || params_.text("on_nan") != "stop") settle();
}

/// Reads what the steps measured since the last call: one wait for the device.
void TrainingLoop::settle() {
  if (pending_.empty()) return;
  std::vector<at::Tensor> values;
  for (const PendingStep& pending : pending_) values.push_back(pending.values);
  const at::Tensor read = at::stack(values).cpu();
  const std::vector<PendingStep> settled = std::exchange(pending_, {});
  for (std::size_t i = 0; i < settled.size(); ++i) {
    settle(trainer_->measured(read[static_cast<std::int64_t>(i)]), settled[i]);
  }
}

void TrainingLoop::settle(const GanStep& step, const PendingStep& pending) {
  last_was_bad_ = !step.finite();
  if (last_was_bad_) {
    recover(step, pending);
    return;
  }
  if (skips()) bad_in_a_row_ = 0;
  line_.add(step, pending.images);
  epoch_means_.add(step, pending.images);
  watch_balance(step, pending.step);
}

void TrainingLoop::watch_balance(const GanStep& step, std::uint64_t number) {
  monitor_.add(number, balance_sample(step));
  tell_findings();
}

/// What evaluations found out about held-out images since the last call.
void TrainingLoop::watch_evaluations() {
  if (!writes()) return;
  // Evaluations count logits above 0, which is no border for the other losses.
  const bool pairs =
      params_.has("loss") && params_.text("loss") != "bce" && params_.text("loss") != "hinge";
  const char* const train = pairs ? "pair_accuracy" : "real_train";
  const char* const held_out = pairs ? "pair_accuracy_held_out" : "real_held_out";
  std::ifstream file(context_.run.directory / "evaluation.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("step") || !record.contains("accuracy")) continue;
    const auto& accuracy = record["accuracy"];
    if (!accuracy.contains(train) || !accuracy.contains(held_out) || !accuracy.contains("fake")) {
      continue;
    }
    monitor_.add(HeldOutSample{accuracy[train].get<double>(), accuracy[held_out].get<double>(),
                               accuracy["fake"].get<double>(), record["step"].get<std::uint64_t>(),
                               pairs});
  }
  tell_findings();
}

void TrainingLoop::tell_findings() {
  for (const BalanceFinding& finding : monitor_.take_findings()) {
    if (finding.over) {
      context_.log.info(stage_ + ": " + finding.text());
    } else {
      context_.log.warn(stage_ + ": " + finding.text());
    }
    findings_.push_back(finding.json().dump());
  }
}

/// What `on_nan` says, after a step whose losses or gradients are not finite. The step's number and
/// the batch are used up in any case, so whatever follows is again a function of the step.
void TrainingLoop::recover(const GanStep& step, const PendingStep& pending) {
  ++bad_steps_;
  ++bad_in_a_row_;
  std::string keys;
  for (const std::string& key : pending.keys) keys += (keys.empty() ? "" : ", ") + key;
  const std::string what =
      stage_ + ": a loss or gradient is not finite at step " + std::to_string(pending.step) +
      format(
          " (losses: discriminator %g on reals and %g on fakes, generator %g; norms of their "
          "gradients: %g, %g, %g)",
          double{step.loss_d_real}, double{step.loss_d_fake}, double{step.loss_g},
          double{step.gradient_norm_d_real}, double{step.gradient_norm_d_fake},
          double{step.gradient_norm_g});
  const std::string of_batch = ". Its batch: " + keys;
  const std::string& policy = params_.text("on_nan");
  constexpr char kAdvice[] = "; try a smaller learning_rate, or precision fp32";
  if (policy == "stop") {
    throw RunError(what + kAdvice +
                   ", or on_nan: skip or rollback. The checkpoints saved before "
                   "are good" +
                   of_batch);
  }
  if (bad_in_a_row_ > (skips() ? kMostSkips : kMostRollbacks)) {
    throw RunError(what + ", and on_nan: " + policy + " did not help " +
                   std::to_string(bad_in_a_row_ - 1) + " times in a row" + kAdvice +
                   ". The checkpoints saved before are good" + of_batch);
  }
  std::string done = "the step is left out";
  if (skips()) {
    trainer_->undo();
  } else {
    done = roll_back();
  }
  context_.log.warn(
      what + ": " + done +
      format(" (%llu such steps so far)", static_cast<unsigned long long>(bad_steps_)) + of_batch);
}

/// Brings back the newest checkpoint's weights and optimisers, or those of the beginning, but
/// neither the step number nor the position in the data. Says which.
std::string TrainingLoop::roll_back() {
  std::optional<Checkpoint> checkpoint;
  if (writes()) {
    checkpoint = CheckpointFolder(context_.run.directory / kCheckpointFolder)
                     .load_newest_whole(context_.log);
  }
  if (checkpoint) {
    trainer_->load_state(*checkpoint);
    return "went back to the state of step " + std::to_string(checkpoint->info.step);
  }
  Checkpoint beginning;
  beginning.tensors = make_trainer_()->state();
  trainer_->load_state(beginning);
  return "went back to the state of the beginning, since no checkpoint was saved yet";
}

void TrainingLoop::report(bool at_once) {
  const auto every = static_cast<std::uint64_t>(params_.integer("log_every"));
  if (line_.steps() + pending_.size() < every && !at_once) return;
  settle();
  if (line_.steps() == 0) return;
  const double seconds = std::max(now() - line_started_, 1e-9);
  const double waited = context_.batches.seconds_waited();
  const double rate = static_cast<double>(line_.images()) / seconds;
  const double share = std::clamp((waited - line_waited_) / seconds, 0.0, 1.0);
  rate_ = rate_ == 0 ? rate : 0.9 * rate_ + 0.1 * rate;
  waited_share_ = 0.9 * waited_share_ + 0.1 * share;
  metrics_step_ = trainer_->steps();
  TrainingRecord::Line line{metrics_step_, current_epoch(), trainer_->images(), line_, rate, share};
  if (counts_steps()) line.data_epoch = position_.epoch + 1;
  line.findings = std::exchange(findings_, {});
  record_.add(line);
  context_.log.progress(format(
      "epoch %u/%u  step %llu  loss D %.3f G %.3f  D accuracy: reals %.0f %%, fakes %.0f %%"
      "  %.1f images/s  %.0f %% waiting for data  %s left",
      current_epoch(), epochs_, static_cast<unsigned long long>(trainer_->steps()), line_.loss_d(),
      line_.loss_g(), 100 * line_.accuracy_real(), 100 * line_.accuracy_fake(), rate_,
      100 * waited_share_, duration_text(seconds_left()).c_str()));
  line_.reset();
  line_started_ = now();
  line_waited_ = waited;
}

double TrainingLoop::seconds_left() const {
  double steps = static_cast<double>(trainer_->options().schedule.steps);
  if (context_.max_steps > 0) {
    const auto limit = static_cast<double>(context_.max_steps);
    steps = steps > 0 ? std::min(steps, limit) : limit;
  }
  const auto done = static_cast<double>(trainer_->steps());
  const double here = done - static_cast<double>(first_step_);
  return here == 0 ? 0 : (now() - started_) / here * std::max(steps - done, 0.0);
}

/// `number`: of the data's epoch.
void TrainingLoop::refuse_empty_epoch(std::uint32_t number) const {
  throw RunError(stage_ + ": epoch " + std::to_string(number) + " gave no batch: the source has " +
                 std::to_string(context_.stream.source_size) + " samples and a batch takes " +
                 std::to_string(context_.stream.batch_size) +
                 "; make `size` of batch smaller, or set `last: keep`, and see rejects.jsonl");
}

/// What follows an epoch, or the last step: pictures, a checkpoint, evaluation. Returns whether
/// the training is at its end. May be done again after it was interrupted.
bool TrainingLoop::end_epoch() {
  const bool last = limit_reached() || epochs_done_ >= epochs_;
  // Counted as begun where max_steps ends it early.
  const std::uint32_t number =
      counts_steps() ? current_epoch() : (position_.next > 0 ? position_.epoch + 1 : epochs_done_);
  const bool again = trainer_->steps() == first_step_ && first_step_ > 0;  // after it was resumed
  if (!again) tell_epoch(number);
  const auto due = [&](const char* name, std::uint64_t count) {
    return last || count % static_cast<std::uint64_t>(params_.integer(name)) == 0;
  };
  if (due("save_every", trainer_->steps())) try_to_save();
  // The line of steps that max_steps leaves over comes after the state was saved: a run that goes
  // on from there writes it with the steps that it is to cover.
  report(true);
  if (writes() && due("sample_every", number)) {
    attempt("picture", [&] { write_fakes(number); });
  }
  if (context_.epoch_done) {
    context_.epoch_done(number, last, [this]() -> std::unique_ptr<Snapshot> {
      if (params_.has("keep_best")) {
        try_to_save();
        evaluated_.insert(trainer_->steps());
      }
      return std::make_unique<GanSnapshot>(*trainer_, epochs_done_, context_.stream.class_names);
    });
    watch_evaluations();
  }
  if (writes() && evaluated_.count(trainer_->steps()) > 0) {
    attempt("choice of the best checkpoint", [this] {
      CheckpointFolder(context_.run.directory / kCheckpointFolder)
          .prune(static_cast<std::size_t>(params_.integer("keep_last")), checkpoints_to_keep());
    });
  }
  if (context_.stop.stop_requested()) return false;  // the state to save is that before the rest
  epoch_means_.reset();
  epoch_started_ = line_started_ = now();
  line_waited_ = context_.batches.seconds_waited();
  return last;
}

void TrainingLoop::tell_epoch(std::uint32_t number) const {
  context_.log.info(format(
      "epoch %u/%u: loss D %.4f G %.4f, D accuracy: reals %.1f %%, fakes %.1f %%, %llu steps in %s",
      number, epochs_, epoch_means_.loss_d(), epoch_means_.loss_g(),
      100 * epoch_means_.accuracy_real(), 100 * epoch_means_.accuracy_fake(),
      static_cast<unsigned long long>(epoch_means_.steps()),
      duration_text(now() - epoch_started_).c_str()));
}

void TrainingLoop::write_reals(const Batch& batch) const {
  const auto columns = static_cast<int>(params_.integer("columns"));
  const int count = std::min(batch.count, static_cast<int>(params_.integer("rows")) * columns);
  Image grid = make_grid(batch.pixels.get(), batch.shape, count, columns);
  write_png(in_samples("reals.png"), grid.view());
}

void TrainingLoop::write_fakes(std::uint32_t number) {
  const auto columns = static_cast<int>(params_.integer("columns"));
  const int count = static_cast<int>(params_.integer("rows")) * columns;
  GanSnapshot snapshot(*trainer_, epochs_done_, context_.stream.class_names);
  const std::vector<std::uint8_t> images = snapshot.generate(context_.run.seed, 0, count);
  Image grid = make_grid(images.data(), snapshot.shape(), count, columns);
  write_png(in_samples(format("fakes_%06u.png", number)), grid.view());
  if (classes_of(trainer_->model()) == 0) return;
  // A class a row, each of the same latents.
  std::vector<std::uint8_t> by_class;
  const int rows = std::min(classes_of(trainer_->model()), kMostClassRows);
  for (int label = 0; label < rows; ++label) {
    const std::vector<std::uint8_t> row =
        snapshot.generate_class(context_.run.seed, 0, columns, label);
    by_class.insert(by_class.end(), row.begin(), row.end());
  }
  grid = make_grid(by_class.data(), snapshot.shape(), rows * columns, columns);
  write_png(in_samples(format("classes_%06u.png", number)), grid.view());
}

void TrainingLoop::save_checkpoint() {
  settle();  // a state with a step that is not finite is not saved
  if (!writes() || saved_step_ == trainer_->steps()) return;
  record_.sync();  // it holds all that the checkpoint says was written
  Checkpoint checkpoint;
  checkpoint.tensors = trainer_->state();
  CheckpointInfo& info = checkpoint.info;
  info.model = trainer_->model();
  info.growth = trainer_->growth();
  info.step = trainer_->steps();
  info.position = position_;
  info.seed = context_.run.seed;
  info.average = trainer_->has_average();
  info.threads = context_.run.threads;
  info.config_yaml = context_.run.config_yaml;
  info.data_digest = context_.stream.data_digest;
  info.source_digest = context_.stream.source_digest;
  if (classes_of(trainer_->model()) > 0) info.class_names = context_.stream.class_names;
  const int in_a_row = skips() || last_was_bad_ ? bad_in_a_row_ : 0;
  info.epochs_done = epochs_done_;
  info.progress = {metrics_step_,          rejects_, line_, epoch_means_, bad_steps_, in_a_row,
                   monitor_.json().dump(), findings_};
  CheckpointFolder(context_.run.directory / kCheckpointFolder)
      .save(checkpoint, static_cast<std::size_t>(params_.integer("keep_last")),
            checkpoints_to_keep());
  saved_step_ = trainer_->steps();
  bad_in_a_row_ = in_a_row;  // there is a newer state to go back to
}

/// Beside the newest ones: the best that was evaluated, and those that wait for their evaluation.
std::set<std::uint64_t> TrainingLoop::checkpoints_to_keep() const {
  if (!params_.has("keep_best")) return {};
  const std::string& metric = params_.text("keep_best");
  const std::map<std::uint64_t, double> scores = read_scores(context_.run.directory, metric);
  std::set<std::uint64_t> keep;
  // An evaluator that runs beside training passes over those that it has no time for.
  const std::uint64_t newest = scores.empty() ? 0 : scores.rbegin()->first;
  keep.insert(evaluated_.upper_bound(newest), evaluated_.end());
  const double sign = kLargerIsBetter.count(metric) > 0 ? -1 : 1;
  const auto best = std::min_element(
      scores.begin(), scores.end(),
      [&](const auto& a, const auto& b) { return sign * a.second < sign * b.second; });
  if (best != scores.end()) keep.insert(best->first);
  return keep;
}

/// Writes something that the training can do without for now: a disk that is full may have room
/// again before the next one is due. At the end, a checkpoint that cannot be written is an error.
void TrainingLoop::attempt(const std::string& what, const std::function<void()>& write) {
  try {
    write();
  } catch (const RunError& error) {
    context_.log.warn("no " + what + " of step " + std::to_string(trainer_->steps()) + ": " +
                      error.what() + ". The training goes on; earlier ones are whole");
  }
}

void TrainingLoop::try_to_save() {
  settle();  // what this throws is no reason to go on
  attempt("checkpoint", [this] { save_checkpoint(); });
}

}  // namespace gp
