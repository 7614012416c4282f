#include "stages/torch/quality.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/compare_sets.hpp"
#include "stages/torch/compute_device.hpp"
#include "stages/torch/feature_set.hpp"
#include "stages/torch/stages.hpp"
#include "stages/torch/statistics_cache.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;
using Overrides = QualityOptions::Overrides;

constexpr std::uint64_t kLeastImages = 2;  // a covariance of fewer is not defined

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
std::string percent(double share) { return number(100 * share, "%.1f") + " %"; }

std::string to_text(const Overrides& overrides) {
  std::string text;
  for (const auto& [name, value] : overrides) {
    text += (text.empty() ? "" : ", ") + name + ": " + value;
  }
  return "{" + text + "}";
}

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// libtorch's threads are the caller's; lends itself the run's number of them.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(at::get_num_threads()) {
    if (threads > 0 && threads != before_) at::set_num_threads(threads);
  }
  ~ThreadCount() {
    if (at::get_num_threads() != before_) at::set_num_threads(before_);
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

/// Unwinds one evaluation when a stop is asked for.
struct Stopped {};

/// What is known of one set of images after it was gone through.
struct Measured {
  FeatureSet features;
  double accuracy = 0;
  std::uint64_t rejected = 0;
  bool cached = false;
};

/// One evaluation of one snapshot.
class Evaluation {
 public:
  Evaluation(const QualityOptions& options, FeatureExtractor& extractor, Snapshot& snapshot,
             EvaluateContext& context)
      : options_(options),
        extractor_(extractor),
        snapshot_(snapshot),
        context_(context),
        cache_(StatisticsCache::default_folder()) {}

  /// Announces images to come, for the ETA.
  void expect(std::uint64_t images) { expected_ += images; }

  Measured measure_reals(const char* what, const Overrides& overrides, const StreamInfo& info) {
    if (info.shape.fixed() && info.shape != snapshot_.shape()) {
      fail(what, overrides,
           "holds images of " + to_string(info.shape) + ", the snapshot makes " +
               to_string(snapshot_.shape()));
    }
    Measured result;
    const std::string key = statistics_key(extractor_, info.data_digest, info.shape);
    if (!key.empty()) {
      if (auto features = cache_.load(key, context_.log);
          features && features->statistics.dimensions() == extractor_.dimensions()) {
        result.features = std::move(*features);
        result.cached = true;
      }
    }

    AccuracyCounter accuracy(true);
    FeatureCollector features;
    const auto stream = context_.streams.open(overrides, options_.batch);
    while (const std::shared_ptr<const Batch> batch = stream->next()) {
      check_stop();
      result.rejected +=
          static_cast<std::uint64_t>(std::count_if(batch->rejects.begin(), batch->rejects.end(),
                                                   [](const Reject& r) { return !r.dropped; }));
      if (batch->count == 0) continue;
      if (batch->shape != snapshot_.shape()) {
        fail(what, overrides,
             "gave an image of " + to_string(batch->shape) + ", the snapshot makes " +
                 to_string(snapshot_.shape()));
      }
      accuracy.add(snapshot_.discriminate(batch->pixels.get(), batch->count));
      if (!result.cached) {
        features.add(extractor_.features(batch->pixels.get(), batch->shape, batch->count));
      }
      progress(what, batch->count);
    }
    check_stop();  // a stopped stream just ends
    if (accuracy.count() < kLeastImages) {
      fail(what, overrides,
           "gave " + std::to_string(accuracy.count()) + " images, a covariance needs at least " +
               std::to_string(kLeastImages));
    }
    if (!result.cached) {
      result.features = features.finish();
      if (!key.empty()) cache_.store(key, result.features, context_.log);
    }
    result.accuracy = accuracy.accuracy();
    return result;
  }

  Measured measure_fakes() {
    AccuracyCounter accuracy(false);
    FeatureCollector features;
    for (int first = 0; first < options_.n_fake; first += options_.batch) {
      check_stop();
      const int n = std::min(options_.batch, options_.n_fake - first);
      const std::vector<std::uint8_t> images =
          snapshot_.generate(options_.seed, static_cast<std::uint64_t>(first), n);
      accuracy.add(snapshot_.discriminate(images.data(), n));
      features.add(extractor_.features(images.data(), snapshot_.shape(), n));
      progress("fakes", n);
    }
    return {features.finish(), accuracy.accuracy(), 0, false};
  }

  void check_stop() const {
    if (context_.stop.stop_requested()) throw Stopped{};
  }

 private:
  [[noreturn]] static void fail(const char* what, const Overrides& overrides,
                                const std::string& found) {
    throw DataError("evaluate.quality: the source with " + to_text(overrides) + " (" + what + ") " +
                    found);
  }

  void progress(const char* what, int images) {
    done_ += static_cast<std::uint64_t>(images);
    const double rate = static_cast<double>(done_) / std::max(watch_.seconds(), 1e-3);
    std::string text = std::string("evaluating ") + what + ": " + std::to_string(done_) + " of " +
                       std::to_string(expected_) + " images, " + number(rate, "%.0f") + " images/s";
    if (expected_ > done_) {
      text += ", ETA " + number(static_cast<double>(expected_ - done_) / rate, "%.0f") + " s";
    }
    context_.log.progress(text);
  }

  const QualityOptions& options_;
  FeatureExtractor& extractor_;
  Snapshot& snapshot_;
  EvaluateContext& context_;
  StatisticsCache cache_;
  Stopwatch watch_;
  std::uint64_t expected_ = 0;
  std::uint64_t done_ = 0;
};

}  // namespace

void AccuracyCounter::add(const std::vector<float>& logits) {
  for (const float logit : logits) right_ += real_ ? logit > 0 : logit <= 0;
  count_ += logits.size();
}

double AccuracyCounter::accuracy() const {
  return count_ == 0 ? 0 : static_cast<double>(right_) / static_cast<double>(count_);
}

QualityStage::QualityStage(QualityOptions options, std::unique_ptr<FeatureExtractor> extractor)
    : options_(std::move(options)), extractor_(std::move(extractor)) {}

void QualityStage::check(const StreamInfo& stream, StreamFactory& streams) const {
  const auto check_reals = [&](const char* parameter, const Overrides& overrides) {
    const std::string where = std::string(parameter) + " = " + to_text(overrides) + ": ";
    StreamInfo info;
    try {
      info = streams.info(overrides);
    } catch (const Error& error) {
      throw Error(error.exit_code(), where + error.what());
    }
    if (info.shape != stream.shape) {
      throw ConfigError(where + "without the random stages its images are of " +
                        to_string(info.shape) + ", the trainer's of " + to_string(stream.shape) +
                        "; put image.resize before the random stages");
    }
    if (info.source_size < kLeastImages) {
      throw DataError(where + "selects " + std::to_string(info.source_size) + " of at least " +
                      std::to_string(kLeastImages) + " images that a covariance needs");
    }
  };
  check_reals("reference", options_.reference);
  if (options_.held_out) check_reals("held_out", *options_.held_out);
}

bool QualityStage::due(std::uint32_t epochs_done, bool last) const {
  return last || epochs_done % options_.every == 0;
}

std::string QualityStage::evaluate(Snapshot& snapshot, EvaluateContext& context) {
  const Stopwatch watch;
  const ThreadCount threads(context.run.threads);
  extractor_->to(resolve_device(context.run.device));

  Evaluation evaluation(options_, *extractor_, snapshot, context);
  const StreamInfo train_info = context.streams.info(options_.reference);
  std::optional<StreamInfo> held_out_info;
  if (options_.held_out) held_out_info = context.streams.info(*options_.held_out);
  evaluation.expect(train_info.source_size + static_cast<std::uint64_t>(options_.n_fake) +
                    (held_out_info ? held_out_info->source_size : 0));

  Measured train;
  Measured fakes;
  std::optional<Measured> held_out;
  Json metrics;
  Json settings;
  try {
    train = evaluation.measure_reals("training reals", options_.reference, train_info);
    if (held_out_info) {
      held_out = evaluation.measure_reals("held-out reals", *options_.held_out, *held_out_info);
    }
    fakes = evaluation.measure_fakes();
    const FeatureComparison comparison = compare_features(
        fakes.features, held_out ? held_out->features : train.features,
        held_out ? &train.features : nullptr, options_.compare, [&] { evaluation.check_stop(); });
    metrics["name"] = extractor_->distance();
    metrics.update(comparison.metrics);
    settings = comparison.settings;
  } catch (const Stopped&) {
    return {};
  }
  const Measured& real = held_out ? *held_out : train;
  const StreamInfo& real_info = held_out_info ? *held_out_info : train_info;
  const FeatureStatistics& fake_statistics = fakes.features.statistics;
  const FeatureStatistics& real_statistics = real.features.statistics;
  const bool rank_deficient = fake_statistics.rank_deficient() || real_statistics.rank_deficient();
  const std::uint64_t rejected = train.rejected + (held_out ? held_out->rejected : 0);

  Json record = {{"step", snapshot.step()},
                 {"epoch", snapshot.epoch()},
                 {"images", snapshot.images()},
                 {"extractor", extractor_->name()},
                 {"protocol", extractor_->protocol()},
                 {"real", held_out ? "held_out" : "reference"},
                 {"reference", options_.reference}};
  if (held_out) record["held_out"] = *options_.held_out;
  record["n_real"] = real_statistics.count;
  if (held_out) record["n_real_train"] = train.features.statistics.count;
  record["n_fake"] = fake_statistics.count;
  record["seed"] = options_.seed;

  Json accuracy = {{"real_train", train.accuracy}};
  if (held_out) accuracy["real_held_out"] = held_out->accuracy;
  accuracy["fake"] = fakes.accuracy;
  record["metrics"] = metrics;
  record["settings"] = std::move(settings);
  record["accuracy"] = std::move(accuracy);
  record["rank_deficient"] = rank_deficient;
  record["rejected"] = rejected;
  record["statistics_cached"] = real.cached;
  record["digests"] = {{"data", real_info.data_digest},
                       {"extractor", extractor_->digest()},
                       {"snapshot", snapshot.digest()}};
  record["seconds"] = watch.seconds();

  if (rank_deficient && !rank_warned_) {
    rank_warned_ = true;
    context.log.warn(
        "evaluate.quality: " + extractor_->distance() + " is taken from " +
        std::to_string(fake_statistics.count) + " fakes and " +
        std::to_string(real_statistics.count) + " reals, but its features have " +
        std::to_string(extractor_->dimensions()) +
        " dimensions. With no more images than dimensions the covariances are incomplete and the "
        "distance comes out too large: compare it only with distances from the same numbers of "
        "images. More fakes (n_fake) and more reals help.");
  }
  if (rejected > 0) {
    context.log.warn("evaluate.quality: " + std::to_string(rejected) +
                     " real images could not be used and are not in the figures");
  }
  const auto shown = [&](const char* before, const char* metric, const char* after = "") {
    const auto found = metrics.find(metric);
    if (found == metrics.end()) return std::string();
    return before + number(found->get<double>(), "%.4g") + after;
  };
  context.log.info(
      "evaluation at step " + std::to_string(snapshot.step()) + ": " +
      shown((extractor_->distance() + " ").c_str(), "frechet_distance") +
      shown(" +- ", "frechet_distance_standard_error") + " against " +
      std::to_string(real_statistics.count) + (held_out ? " held-out" : " training") + " images" +
      shown(" (", "frechet_distance_train", " against ") +
      (held_out ? std::to_string(train.features.statistics.count) + " training images)" : "") +
      shown(", floor ", "floor", " (training reals in place of fakes)") + ", " +
      std::to_string(fake_statistics.count) + " fakes" + shown("; kernel distance ", "kid") +
      shown(" +- ", "kid_std") + shown(", precision ", "precision") + shown(", recall ", "recall") +
      "; D is right on " + percent(train.accuracy) + " of training reals, " +
      (held_out ? percent(held_out->accuracy) + " of held-out reals, " : std::string()) +
      percent(fakes.accuracy) + " of fakes; " + number(watch.seconds(), "%.0f") + " s");
  return record.dump();
}

std::string QualityStage::compare(const Comparison& comparison, const RunInfo& run, Log& log,
                                  std::stop_token stop) {
  const ThreadCount threads(run.threads);
  extractor_->to(resolve_device(run.device));
  return compare_sets(comparison, *extractor_, options_.compare, log, std::move(stop));
}

StageInfo quality_stage_info() {
  StageInfo info;
  info.name = "evaluate.quality";
  info.doc =
      "Frechet and kernel distance, precision and recall between fakes and reals, and the "
      "discriminator's accuracy on training reals, held-out reals and fakes";
  info.in = Kind::kSnapshot;
  info.out = Kind::kNothing;
  info.concurrency = Concurrency::kSerial;
  info.params.integer("every", 10, "evaluate every so many epochs, and after the last one", 1, 1e9)
      .choice("extractor", feature_extractor_names().front(), feature_extractor_names(),
              "network whose features the distance is taken over")
      .choice("protocol", feature_protocol_names().front(), feature_protocol_names(),
              "how inception_v3 resizes images: as clean-fid, pytorch-fid or torch-fidelity; "
              "absent: clean. Other extractors have their own protocol")
      .maybe()
      .path("weights",
            "weights of the extractor (safetensors); absent: the file that tools/bootstrap "
            "(efficientnet_lite0) or tools/fetch_weights (inception_v3) made")
      .maybe()
      .overrides("reference",
                 "parameters of the source that select the training reals; absent: as in training")
      .overrides("held_out",
                 "parameters of the source that select reals which training does not see, e.g. "
                 "{split: test}, or {fraction: 0.1}; the distance is then taken against these")
      .integer("n_fake", 2048, "images to generate", 2, 1e7)
      .integer("batch", 64, "images at a time; changes memory and speed only", 1, 4096)
      .integer("seed", 1000, "which images are generated; the same at every evaluation", 0, 1e15)
      .flag(
          "kernel_distance", true,
          "kid: kernel distance over 100 subsets of up to 1,000 images; not biased by their number")
      .flag("precision_recall", true,
            "precision, recall: share of fakes among the reals, of reals among the fakes (k = 3)")
      .flag(
          "floor", true,
          "distance of as many training reals from the held-out ones: what perfect fakes would get")
      .integer("jackknife", 0,
               "groups (10 will do) left out in turn for the standard error of the distance, which "
               "costs twice as many distances; 0: none",
               0, 1000);
  info.create = [](const Params& params) -> std::unique_ptr<Stage> {
    QualityOptions options;
    options.every = static_cast<std::uint32_t>(params.integer("every"));
    if (params.has("reference")) options.reference = params.overrides("reference");
    if (params.has("held_out")) options.held_out = params.overrides("held_out");
    options.n_fake = static_cast<int>(params.integer("n_fake"));
    options.batch = static_cast<int>(params.integer("batch"));
    options.seed = static_cast<std::uint64_t>(params.integer("seed"));
    options.compare.kernel_distance = params.flag("kernel_distance");
    options.compare.precision_recall = params.flag("precision_recall");
    options.compare.floor = params.flag("floor");
    options.compare.jackknife = static_cast<int>(params.integer("jackknife"));
    if (options.compare.jackknife == 1) {
      throw ConfigError("jackknife = 1: one group left out leaves nothing; 0 or at least 2");
    }
    // Loaded now: a missing or broken file shall not end a run ten epochs later.
    const std::string& name = params.text("extractor");
    const std::string given = params.has("weights") ? params.text("weights") : std::string();
    const std::string protocol = params.has("protocol") ? params.text("protocol") : std::string();
    check_feature_protocol(name, protocol);  // before a missing file is complained about
    return std::make_unique<QualityStage>(
        std::move(options), make_feature_extractor(name, find_weights(name, given), protocol));
  };
  return info;
}

}  // namespace gp
