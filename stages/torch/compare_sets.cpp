#include "stages/torch/compare_sets.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/feature_set.hpp"
#include "stages/torch/inception_score.hpp"
#include "stages/torch/statistics_cache.hpp"
#include "stages/torch/statistics_file.hpp"

namespace gp {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kLeastImages = 2;  // a covariance of fewer is not defined
constexpr int kDrawnAtOnce = 16;           // so that a stop does not wait for long
constexpr std::uint64_t kRejectsNamed = 5;

/// Unwinds a comparison when a stop is asked for.
struct Stopped {};

/// What is known of a set of images.
struct MeasuredSet {
  FeatureSet features;                ///< vectors are undefined where only statistics were saved
  std::optional<std::int64_t> count;  ///< images; nothing: a file of statistics did not say
  std::uint64_t rejected = 0;
  bool cached = false;
  std::string digest;
};

/// Whether a covariance is incomplete for want of images; null where their number is not known.
Json rank_deficient(const MeasuredSet& judged, const MeasuredSet* reference) {
  bool known = true;
  for (const MeasuredSet* set : {&judged, reference}) {
    if (set == nullptr) continue;
    if (set->count && set->features.statistics.rank_deficient()) return true;
    known = known && set->count;
  }
  return known ? Json(false) : Json();
}

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string images(std::uint64_t n) { return std::to_string(n) + (n == 1 ? " image" : " images"); }

class SetComparison {
 public:
  SetComparison(const Comparison& comparison, FeatureExtractor& extractor,
                const CompareOptions& options, Log& log, std::stop_token stop)
      : comparison_(comparison),
        extractor_(extractor),
        options_(options),
        log_(log),
        stop_(std::move(stop)),
        cache_(comparison.use_cache ? StatisticsCache::default_folder() : "") {}

  std::string run() {
    MeasuredSet judged;
    MeasuredSet reference;
    // What can be refused at once is, before minutes are spent.
    load(comparison_.judged, judged);
    if (comparison_.reference) load(*comparison_.reference, reference);
    measure(comparison_.judged, judged);
    if (!comparison_.save_statistics.empty()) {
      save_statistics(comparison_.save_statistics, judged.features.statistics, extractor_);
    }
    if (comparison_.reference) measure(*comparison_.reference, reference);
    // Paths may hold any bytes.
    return record(judged, comparison_.reference ? &reference : nullptr)
        .dump(-1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  void check_stop() const {
    if (stop_.stop_requested()) throw Stopped{};
  }

  std::string key_of(const ImageSet& set) const {
    return statistics_key(extractor_, set.info.data_digest + " " + set.state, set.info.shape);
  }

  /// Takes a set from its file or from the cache where it can.
  void load(const ImageSet& set, MeasuredSet& measured) {
    if (set.snapshot != nullptr) {
      expected_ += static_cast<std::uint64_t>(set.count);
      measured.digest = set.snapshot->digest();
      return;
    }
    if (!set.open) {
      SavedStatistics saved = load_statistics(set.statistics, extractor_);
      measured.features.statistics = std::move(saved.statistics);
      measured.count = saved.count;
      measured.digest = sha256_file(set.statistics);
      return;
    }
    measured.digest = set.info.data_digest;
    check_count(set, set.info.source_size);
    const std::string key = key_of(set);
    if (std::optional<FeatureSet> features = cache_.load(key, log_);
        features && features->statistics.dimensions() == extractor_.dimensions()) {
      measured.features = std::move(*features);
      measured.count = measured.features.statistics.count;
      measured.rejected = set.info.source_size - static_cast<std::uint64_t>(*measured.count);
      measured.cached = true;
      log_.info(set.name + ": the features of its " +
                images(static_cast<std::uint64_t>(*measured.count)) + " come from the cache, " +
                cache_.file(key).string());
      if (measured.rejected > 0) warn_of_rejects(set, measured.rejected);
      return;
    }
    expected_ += set.info.source_size;
  }

  /// Takes the features of a set that load() could not.
  void measure(const ImageSet& set, MeasuredSet& measured) {
    if (measured.features.statistics.mean.defined()) return;
    FeatureCollector features;
    if (set.snapshot != nullptr) {
      draw(set, features);
    } else {
      read(set, features, measured.rejected);
    }
    measured.features = features.finish();
    measured.count = measured.features.statistics.count;
    if (set.open) {
      const std::string key = key_of(set);
      cache_.store(key, measured.features, log_);
    }
  }

  void draw(const ImageSet& set, FeatureCollector& features) {
    const ImageShape shape = set.snapshot->shape();
    for (int first = 0; first < set.count; first += kDrawnAtOnce) {
      check_stop();
      const int n = std::min(kDrawnAtOnce, set.count - first);
      const std::vector<std::uint8_t> pixels =
          set.snapshot->generate(set.seed, static_cast<std::uint64_t>(first), n);
      add(set, extractor_.features(pixels.data(), shape, n), features, [&](std::int64_t i) {
        return "its image " + std::to_string(first + i) + " of seed " + std::to_string(set.seed);
      });
    }
  }

  void read(const ImageSet& set, FeatureCollector& features, std::uint64_t& rejected) {
    const std::unique_ptr<BatchStream> stream = set.open();
    std::uint64_t taken = 0;
    while (const std::shared_ptr<const Batch> batch = stream->next()) {
      check_stop();
      for (const Reject& reject : batch->rejects) {
        if (++rejected > kRejectsNamed) continue;
        log_.warn(set.name + ": '" + reject.key + "' is left out: " + reject.reason);
      }
      if (batch->count == 0) continue;
      add(set, extractor_.features(batch->pixels.get(), batch->shape, batch->count), features,
          [&](std::int64_t i) { return "'" + batch->keys[static_cast<std::size_t>(i)] + "'"; });
      taken += static_cast<std::uint64_t>(batch->count);
    }
    check_stop();  // a stopped stream just ends
    if (rejected > 0) warn_of_rejects(set, rejected);
    check_count(set, taken);
  }

  template <class NameOf>
  void add(const ImageSet& set, const at::Tensor& block, FeatureCollector& features,
           const NameOf& name_of) {
    const at::Tensor good = at::isfinite(block).all(1);
    if (!good.all().item<bool>()) {
      throw DataError(set.name + ": the features of " +
                      name_of(good.to(at::kByte).argmin().item<std::int64_t>()) +
                      " hold NaN or infinity, so no distance is defined; leave this image out, or "
                      "see whether the weights of " +
                      extractor_.name() + " are what they should be");
    }
    features.add(block);
    progress(set, block.size(0));
  }

  void warn_of_rejects(const ImageSet& set, std::uint64_t rejected) {
    log_.warn(set.name + ": " + std::to_string(rejected) + " of " + images(set.info.source_size) +
              " could not be used and are not in the figures");
  }

  static void check_count(const ImageSet& set, std::uint64_t found) {
    if (found >= kLeastImages) return;
    throw DataError(set.name + ": holds " + (found == 0 ? "no image" : images(found)) +
                    " that can be used; a covariance needs at least " +
                    std::to_string(kLeastImages) +
                    ", and a distance that means something thousands");
  }

  void progress(const ImageSet& set, std::int64_t added) {
    done_ += static_cast<std::uint64_t>(added);
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const double rate = static_cast<double>(done_) / std::max(seconds, 1e-3);
    std::string text = "evaluating " + set.name + ": " + std::to_string(done_) + " of " +
                       images(expected_) + ", " + number("%.1f", rate) + " images/s";
    if (expected_ > done_) {
      text += ", ETA " + number("%.0f", static_cast<double>(expected_ - done_) / rate) + " s";
    }
    log_.progress(text);
  }

  /// Of the vectors that are kept, where the extractor has classes.
  void add_inception_score(const at::Tensor& vectors, FeatureComparison& result) const {
    if (vectors.size(0) < InceptionScoreAccumulator::kSplits) return;
    const at::Tensor logits = extractor_.unbiased_logits(vectors);
    if (!logits.defined()) return;
    InceptionScoreAccumulator score(vectors.size(0));
    score.add(logits);
    const InceptionScore found = score.finish();
    result.metrics["inception_score"] = found.mean;
    result.metrics["inception_score_std"] = found.deviation;
    result.settings["inception_splits"] = InceptionScoreAccumulator::kSplits;
  }

  FeatureComparison compare(const MeasuredSet& judged, const MeasuredSet& reference) const {
    if (judged.features.vectors.defined() && reference.features.vectors.defined()) {
      FeatureComparison result = compare_features(judged.features, reference.features, nullptr,
                                                  options_, [this] { check_stop(); });
      add_inception_score(judged.features.vectors, result);
      return result;
    }
    check_stop();
    FeatureComparison result;
    result.metrics["frechet_distance"] =
        frechet_distance(judged.features.statistics, reference.features.statistics);
    result.settings["only_statistics"] = true;
    log_.info(
        "saved statistics hold no single features: kernel distance, precision and recall are left "
        "out");
    return result;
  }

  static Json describe(const ImageSet& set, const MeasuredSet& measured) {
    Json json = {{"path", set.name}, {"kind", set.kind}};
    json["images"] = measured.count ? Json(*measured.count) : Json();
    if (set.snapshot != nullptr) {
      json["seed"] = set.seed;
      json["step"] = set.snapshot->step();
    }
    json["rejected"] = measured.rejected;
    json["cached"] = measured.cached;
    return json;
  }

  Json record(const MeasuredSet& judged, const MeasuredSet* reference) const {
    const auto count = [](const MeasuredSet& set) { return set.count ? Json(*set.count) : Json(); };
    Json json = {{"extractor", extractor_.name()}, {"protocol", extractor_.protocol()}};
    if (reference != nullptr) json["n_real"] = count(*reference);
    json["n_fake"] = count(judged);
    Json sets = {{"fake", describe(comparison_.judged, judged)}};
    Json digests = {{"fake", judged.digest}};
    std::uint64_t rejected = judged.rejected;
    if (reference != nullptr) {
      FeatureComparison figures;
      try {
        figures = compare(judged, *reference);
      } catch (const DataError& error) {
        throw DataError(comparison_.judged.name + " against " + comparison_.reference->name + ": " +
                        error.what());
      }
      json["metrics"] = {{"name", extractor_.distance()}};
      json["metrics"].update(figures.metrics);
      json["settings"] = figures.settings;
      sets["real"] = describe(*comparison_.reference, *reference);
      digests["real"] = reference->digest;
      rejected += reference->rejected;
    }
    digests["extractor"] = extractor_.digest();
    json["rank_deficient"] = rank_deficient(judged, reference);
    json["rejected"] = rejected;
    json["sets"] = std::move(sets);
    json["digests"] = std::move(digests);
    json["seconds"] = std::chrono::duration<double>(Clock::now() - start_).count();
    tell(json);
    return json;
  }

  /// Images of the smaller set whose number is known.
  static std::int64_t fewest(const Json& json) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const char* count : {"n_fake", "n_real"}) {
      if (json.contains(count) && json[count].is_number()) {
        least = std::min(least, json[count].get<std::int64_t>());
      }
    }
    return least;
  }

  void tell(const Json& json) const {
    if (json["rank_deficient"] == true) {
      log_.warn(
          extractor_.distance() +
          " is taken from fewer images than its features have dimensions (" +
          std::to_string(extractor_.dimensions()) +
          "): the covariances are incomplete and the distance comes out too large. Compare it "
          "only with distances from the same numbers of images; more images help.");
    } else if (fewest(json) < 5 * std::int64_t{extractor_.dimensions()}) {
      log_.warn(extractor_.distance() + " is taken from few images for its features' " +
                std::to_string(extractor_.dimensions()) +
                " dimensions: part of it is there only for that, and falls about as 1 / number of "
                "images. Compare it only with distances from the same numbers of images; the "
                "kernel distance has no such part.");
    }
    if (!json.contains("metrics")) return;
    std::string text = extractor_.distance();
    const auto add = [&](const char* before, const char* metric) {
      const auto found = json["metrics"].find(metric);
      if (found != json["metrics"].end()) text += before + number("%.4g", found->get<double>());
    };
    add(" ", "frechet_distance");
    const auto interval = json["metrics"].find("frechet_distance_ci");
    if (interval != json["metrics"].end()) {
      text += " (95 %: " + number("%.4g", (*interval)[0]) + " to " +
              number("%.4g", (*interval)[1]) + ")";
    }
    add("; kernel distance ", "kid");
    add(" +- ", "kid_std");
    add(", precision ", "precision");
    add(", recall ", "recall");
    add(", Inception score ", "inception_score");
    const auto of = [&](const char* which) {
      const Json& n = json[which];
      return n.is_null() ? std::string("an unknown number of") : n.dump();
    };
    log_.info(text + "; " + of("n_fake") + " images against " + of("n_real") + ", " +
              number("%.0f", json["seconds"].get<double>()) + " s");
  }

  const Comparison& comparison_;
  FeatureExtractor& extractor_;
  const CompareOptions& options_;
  Log& log_;
  std::stop_token stop_;
  StatisticsCache cache_;
  Clock::time_point start_ = Clock::now();
  std::uint64_t expected_ = 0;
  std::uint64_t done_ = 0;
};

}  // namespace

std::string compare_sets(const Comparison& comparison, FeatureExtractor& extractor,
                         const CompareOptions& options, Log& log, std::stop_token stop) {
  try {
    return SetComparison(comparison, extractor, options, log, std::move(stop)).run();
  } catch (const Stopped&) {
    return {};
  }
}

}  // namespace gp
