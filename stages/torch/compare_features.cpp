#include "stages/torch/compare_features.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "stages/torch/bootstrap.hpp"
#include "stages/torch/frechet.hpp"
#include "stages/torch/kernel_distance.hpp"
#include "stages/torch/nearest_neighbours.hpp"
#include "stages/torch/pair_share.hpp"
#include "stages/torch/precision_recall.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {
namespace {

constexpr int kNeighbours = 3;  // of precision and recall, as published

nlohmann::ordered_json as_json(const Interval& interval) { return {interval.low, interval.high}; }

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

FeatureComparison compare_features(const FeatureSet& fakes, const FeatureSet& real,
                                   const FeatureSet* train, const CompareOptions& options,
                                   const std::function<void()>& check_stop) {
  const std::function<void()> check = check_stop ? check_stop : [] {};
  FeatureComparison result;
  auto& [metrics, settings] = result;
  check();
  metrics["frechet_distance"] = frechet_distance(fakes.statistics, real.statistics);
  const std::int64_t fewest = std::min(fakes.vectors.size(0), real.vectors.size(0));
  if (options.bootstrap > 0 && fewest >= 4) {
    const double error =
        frechet_standard_error(fakes.vectors, real.vectors, options.bootstrap, check);
    metrics["frechet_distance_standard_error"] = error;
    metrics["frechet_distance_ci"] =
        as_json(confidence_interval(metrics["frechet_distance"], error, options.bootstrap));
    settings["bootstrap_resamples"] = options.bootstrap;
  }
  if (train != nullptr) {
    check();
    metrics["frechet_distance_train"] = frechet_distance(fakes.statistics, train->statistics);
  }
  if (train != nullptr && options.floor) {
    check();
    // The fakes' place is taken by as many training reals, or by all that were kept.
    const std::int64_t kept = train->vectors.size(0);
    const std::int64_t n = std::min(fakes.statistics.count, kept);
    const at::Tensor chosen = at::tensor(RandomSubsets(0).next(kept, n));
    metrics["floor"] = frechet_distance(feature_statistics(train->vectors.index_select(0, chosen)),
                                        real.statistics);
    settings["floor_images"] = n;
  }
  if (options.kernel_distance) {
    check();
    const KernelDistanceOptions defaults;
    const KernelDistance kid = kernel_distance(fakes.vectors, real.vectors, defaults);
    metrics["kid"] = kid.mean;
    if (kid.has_deviation(fakes.vectors.size(0), real.vectors.size(0))) {
      metrics["kid_std"] = kid.deviation;
    }
    metrics["kid_ci"] =
        as_json(confidence_interval(kid.mean, kid.standard_error, defaults.resamples));
    settings["kid_subsets"] = defaults.subsets;
    settings["kid_subset_size"] = kid.subset_size;
    settings["kid_resamples"] = defaults.resamples;
  }
  if (options.precision_recall && fewest > kNeighbours) {
    check();
    const PrecisionRecall found = precision_recall(fakes.vectors, real.vectors, kNeighbours);
    metrics["precision"] = found.precision;
    metrics["recall"] = found.recall;
    settings["neighbours"] = kNeighbours;
  }
  if (train != nullptr && options.memorisation) {
    check();
    const auto distances = [&](const FeatureSet& set) {
      const at::Tensor found = nearest_neighbours(set.vectors, train->vectors).distance;
      const double* first = found.const_data_ptr<double>();
      return std::vector<double>(first, first + found.size(0));
    };
    metrics["nearer_than_held_out"] = pair_share(distances(real), distances(fakes));
    settings["nearest_among"] = train->vectors.size(0);
  }
  if (metrics.contains("frechet_distance_ci") || metrics.contains("kid_ci")) {
    settings["confidence"] = kConfidence;
    settings["confidence_method"] = "bootstrap standard error times Student's t";
  }
  // Fewer than n_fake and n_real where there are more than are kept.
  settings["vectors_fake"] = fakes.vectors.size(0);
  settings["vectors_real"] = real.vectors.size(0);
  return result;
}

std::string few_images_warning(const std::string& name, const FeatureStatistics& fakes,
                               const FeatureStatistics& real,
                               const nlohmann::ordered_json& metrics) {
  const std::string images =
      std::to_string(fakes.count) + " fakes and " + std::to_string(real.count) + " reals";
  if (fakes.rank_deficient() || real.rank_deficient()) {
    return name + " is taken from " + images + ", but its features have " +
           std::to_string(fakes.dimensions()) +
           " dimensions. With no more images than dimensions the covariances are incomplete and "
           "the "
           "distance comes out too large: compare it only with distances from the same numbers of "
           "images. More fakes (n_fake) and more reals help.";
  }
  const std::string remedy =
      " That part falls about as 1 / number of images: compare it only with distances from the "
      "same "
      "numbers of images. More fakes (n_fake) and more reals help; the kernel distance (kid) has "
      "no "
      "such part.";
  if (!metrics.contains("floor")) {
    if (std::min(fakes.count, real.count) >= 5 * fakes.dimensions()) return {};
    return name + " is taken from " + images + ", few for the " +
           std::to_string(fakes.dimensions()) +
           " dimensions of its features: part of it is there only for that." + remedy +
           " With held-out reals (held_out) the floor says how large it is.";
  }
  const double distance = metrics.value("frechet_distance", 0.0);
  const double floor = metrics.value("floor", 0.0);
  if (floor == 0 || floor < 0.05 * distance) return {};
  const std::string before =
      floor < distance
          ? "of " + name + " = " + number(distance) + ", about " + number(floor) + " (the floor, " +
                number(100 * floor / distance) + " %)"
          : name + " = " + number(distance) + " is no more than the floor, and " + number(floor);
  return before + " is what even perfect fakes would get, because " + images + " are few." + remedy;
}

}  // namespace gp
