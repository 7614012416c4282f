#include "stages/torch/train_stage.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <limits>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/clock.hpp"
#include "stages/torch/compute_device.hpp"
#include "stages/torch/gan_snapshot.hpp"
#include "stages/torch/op_profile.hpp"
#include "stages/torch/training_loop.hpp"

namespace gp {
namespace {

double millions_of_parameters(const torch::nn::Module& network) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : network.parameters()) count += parameter.numel();
  return static_cast<double>(count) / 1e6;
}

std::string describe(const std::string& name, const AdversarialTrainer& trainer) {
  char text[256];
  const int size = resolution_of(trainer.model());
  std::snprintf(text, sizeof text,
                "%s: %dx%d images on %s in %s, %d threads; generator %.2f M parameters, "
                "discriminator %.2f M",
                name.c_str(), size, size, trainer.options().device.str().c_str(),
                trainer.options().bf16 ? "bf16" : "fp32", at::get_num_threads(),
                millions_of_parameters(trainer.generator()),
                millions_of_parameters(trainer.discriminator()));
  return text;
}

/// A batch like the stream's, of gray images of the first class.
struct BlankBatch {
  explicit BlankBatch(const StreamInfo& stream)
      : pixels(at::full({stream.batch_size, stream.shape.height, stream.shape.width, kChannels},
                        128, at::kByte)),
        labels(at::zeros({stream.batch_size}, at::kLong)) {}
  at::Tensor pixels, labels;
};

std::uint64_t batch_of(const Phase& phase, const StreamInfo& stream) {
  const auto given = phase.overrides.find("batch.size");
  return given == phase.overrides.end() ? static_cast<std::uint64_t>(stream.batch_size)
                                        : std::stoull(given->second);
}

/// Steps before the last phase, and those of all epochs, as far as they are known before rejects.
struct TrainingSteps {
  std::uint64_t before_last_phase = 0, all = 0;
};
TrainingSteps steps_of_training(const Params& params, const StreamInfo& stream,
                                std::vector<Phase> phases) {
  const auto epochs = static_cast<std::uint64_t>(params.integer("epochs"));
  TrainingSteps steps;
  if (stream.batch_size > 0) {
    if (phases.empty()) phases.emplace_back();
    const auto batch = static_cast<std::uint64_t>(stream.batch_size);
    const std::uint64_t kept = stream.keep_last ? batch - 1 : 0;
    std::uint64_t left = epochs * ((stream.source_size + kept) / batch * batch);
    // A phase ends with the batch that fills it; what that has too much counts for the next one.
    std::int64_t to_fill = 0;
    for (const Phase& phase : phases) {
      const std::uint64_t of_phase = batch_of(phase, stream);
      std::uint64_t here = left / of_phase;
      if (&phase != &phases.back()) {
        to_fill += static_cast<std::int64_t>(phase.images);
        const std::uint64_t fill =
            to_fill > 0 ? (static_cast<std::uint64_t>(to_fill) + of_phase - 1) / of_phase : 0;
        to_fill -= static_cast<std::int64_t>(fill * of_phase);
        steps.before_last_phase += fill;
        here = std::min(here, fill);
      }
      steps.all += here;
      left -= here * of_phase;
    }
  }
  if (const auto given = static_cast<std::uint64_t>(params.integer("steps_per_epoch")); given > 0) {
    steps.all = epochs * given;
  }
  return steps;
}

TrainerOptions trainer_options(const Params& params, const RunInfo& run, const StreamInfo& stream,
                               const std::vector<Phase>& phases) {
  TrainerOptions options;
  options.seed = run.seed;
  options.learning_rate = params.real("learning_rate");
  options.learning_rate_d =
      params.has("learning_rate_d") ? params.real("learning_rate_d") : options.learning_rate;
  options.beta1 = params.real("beta1");
  options.beta2 = params.real("beta2");
  options.label_smoothing = params.real("label_smoothing");
  options.schedule.shape = LearningRateSchedule::shape_of(params.text("schedule"));
  options.schedule.warm_up = static_cast<std::uint64_t>(params.integer("warm_up"));
  const TrainingSteps steps = steps_of_training(params, stream, phases);
  options.schedule.steps = steps.all;
  options.schedule.decay_start = options.schedule.shape == LearningRateSchedule::Shape::kInverseSqrt
                                     ? static_cast<std::uint64_t>(params.integer("decay_start"))
                                     : steps.before_last_phase;
  options.d_steps = static_cast<int>(params.integer("d_steps"));
  options.accumulate = static_cast<int>(params.integer("accumulate"));
  options.ema = params.real("ema");
  options.ema_half_life = options.ema > 0 ? 0 : 1000 * params.real("ema_half_life_kimg");
  options.ema_ramp_up = params.real("ema_ramp_up");
  options.device = resolve_device(run.device);
  options.bf16 = resolve_bf16(run.precision, options.device);
  options.undoable = params.text("on_nan") == "skip";
  return options;
}

}  // namespace

GanTrainStage::GanTrainStage(std::string name, Params params)
    : name_(std::move(name)), params_(std::move(params)) {
  if (params_.real("ema") > 0 && params_.real("ema_half_life_kimg") > 0) {
    throw ConfigError(
        name_ + ": ema and ema_half_life_kimg say the same in two ways; leave one of them out");
  }
}

std::uint32_t GanTrainStage::epochs() const {
  // Of the data: as many as the steps take.
  if (params_.integer("steps_per_epoch") > 0) return std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(params_.integer("epochs"));
}

int GanTrainStage::square_size(const ImageShape& shape) const {
  if (shape.height != shape.width || shape.height < DcganConfig::kMinResolution ||
      shape.height > DcganConfig::kMaxResolution ||
      !std::has_single_bit(static_cast<unsigned>(shape.height))) {
    throw ConfigError(name_ + ": the images are " + to_string(shape) +
                      "; expected squares of a power of two from 16 to 512 pixels: set `size` of "
                      "image.resize");
  }
  return shape.height;
}

std::unique_ptr<AdversarialTrainer> GanTrainStage::make_trainer(const RunInfo& run,
                                                                const StreamInfo& stream) const {
  return make_trainer(model(stream), trainer_options(params_, run, stream, schedule()));
}

std::unique_ptr<AdversarialTrainer> GanTrainStage::make_grown_trainer(
    const RunInfo& run, const StreamInfo& stream) const {
  std::unique_ptr<AdversarialTrainer> trainer = make_trainer(run, stream);
  trainer->set_progress(0, images_until_grown());
  return trainer;
}

void GanTrainStage::run(EndContext& context) {
  try {
    at::set_num_threads(std::max(context.run.threads, 1));
    TrainingLoop loop(
        name_, params_, context, [&] { return make_trainer(context.run, context.stream); },
        /*ahead=*/!resolve_device(context.run.device).is_cpu());
    context.log.info(describe(name_, loop.trainer()));
    const TrainerOptions& options = loop.trainer().options();
    if (options.bf16 && !has_native_bf16(options.device)) {
      context.log.warn(name_ + ": " + options.device.str() +
                       " has no instructions for bf16, so steps take many times as long as in "
                       "fp32; take run.precision: auto or fp32");
    } else if (options.bf16 && !is_faster_in_bf16(options.device)) {
      context.log.warn(name_ + ": " + options.device.str() +
                       " has no AMX, so steps in bf16 take longer than in fp32; take "
                       "run.precision: auto or fp32");
    }
    const TrainingSteps steps = steps_of_training(params_, context.stream, schedule());
    if (steps.all > 0 && steps.all <= steps.before_last_phase) {
      const LearningRateSchedule::Shape shape = options.schedule.shape;
      const bool falls = shape == LearningRateSchedule::Shape::kLinear ||
                         shape == LearningRateSchedule::Shape::kCosine;
      context.log.warn(name_ + ": the images will not grow to " + to_string(context.stream.shape) +
                       (falls ? ", and the learning rates will not fall" : "") +
                       ": the last phase begins after " + std::to_string(steps.before_last_phase) +
                       " steps, and the training has " + std::to_string(steps.all) +
                       "; raise epochs, or take a smaller phase_kimg");
    }
    loop.run();
  } catch (const c10::Error& error) {
    throw RunError(name_ + ": " + error.what_without_backtrace());
  }
}

double GanTrainStage::measure_rate(const RunInfo& run, const StreamInfo& stream) {
  try {
    at::set_num_threads(std::max(run.threads, 1));
    const std::unique_ptr<AdversarialTrainer> trainer = make_grown_trainer(run, stream);
    const BlankBatch batch(stream);
    trainer->step(batch.pixels, batch.labels);  // the first one also makes memory and kernels
    const double start = now();
    trainer->step(batch.pixels, batch.labels);
    return stream.batch_size / (now() - start);
  } catch (const c10::Error& error) {
    throw RunError(name_ + ": " + error.what_without_backtrace());
  }
}

StepProfile GanTrainStage::profile(const RunInfo& run, const StreamInfo& stream, double seconds) {
  try {
    at::set_num_threads(std::max(run.threads, 1));
    const std::unique_ptr<AdversarialTrainer> trainer = make_grown_trainer(run, stream);
    const BlankBatch batch(stream);
    const int period = trainer->period();
    const auto time_period = [&] {
      const double start = now();
      for (int i = 0; i < period; ++i) trainer->step(batch.pixels, batch.labels);
      return now() - start;
    };
    for (int i = 0; i < 3; ++i) time_period();
    StepProfile result;
    result.description = describe(name_, *trainer);
    result.images = stream.batch_size;
    std::vector<double> times;
    for (const double start = now(); times.empty() || now() - start < seconds;) {
      times.push_back(time_period());
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    result.seconds = times[times.size() / 2] / period;

    constexpr int kWatched = 3;
    OpProfile profile;
    for (int i = 0; i < kWatched; ++i) time_period();
    const double watched = kWatched * period;
    for (const auto& [operation, total] : profile.totals()) {
      result.parts.push_back(
          {operation, static_cast<double>(total.calls) / watched, total.seconds / watched});
    }
    std::sort(result.parts.begin(), result.parts.end(),
              [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    return result;
  } catch (const c10::Error& error) {
    throw RunError(name_ + ": " + error.what_without_backtrace());
  }
}

std::unique_ptr<SavedTraining> GanTrainStage::load_training(
    const std::filesystem::path& run_directory, Log& log) {
  std::optional<Checkpoint> checkpoint =
      CheckpointFolder(run_directory / kCheckpointFolder).load_newest_whole(log);
  if (!checkpoint) return nullptr;
  auto saved = std::make_unique<SavedGan>();
  saved->checkpoint = std::move(*checkpoint);
  const CheckpointInfo& info = saved->checkpoint.info;
  saved->file = saved->checkpoint.file;
  saved->step = info.step;
  saved->position = info.position;
  saved->threads = info.threads;
  saved->config_yaml = info.config_yaml;
  saved->data_digest = info.data_digest;
  saved->source_digest = info.source_digest;
  return saved;
}

void GanTrainStage::export_generator(const std::filesystem::path& checkpoint,
                                     const std::filesystem::path& file) {
  gp::export_generator(load_checkpoint(checkpoint), file);
}

std::unique_ptr<Snapshot> GanTrainStage::load_snapshot(const RunInfo& run,
                                                       const std::filesystem::path& checkpoint) {
  at::set_num_threads(std::max(run.threads, 1));
  return std::make_unique<GanSnapshot>(load_checkpoint(checkpoint), resolve_device(run.device),
                                       checkpoint.string());
}

void add_training_params(ParamSchema& schema, const TrainingDefaults& defaults) {
  schema.integer("epochs", 200, "how often the source is read through", 1, 1e6)
      .may_change()
      .integer("steps_per_epoch", 0,
               "steps that count as an epoch, for `epochs`, pictures and evaluation, however large "
               "the source is; 0: until it is read through",
               0, 1e9)
      .real("learning_rate", defaults.learning_rate, "Adam's step size", 1e-9, 1)
      .may_change()
      .real("learning_rate_d", 2e-4, "the discriminator's, where it differs", 1e-9, 1)
      .maybe()
      .may_change()
      .real("beta1", defaults.beta1, "Adam's decay of the mean gradient", 0, 0.999999)
      .real("beta2", defaults.beta2, "Adam's decay of the mean squared gradient", 0, 0.999999)
      .integer("latent", defaults.latent, "length of the noise vector z", 1,
               DcganConfig::kMaxLatent)
      .integer("channels", 32, "channels at full size; doubled at each halving, to 8x8 pixels", 1,
               DcganConfig::kMaxChannels)
      .integer(
          "channels_d", 32,
          "the discriminator's, where they differ: those of its first layer, which halves the "
          "image (in train.gan with residual blocks or growth: phases a 1x1 convolution at full "
          "size)",
          1, DcganConfig::kMaxChannels)
      .maybe()
      .integer("max_channels", 512, "where the doubling stops", 1, DcganConfig::kMaxChannels)
      .real("dropout", defaults.dropout, "share of the discriminator's activations set to 0", 0,
            0.95)
      .real("label_smoothing", 0, "reals are trained towards 1 minus this", 0, 0.5)
      .choice(
          "schedule", "constant", LearningRateSchedule::names(),
          "both learning rates over the steps of all epochs; linear, cosine: down to 0 (from the "
          "last phase on, where there are phases); inverse_sqrt: as 1 / sqrt(step) after "
          "decay_start")
      .integer("decay_start", 1000, "steps after which inverse_sqrt lets the rates fall", 1, 1e9)
      .integer("warm_up", 0, "steps over which both learning rates rise to their value", 0, 1e9)
      .integer(
          "d_steps", 1,
          "updates of the discriminator on each batch (pairs of them in train.dcgan), each with "
          "fakes of its own",
          1, 100)
      .integer(
          "accumulate", 1,
          "parts that a batch is computed in, one after the other, for less memory; batch norm "
          "sees a part at a time, and fakes are made twice",
          1, 1024)
      .real("ema", 0, "decay of a moving average of the generator, used for pictures; 0: none", 0,
            0.999999)
      .real("ema_half_life_kimg", 0,
            "thousands of images after which half of that average is forgotten, whatever the batch "
            "size; instead of ema; 0: not so",
            0, 1e6)
      .real("ema_ramp_up", 0.05,
            "that half-life is at most this share of the images seen so far (in this phase, where "
            "there are phases); 0: no such limit",
            0, 1)
      .integer("sample_every", 10, "epochs between grids of fakes", 1, 1e6)
      .may_change()
      .integer("rows", 5, "of the grids", 1, 100)
      .may_change()
      .integer("columns", 5, "of the grids", 1, 100)
      .may_change()
      .integer("save_every", 250, "steps between checkpoints; the last step has one, too", 1, 1e9)
      .may_change()
      .integer("keep_last", 2, "how many of the newest checkpoints are kept", 1, 1e6)
      .may_change()
      .choice("on_nan", "stop", {"stop", "skip", "rollback"},
              "where a loss or gradient is not finite: stop the run; leave the step out, as if its "
              "batch had not been; or bring the last checkpoint's state back and go on after the "
              "batch")
      .may_change()
      .text("keep_best", "",
            "keeps, beside those, the checkpoint of the best evaluated step: the name of a metric "
            "of evaluation.jsonl, such as frechet_distance; each evaluated step is saved then")
      .maybe()
      .may_change()
      .integer("log_every", 1, "steps between lines of metrics.jsonl, which hold their means", 1,
               1e6)
      .may_change();
}

}  // namespace gp
