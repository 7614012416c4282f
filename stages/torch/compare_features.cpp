#include "stages/torch/compare_features.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "stages/torch/frechet.hpp"
#include "stages/torch/kernel_distance.hpp"
#include "stages/torch/precision_recall.hpp"
#include "stages/torch/random_subsets.hpp"

namespace gp {
namespace {

constexpr int kNeighbours = 3;  // of precision and recall, as published

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
  if (options.jackknife > 0 && fewest >= 4) {
    const int groups = static_cast<int>(std::min<std::int64_t>(options.jackknife, fewest));
    metrics["frechet_distance_standard_error"] =
        frechet_standard_error(fakes.vectors, real.vectors, groups, check);
    settings["jackknife_groups"] = groups;
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
    const KernelDistance kid = kernel_distance(fakes.vectors, real.vectors);
    metrics["kid"] = kid.mean;
    if (kid.has_deviation(fakes.vectors.size(0), real.vectors.size(0))) {
      metrics["kid_std"] = kid.deviation;
    }
    settings["kid_subsets"] = KernelDistanceOptions().subsets;
    settings["kid_subset_size"] = kid.subset_size;
  }
  if (options.precision_recall && fewest > kNeighbours) {
    check();
    const PrecisionRecall found = precision_recall(fakes.vectors, real.vectors, kNeighbours);
    metrics["precision"] = found.precision;
    metrics["recall"] = found.recall;
    settings["neighbours"] = kNeighbours;
  }
  // Fewer than n_fake and n_real where there are more than are kept.
  settings["vectors_fake"] = fakes.vectors.size(0);
  settings["vectors_real"] = real.vectors.size(0);
  return result;
}

}  // namespace gp
