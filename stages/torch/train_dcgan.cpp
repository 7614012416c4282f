#include "stages/torch/train_dcgan.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/common/png.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/compute_device.hpp"
#include "stages/torch/gan_snapshot.hpp"
#include "stages/torch/gan_trainer.hpp"
#include "stages/torch/op_profile.hpp"
#include "stages/torch/stages.hpp"
#include "stages/torch/training_record.hpp"

namespace gp {
namespace {

constexpr char kName[] = "train.dcgan";

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[512];
  std::snprintf(text, sizeof(text), pattern, values...);
  return text;
}

std::string duration_text(double seconds) {
  const auto s = static_cast<long>(std::lround(std::max(seconds, 0.0)));
  if (s < 60) return format("%lds", s);
  if (s < 3600) return format("%ldm%02lds", s / 60, s % 60);
  return format("%ldh%02ldm", s / 3600, s % 3600 / 60);
}

DcganConfig model_config(const Params& params, const ImageShape& shape) {
  if (shape.height != shape.width || shape.height < DcganConfig::kMinResolution ||
      shape.height > DcganConfig::kMaxResolution ||
      !std::has_single_bit(static_cast<unsigned>(shape.height))) {
    throw ConfigError(std::string(kName) + ": the images are " + to_string(shape) +
                      "; expected squares of a power of two from 16 to 512 pixels: set `size` of "
                      "image.resize");
  }
  DcganConfig config;
  config.resolution = shape.height;
  config.latent = static_cast<int>(params.integer("latent"));
  config.channels = static_cast<int>(params.integer("channels"));
  config.channels_d =
      params.has("channels_d") ? static_cast<int>(params.integer("channels_d")) : config.channels;
  config.max_channels = static_cast<int>(params.integer("max_channels"));
  config.dropout = params.real("dropout");
  config.exact = params.flag("exact");
  return config;
}

GanTrainerOptions trainer_options(const Params& params, const RunInfo& run, at::Device device,
                                  bool bf16) {
  GanTrainerOptions options;
  options.seed = run.seed;
  options.learning_rate = params.real("learning_rate");
  options.learning_rate_d =
      params.has("learning_rate_d") ? params.real("learning_rate_d") : options.learning_rate;
  options.beta1 = params.real("beta1");
  options.beta2 = params.real("beta2");
  options.label_smoothing = params.real("label_smoothing");
  options.ema = params.real("ema");
  options.device = device;
  options.bf16 = bf16;
  return options;
}

std::int64_t parameter_count(const torch::nn::Module& network) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : network.parameters()) count += parameter.numel();
  return count;
}

std::string describe(const GanTrainer& trainer) {
  return format(
      "%s: %dx%d images on %s in %s, %d threads; generator %.2f M parameters, "
      "discriminator %.2f M",
      kName, trainer.config().resolution, trainer.config().resolution,
      trainer.options().device.str().c_str(), trainer.options().bf16 ? "bf16" : "fp32",
      at::get_num_threads(), static_cast<double>(parameter_count(*trainer.generator())) / 1e6,
      static_cast<double>(parameter_count(*trainer.discriminator())) / 1e6);
}

/// One call of TrainDcgan::run: the loop, its clock, and what is written when.
class Training {
 public:
  Training(const Params& params, std::uint32_t epochs, EndContext& context, at::Device device,
           bool bf16)
      : params_(params),
        epochs_(epochs),
        context_(context),
        trainer_(model_config(params, context.stream.shape),
                 trainer_options(params, context.run, device, bf16)),
        record_(context.run.directory) {}

  const GanTrainer& trainer() const { return trainer_; }
  void run();

 private:
  bool writes() const { return !context_.run.directory.empty(); }
  std::filesystem::path in_samples(const std::string& name) const;
  std::shared_ptr<const Batch> next_batch();
  void train(const Batch& batch);
  void report(bool epoch_ends);
  void finish_epoch(bool last);
  void write_reals(const Batch& batch) const;
  void write_fakes(std::uint32_t number);
  void save_checkpoint();
  double seconds_left() const;

  const Params& params_;
  const std::uint32_t epochs_;
  EndContext& context_;
  GanTrainer trainer_;
  TrainingRecord record_;

  /// Where the data stands: the batch trained last.
  std::uint32_t epoch_ = 0;        ///< counted from 0
  std::uint64_t next_ = 0;         ///< position in its order
  std::uint32_t epochs_done_ = 0;  ///< whole ones
  std::uint64_t saved_step_ = ~std::uint64_t{0};

  StepMeans line_;  ///< since the last line of metrics.jsonl
  StepMeans epoch_means_;
  double started_ = now();
  double line_started_ = now();
  double line_waited_ = 0;
  double epoch_started_ = now();
  double rate_ = 0;  ///< images a second, smoothed
  double waited_share_ = 0;
};

std::filesystem::path Training::in_samples(const std::string& name) const {
  const std::filesystem::path folder = context_.run.directory / "samples";
  make_folders(folder);
  return folder / name;
}

void Training::run() {
  started_ = line_started_ = epoch_started_ = now();
  bool finished = false;
  while (!finished) {
    std::shared_ptr<const Batch> batch = next_batch();
    if (!batch) break;
    record_.add_rejects(batch->rejects);
    if (batch->count > 0) {
      if (trainer_.steps() == 0 && writes()) write_reals(*batch);
      train(*batch);
    }
    epoch_ = batch->epoch;
    next_ = batch->next;
    const bool epoch_ends = batch->end_of_epoch;
    batch.reset();  // its places are the pipeline's again while this thread writes or evaluates

    const bool limit = context_.max_steps > 0 && trainer_.steps() >= context_.max_steps;
    report(epoch_ends || limit);
    if (epoch_ends) {
      epochs_done_ = epoch_ + 1;
      ++epoch_;
      next_ = 0;
    }
    if (context_.stop.stop_requested()) break;
    if (epoch_ends || limit) {
      finished = limit || epochs_done_ >= epochs_;
      finish_epoch(finished);
    }
  }
  if (trainer_.steps() > 0) {
    save_checkpoint();
    record_.write_plots();
  }
  if (context_.stop.stop_requested()) {
    context_.log.info(format("stopped after step %llu; state saved",
                             static_cast<unsigned long long>(trainer_.steps())));
  }
}

std::shared_ptr<const Batch> Training::next_batch() {
  try {
    return context_.batches.next();
  } catch (...) {
    // The data have failed, not the training: what was learned so far is kept.
    if (trainer_.steps() > 0) save_checkpoint();
    throw;
  }
}

void Training::train(const Batch& batch) {
  // The trainer copies the pixels before it returns; the batch keeps them alive until then.
  const at::Tensor pixels =
      at::from_blob(const_cast<std::uint8_t*>(batch.pixels.get()),
                    {batch.count, batch.shape.height, batch.shape.width, kChannels}, at::kByte);
  const GanStep step = trainer_.step(pixels);
  if (!step.finite()) {
    throw RunError(
        std::string(kName) + ": the loss is not finite at step " +
        std::to_string(trainer_.steps()) +
        format(" (discriminator %g on reals and %g on fakes, generator %g)",
               double{step.loss_d_real}, double{step.loss_d_fake}, double{step.loss_g}) +
        "; try a smaller learning_rate, or precision fp32. The checkpoints saved before are good");
  }
  line_.add(step, batch.count);
  epoch_means_.add(step, batch.count);
}

void Training::report(bool epoch_ends) {
  const auto every = static_cast<std::uint64_t>(params_.integer("log_every"));
  if (line_.steps() == 0 || (line_.steps() < every && !epoch_ends)) return;
  const double seconds = std::max(now() - line_started_, 1e-9);
  const double waited = context_.batches.seconds_waited();
  const double rate = static_cast<double>(line_.images()) / seconds;
  const double share = std::clamp((waited - line_waited_) / seconds, 0.0, 1.0);
  rate_ = rate_ == 0 ? rate : 0.9 * rate_ + 0.1 * rate;
  waited_share_ = 0.9 * waited_share_ + 0.1 * share;
  record_.add({trainer_.steps(), epoch_ + 1, trainer_.images(), line_, rate, share});
  context_.log.progress(
      format("epoch %u/%u  step %llu  loss D %.3f G %.3f  D accuracy: reals %.0f %%, fakes %.0f %%"
             "  %.1f images/s  %.0f %% waiting for data  %s left",
             epoch_ + 1, epochs_, static_cast<unsigned long long>(trainer_.steps()), line_.loss_d(),
             line_.loss_g(), 100 * line_.accuracy_real(), 100 * line_.accuracy_fake(), rate_,
             100 * waited_share_, duration_text(seconds_left()).c_str()));
  line_.reset();
  line_started_ = now();
  line_waited_ = waited;
}

double Training::seconds_left() const {
  double steps = 0;
  if (context_.stream.batch_size > 0) {
    steps =
        std::floor(static_cast<double>(context_.stream.source_size) / context_.stream.batch_size) *
        epochs_;
  }
  if (context_.max_steps > 0) {
    const auto limit = static_cast<double>(context_.max_steps);
    steps = steps > 0 ? std::min(steps, limit) : limit;
  }
  const auto done = static_cast<double>(trainer_.steps());
  return (now() - started_) / done * std::max(steps - done, 0.0);
}

void Training::finish_epoch(bool last) {
  // Counted as begun where max_steps ends it early.
  const std::uint32_t number = next_ > 0 ? epoch_ + 1 : epochs_done_;
  if (epoch_means_.steps() == 0) {
    throw RunError(std::string(kName) + ": epoch " + std::to_string(number) +
                   " gave no batch: the source has " + std::to_string(context_.stream.source_size) +
                   " samples and a batch takes " + std::to_string(context_.stream.batch_size) +
                   "; make `size` of batch smaller, or set `last: keep`, and see rejects.jsonl");
  }
  context_.log.info(format(
      "epoch %u/%u: loss D %.4f G %.4f, D accuracy: reals %.1f %%, fakes %.1f %%, %llu steps in %s",
      number, epochs_, epoch_means_.loss_d(), epoch_means_.loss_g(),
      100 * epoch_means_.accuracy_real(), 100 * epoch_means_.accuracy_fake(),
      static_cast<unsigned long long>(epoch_means_.steps()),
      duration_text(now() - epoch_started_).c_str()));
  const auto due = [&](const char* name) {
    return last || number % static_cast<std::uint32_t>(params_.integer(name)) == 0;
  };
  if (writes() && due("sample_every")) write_fakes(number);
  if (due("checkpoint_every")) save_checkpoint();
  if (context_.epoch_done) {
    context_.epoch_done(number, last, [this]() -> std::unique_ptr<Snapshot> {
      return std::make_unique<GanSnapshot>(trainer_, epochs_done_);
    });
  }
  epoch_means_.reset();
  epoch_started_ = line_started_ = now();
  line_waited_ = context_.batches.seconds_waited();
}

void Training::write_reals(const Batch& batch) const {
  const auto columns = static_cast<int>(params_.integer("columns"));
  const int count = std::min(batch.count, static_cast<int>(params_.integer("rows")) * columns);
  Image grid = make_grid(batch.pixels.get(), batch.shape, count, columns);
  write_png(in_samples("reals.png"), grid.view());
}

void Training::write_fakes(std::uint32_t number) {
  const auto columns = static_cast<int>(params_.integer("columns"));
  const int count = static_cast<int>(params_.integer("rows")) * columns;
  GanSnapshot snapshot(trainer_, epochs_done_);
  const std::vector<std::uint8_t> images = snapshot.generate(context_.run.seed, 0, count);
  Image grid = make_grid(images.data(), snapshot.shape(), count, columns);
  write_png(in_samples(format("fakes_%06u.png", number)), grid.view());
}

void Training::save_checkpoint() {
  if (!writes() || saved_step_ == trainer_.steps()) return;
  saved_step_ = trainer_.steps();
  Checkpoint checkpoint;
  checkpoint.tensors = trainer_.state();
  checkpoint.info.model = trainer_.config();
  checkpoint.info.step = trainer_.steps();
  checkpoint.info.epoch = epoch_;
  checkpoint.info.next = next_;
  checkpoint.info.images = trainer_.images();
  checkpoint.info.seed = context_.run.seed;
  checkpoint.info.ema = trainer_.options().ema;
  checkpoint.info.config_digest = sha256_hex(context_.run.config_yaml);
  checkpoint.info.data_digest = context_.stream.data_digest;
  CheckpointFolder(context_.run.directory / "checkpoints")
      .save(checkpoint, static_cast<std::size_t>(params_.integer("keep_checkpoints")));
}

}  // namespace

TrainDcgan::TrainDcgan(Params params) : params_(std::move(params)) {}

void TrainDcgan::check(const StreamInfo& stream) const { model_config(params_, stream.shape); }

std::uint32_t TrainDcgan::epochs() const {
  return static_cast<std::uint32_t>(params_.integer("epochs"));
}

void TrainDcgan::run(EndContext& context) {
  try {
    at::set_num_threads(std::max(context.run.threads, 1));
    const at::Device device = resolve_device(context.run.device);
    const bool bf16 = resolve_bf16(context.run.precision, device);
    Training training(params_, epochs(), context, device, bf16);
    context.log.info(describe(training.trainer()));
    training.run();
  } catch (const c10::Error& error) {
    throw RunError(std::string(kName) + ": " + error.what_without_backtrace());
  }
}

double TrainDcgan::measure_rate(const RunInfo& run, const StreamInfo& stream) {
  try {
    at::set_num_threads(std::max(run.threads, 1));
    const at::Device device = resolve_device(run.device);
    GanTrainer trainer(model_config(params_, stream.shape),
                       trainer_options(params_, run, device, resolve_bf16(run.precision, device)));
    const at::Tensor pixels = at::full(
        {stream.batch_size, stream.shape.height, stream.shape.width, kChannels}, 128, at::kByte);
    trainer.step(pixels);  // the first one also makes memory and kernels
    const double start = now();
    trainer.step(pixels);
    return stream.batch_size / (now() - start);
  } catch (const c10::Error& error) {
    throw RunError(std::string(kName) + ": " + error.what_without_backtrace());
  }
}

StepProfile TrainDcgan::profile(const RunInfo& run, const StreamInfo& stream, double seconds) {
  try {
    at::set_num_threads(std::max(run.threads, 1));
    const at::Device device = resolve_device(run.device);
    GanTrainer trainer(model_config(params_, stream.shape),
                       trainer_options(params_, run, device, resolve_bf16(run.precision, device)));
    const at::Tensor pixels = at::full(
        {stream.batch_size, stream.shape.height, stream.shape.width, kChannels}, 128, at::kByte);
    const auto timed_step = [&] {
      const double start = now();
      trainer.step(pixels);
      return now() - start;
    };
    for (int i = 0; i < 3; ++i) timed_step();
    StepProfile result;
    result.description = describe(trainer);
    result.images = stream.batch_size;
    std::vector<double> times;
    for (const double start = now(); times.empty() || now() - start < seconds;) {
      times.push_back(timed_step());
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    result.seconds = times[times.size() / 2];

    constexpr int kWatched = 3;
    OpProfile profile;
    for (int i = 0; i < kWatched; ++i) timed_step();
    for (const auto& [operation, total] : profile.totals()) {
      result.parts.push_back(
          {operation, static_cast<double>(total.calls) / kWatched, total.seconds / kWatched});
    }
    std::sort(result.parts.begin(), result.parts.end(),
              [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    return result;
  } catch (const c10::Error& error) {
    throw RunError(std::string(kName) + ": " + error.what_without_backtrace());
  }
}

std::unique_ptr<Snapshot> TrainDcgan::load_snapshot(const RunInfo& run,
                                                    const std::filesystem::path& checkpoint) {
  at::set_num_threads(std::max(run.threads, 1));
  return std::make_unique<GanSnapshot>(load_checkpoint(checkpoint), resolve_device(run.device),
                                       checkpoint.string());
}

StageInfo train_dcgan_info() {
  StageInfo info;
  info.name = kName;
  info.doc = "Trains a DCGAN (Radford et al. 2016, layers as in Keras-GAN) on square RGB images";
  info.in = Kind::kBatch;
  info.out = Kind::kSnapshot;
  info.concurrency = Concurrency::kSerial;
  info.params.integer("epochs", 200, "how often the source is read through", 1, 1e6)
      .real("learning_rate", 2e-4, "Adam's step size", 1e-9, 1)
      .real("learning_rate_d", 2e-4, "the discriminator's, where it differs", 1e-9, 1)
      .maybe()
      .real("beta1", 0.5, "Adam's decay of the mean gradient", 0, 0.999999)
      .real("beta2", 0.999, "Adam's decay of the mean squared gradient", 0, 0.999999)
      .integer("latent", 64, "length of the noise vector z", 1, DcganConfig::kMaxLatent)
      .integer("channels", 32, "channels at full size; doubled at each halving, to 8x8 pixels", 1,
               DcganConfig::kMaxChannels)
      .integer("channels_d", 32, "the discriminator's, where they differ", 1,
               DcganConfig::kMaxChannels)
      .maybe()
      .integer("max_channels", 512, "where the doubling stops", 1, DcganConfig::kMaxChannels)
      .real("dropout", 0.25, "share of the discriminator's activations set to 0", 0, 0.95)
      .real("label_smoothing", 0, "reals are trained towards 1 minus this", 0, 0.5)
      .real("ema", 0, "decay of a moving average of the generator, used for pictures; 0: none", 0,
            0.999999)
      .integer("sample_every", 10, "epochs between grids of fakes", 1, 1e6)
      .integer("rows", 5, "of the grids", 1, 100)
      .integer("columns", 5, "of the grids", 1, 100)
      .integer("checkpoint_every", 10, "epochs between checkpoints", 1, 1e6)
      .integer("keep_checkpoints", 2, "how many of the newest are kept", 1, 1e6)
      .flag("exact", false,
            "compute the step operation by operation, without the faster ways to the same result: "
            "to compare with, or to suspect")
      .integer("log_every", 1, "steps between lines of metrics.jsonl, which hold their means", 1,
               1e6);
  info.create = [](const Params& params) { return std::make_unique<TrainDcgan>(params); };
  return info;
}

}  // namespace gp
