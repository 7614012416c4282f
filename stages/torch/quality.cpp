#include "stages/torch/quality.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "pipeline/rng.hpp"
#include "stages/common/png.hpp"
#include "stages/torch/compare_sets.hpp"
#include "stages/torch/compute_device.hpp"
#include "stages/torch/feature_set.hpp"
#include "stages/torch/inception_score.hpp"
#include "stages/torch/nearest_picture.hpp"
#include "stages/torch/pair_share.hpp"
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

/// What a discriminator says about images that come in any order. It is asked in a random one, as
/// in training: one with minibatch standard deviation compares each image with three others, and
/// those of one class, which may follow each other in the data, look alike. All together, so that
/// the size of the batches changes no answer.
class Answers {
 public:
  Answers(Snapshot& snapshot, std::function<void()> check_stop)
      : snapshot_(snapshot),
        check_stop_(std::move(check_stop)),
        most_(std::max<std::size_t>(kMostBytes / snapshot.shape().bytes(), kAtOnce)) {}

  /// As Snapshot::discriminate() takes them.
  void add(const std::uint8_t* images, const std::int32_t* labels, int count) {
    const std::size_t bytes = snapshot_.shape().bytes();
    for (int i = 0; i < count; ++i) {
      // Inside-out shuffle (Knuth, vol. 2, 3.4.2): the place of a random one, which moves to the
      // end.
      const std::uint8_t* image = images + static_cast<std::size_t>(i) * bytes;
      const std::size_t at = rng_.below(static_cast<std::uint32_t>(labels_.size() + 1));
      images_.insert(images_.end(), image, image + bytes);
      labels_.push_back(labels[i]);
      if (at + 1 < labels_.size()) {
        std::swap_ranges(images_.end() - static_cast<std::ptrdiff_t>(bytes), images_.end(),
                         images_.begin() + static_cast<std::ptrdiff_t>(at * bytes));
        std::swap(labels_.back(), labels_[at]);
      }
      if (labels_.size() == most_) ask();
    }
  }

  /// The logits of all, in no particular order.
  std::vector<double> finish() {
    ask();
    return std::move(logits_);
  }

 private:
  static constexpr std::size_t kMostBytes = std::size_t{256} << 20U;
  static constexpr std::size_t kAtOnce = 256;  // a stop waits for that many

  void ask() {
    const std::size_t bytes = snapshot_.shape().bytes();
    for (std::size_t done = 0; done < labels_.size();) {
      check_stop_();
      // No small rest, which would have to be compared with itself.
      const std::size_t left = labels_.size() - done;
      const std::size_t count = left < 2 * kAtOnce ? left : kAtOnce;
      const std::vector<float> some = snapshot_.discriminate(
          images_.data() + done * bytes, labels_.data() + done, static_cast<int>(count));
      logits_.insert(logits_.end(), some.begin(), some.end());
      done += count;
    }
    images_.clear();
    labels_.clear();
  }

  Snapshot& snapshot_;
  std::function<void()> check_stop_;
  std::size_t most_;  ///< images held at a time
  Rng rng_{0, "evaluate.order", 0};
  std::vector<std::uint8_t> images_;
  std::vector<std::int32_t> labels_;
  std::vector<double> logits_;
};

/// Unwinds one evaluation when a stop is asked for.
struct Stopped {};

/// What is known of one set of images after it was gone through.
struct Measured {
  FeatureSet features;
  double accuracy = 0;
  std::vector<double> logits;  ///< the discriminator's, in no particular order
  std::uint64_t rejected = 0;
  bool cached = false;
  std::optional<InceptionScore> inception_score;  ///< of fakes
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

  /// `picture`: the training images nearest to fakes, which it shows, are looked for on the way.
  Measured measure_reals(const char* what, const Overrides& overrides, const StreamInfo& info,
                         NearestPicture* picture = nullptr) {
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
        if (picture != nullptr) picture->find(result.features);
      }
    }

    Answers answers(snapshot_, [&] { check_stop(); });
    FeatureCollector features;
    std::uint64_t count = 0;
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
      count += static_cast<std::uint64_t>(batch->count);
      answers.add(batch->pixels.get(), batch->labels.data(), batch->count);
      if (!result.cached) {
        features.add(features_of(batch->pixels.get(), batch->shape, batch->count));
      } else if (picture != nullptr) {
        picture->see(*batch);
      }
      progress(what, batch->count);
    }
    result.logits = answers.finish();
    check_stop();  // a stopped stream just ends
    if (count < kLeastImages) {
      fail(what, overrides,
           "gave " + std::to_string(count) + " images, a covariance needs at least " +
               std::to_string(kLeastImages));
    }
    if (!result.cached) {
      result.features = features.finish();
      if (!key.empty()) cache_.store(key, result.features, context_.log);
      if (picture != nullptr) {
        picture->find(result.features);
        look_for(*picture, overrides);
      }
    }
    result.accuracy = share_right(result.logits, true);
    return result;
  }

  /// Starts `picture` with the first fakes where it is wanted.
  Measured measure_fakes(std::optional<NearestPicture>& picture) {
    Measured result;
    Answers answers(snapshot_, [&] { check_stop(); });
    FeatureCollector collector;
    std::optional<InceptionScoreAccumulator> inception_score;
    const int shown =
        context_.run.directory.empty() ? 0 : std::min(options_.nearest, options_.n_fake);
    std::vector<std::uint8_t> first_images;
    std::vector<at::Tensor> first_features;
    for (int first = 0; first < options_.n_fake; first += options_.batch) {
      check_stop();
      const int n = std::min(options_.batch, options_.n_fake - first);
      const std::vector<std::uint8_t> images =
          snapshot_.generate(options_.seed, static_cast<std::uint64_t>(first), n);
      const std::vector<std::int32_t> labels =
          snapshot_.labels(options_.seed, static_cast<std::uint64_t>(first), n);
      answers.add(images.data(), labels.data(), n);
      const at::Tensor features = features_of(images.data(), snapshot_.shape(), n);
      collector.add(features);
      const at::Tensor class_scores = extractor_.unbiased_logits(features);
      if (class_scores.defined() && options_.n_fake >= InceptionScoreAccumulator::kSplits) {
        if (!inception_score) inception_score.emplace(options_.n_fake);
        inception_score->add(class_scores);
      }
      if (first < shown) {
        const int taken = std::min(n, shown - first);
        first_images.insert(
            first_images.end(), images.begin(),
            images.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(taken) *
                                                         snapshot_.shape().bytes()));
        first_features.push_back(features.narrow(0, 0, taken).clone());
      }
      progress("fakes", n);
    }
    if (shown > 0) {
      picture.emplace(std::move(first_images), snapshot_.shape(), at::cat(first_features));
    }
    if (inception_score) result.inception_score = inception_score->finish();
    result.features = collector.finish();
    result.logits = answers.finish();
    result.accuracy = share_right(result.logits, false);
    return result;
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

  /// A whole batch takes seconds on a CPU; a stop shall not wait for it.
  at::Tensor features_of(const std::uint8_t* images, ImageShape shape, int count) {
    const int at_a_time = extractor_.device().is_cpu() ? 8 : count;
    std::vector<at::Tensor> parts;
    for (int first = 0; first < count; first += at_a_time) {
      check_stop();
      const std::uint8_t* some = images + static_cast<std::size_t>(first) * shape.bytes();
      parts.push_back(extractor_.features(some, shape, std::min(at_a_time, count - first)));
    }
    return parts.size() == 1 ? parts.front() : at::cat(parts);
  }

  /// Reads the training images once more, up to the last one that the picture wants.
  void look_for(NearestPicture& picture, const Overrides& overrides) {
    const auto stream = context_.streams.open(overrides, options_.batch);
    while (!picture.complete()) {
      check_stop();
      const std::shared_ptr<const Batch> batch = stream->next();
      if (!batch) break;
      if (batch->count > 0) picture.see(*batch);
      context_.log.progress("evaluating: looking for the pixels of the nearest training images");
    }
    check_stop();
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

TorchScriptInput torchscript_input(const Params& params) {
  TorchScriptInput input;
  const std::string& extractor = params.text("extractor");
  for (const char* name : {"input_size", "input_range"}) {
    if (params.has(name) && extractor != "torchscript") {
      throw ConfigError(std::string(name) + ": the extractor '" + extractor +
                        "' has its own; only torchscript takes it");
    }
  }
  if (params.has("input_size")) input.size = static_cast<int>(params.integer("input_size"));
  if (params.has("input_range")) {
    const std::vector<double>& range = params.real_list("input_range");
    if (range.size() != 2 || range[0] == range[1]) {
      throw ConfigError("input_range: expected two different numbers, e.g. [-1, 1]");
    }
    input.low = range[0];
    input.high = range[1];
  }
  return input;
}

}  // namespace

double share_right(const std::vector<double>& logits, bool real) {
  const auto right = std::count_if(logits.begin(), logits.end(),
                                   [&](double logit) { return real ? logit > 0 : logit <= 0; });
  return logits.empty() ? 0 : static_cast<double>(right) / static_cast<double>(logits.size());
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
  const ThreadCount threads(options_.threads > 0 ? options_.threads
                            : options_.blocking  ? context.run.threads
                                                 : 1);
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
  std::optional<NearestPicture> picture;
  FeatureComparison comparison;
  try {
    fakes = evaluation.measure_fakes(picture);
    train = evaluation.measure_reals("training reals", options_.reference, train_info,
                                     picture ? &*picture : nullptr);
    if (held_out_info) {
      held_out = evaluation.measure_reals("held-out reals", *options_.held_out, *held_out_info);
    }
    comparison = compare_features(fakes.features, held_out ? held_out->features : train.features,
                                  held_out ? &train.features : nullptr, options_.compare, [&] {
                                    evaluation.check_stop();
                                    context.log.progress("evaluating: comparing the features");
                                  });
  } catch (const Stopped&) {
    return {};
  }
  auto& [metrics, settings] = comparison;
  metrics["name"] = extractor_->distance();
  if (fakes.inception_score) {
    metrics["inception_score"] = fakes.inception_score->mean;
    metrics["inception_score_std"] = fakes.inception_score->deviation;
    settings["inception_splits"] = InceptionScoreAccumulator::kSplits;
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
  if (held_out) accuracy["overfitting_gap"] = train.accuracy - held_out->accuracy;
  accuracy["pair_accuracy"] = pair_share(train.logits, fakes.logits);
  if (held_out) accuracy["pair_accuracy_held_out"] = pair_share(held_out->logits, fakes.logits);
  record["metrics"] = metrics;
  record["settings"] = settings;
  record["accuracy"] = accuracy;
  if (!options_.blocking) record["skipped"] = context.skipped;
  if (picture && picture->complete()) {
    char name[32];
    std::snprintf(name, sizeof name, "nearest_%06u.png", snapshot.epoch());
    const std::filesystem::path folder = context.run.directory / "samples";
    make_folders(folder);
    write_png(folder / name, picture->draw().view());
    record["nearest"] = {{"picture", std::string("samples/") + name},
                         {"fakes", picture->fakes()},
                         {"among", train.features.vectors.size(0)}};
  }
  record["rank_deficient"] = rank_deficient;
  record["rejected"] = rejected;
  record["statistics_cached"] = real.cached;
  record["digests"] = {{"data", real_info.data_digest},
                       {"extractor", extractor_->digest()},
                       {"snapshot", snapshot.digest()}};
  record["seconds"] = watch.seconds();

  if (!few_images_warned_) {
    const std::string warning =
        few_images_warning(extractor_->distance(), fake_statistics, real_statistics, metrics);
    few_images_warned_ = !warning.empty();
    if (few_images_warned_) context.log.warn("evaluate.quality: " + warning);
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
      (metrics.contains("frechet_distance_ci")
           ? " (95 %: " + number(metrics["frechet_distance_ci"][0], "%.4g") + " to " +
                 number(metrics["frechet_distance_ci"][1], "%.4g") + ")"
           : std::string()) +
      " against " + std::to_string(real_statistics.count) + (held_out ? " held-out" : " training") +
      " images" + shown(" (", "frechet_distance_train", " against ") +
      (held_out ? std::to_string(train.features.statistics.count) + " training images)" : "") +
      shown(", floor ", "floor", " (training reals in place of fakes)") + ", " +
      std::to_string(fake_statistics.count) + " fakes" + shown("; kernel distance ", "kid") +
      shown(" +- ", "kid_std") + shown(", precision ", "precision") + shown(", recall ", "recall") +
      shown(", Inception score ", "inception_score") +
      (metrics.contains("nearer_than_held_out")
           ? "; in " + percent(metrics["nearer_than_held_out"]) +
                 " of pairs a fake is nearer to a training image than a held-out real is (50 %: "
                 "like reals, above: copies)"
           : std::string()) +
      "; D is right on " + percent(train.accuracy) + " of training reals, " +
      (held_out ? percent(held_out->accuracy) + " of held-out reals (overfitting gap " +
                      number(100 * (train.accuracy - held_out->accuracy), "%.1f") + " points), "
                : std::string()) +
      percent(fakes.accuracy) + " of fakes, and tells a real from a fake in " +
      percent(accuracy["pair_accuracy"]) + " of pairs; " + number(watch.seconds(), "%.0f") + " s");
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
      "Frechet and kernel distance, precision and recall between fakes and reals, memorisation; "
      "the discriminator's accuracy on training reals, held-out reals and fakes";
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
            "weights of the extractor (safetensors), or the TorchScript file that it is; absent: "
            "the file that tools/bootstrap (efficientnet_lite0) or tools/fetch_weights "
            "(inception_v3) made")
      .maybe()
      .integer("input_size", 224, "of extractor torchscript: pixels of each side of its input", 8,
               2048)
      .maybe()
      .real_list("input_range", {-1, 1},
                 "of extractor torchscript: the input's values of black and white pixels", -1e6,
                 1e6)
      .maybe()
      .overrides("reference",
                 "parameters of the source that select the training reals; absent: as in training")
      .overrides("held_out",
                 "parameters of the source that select reals which training does not see, e.g. "
                 "{split: test}, or {fraction: 0.1}; the distance is then taken against these")
      .integer("n_fake", 2048, "images to generate", 2, 1e7)
      .integer("batch", 64, "images at a time; changes memory and speed only", 1, 4096)
      .flag("blocking", true,
            "training waits for the evaluation; false: it goes on beside it, and of several "
            "snapshots that are due meanwhile only the last is evaluated")
      .integer("threads", 0, "of libtorch; 0: those of the run, or 1 where not blocking", 0, 1024)
      .integer("seed", 1000, "which images are generated; the same at every evaluation", 0, 1e15)
      .flag(
          "kernel_distance", true,
          "kid: kernel distance over 100 subsets of up to 1,000 images; not biased by their number")
      .flag("precision_recall", true,
            "precision, recall: share of fakes among the reals, of reals among the fakes (k = 3)")
      .flag(
          "floor", true,
          "distance of as many training reals from the held-out ones: what perfect fakes would get")
      .flag("memorisation", true,
            "nearer_than_held_out: whether fakes are nearer to training images than held-out reals "
            "are; 0.5: as near, above: copies")
      .integer(
          "nearest", 16,
          "fakes in samples/nearest_*.png, each over the training image nearest to it; 0: none", 0,
          1024)
      .integer("bootstrap", 0,
               "resamples (20 will do) for the 95 % interval of the distance, which cost about as "
               "much as so many distances; 0: none",
               0, 10000);
  info.create = [](const Params& params) -> std::unique_ptr<Stage> {
    QualityOptions options;
    options.every = static_cast<std::uint32_t>(params.integer("every"));
    if (params.has("reference")) options.reference = params.overrides("reference");
    if (params.has("held_out")) options.held_out = params.overrides("held_out");
    options.n_fake = static_cast<int>(params.integer("n_fake"));
    options.batch = static_cast<int>(params.integer("batch"));
    options.seed = static_cast<std::uint64_t>(params.integer("seed"));
    options.blocking = params.flag("blocking");
    options.threads = static_cast<int>(params.integer("threads"));
    options.compare.kernel_distance = params.flag("kernel_distance");
    options.compare.precision_recall = params.flag("precision_recall");
    options.compare.floor = params.flag("floor");
    options.compare.memorisation = params.flag("memorisation");
    options.nearest = static_cast<int>(params.integer("nearest"));
    options.compare.bootstrap = static_cast<int>(params.integer("bootstrap"));
    if (options.compare.bootstrap == 1) {
      throw ConfigError("bootstrap = 1: one resample has no spread; 0 or at least 2, better 20");
    }
    // Loaded now: a missing or broken file shall not end a run ten epochs later.
    const std::string& name = params.text("extractor");
    const std::string given = params.has("weights") ? params.text("weights") : std::string();
    const std::string protocol = params.has("protocol") ? params.text("protocol") : std::string();
    check_feature_protocol(name, protocol);  // before a missing file is complained about
    return std::make_unique<QualityStage>(
        std::move(options), make_feature_extractor(name, find_weights(name, given), protocol,
                                                   torchscript_input(params)));
  };
  return info;
}

}  // namespace gp
