#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "stages/torch/feature_set.hpp"

namespace gp {

/// What compare_features does beside the Frechet distance.
struct CompareOptions {
  bool kernel_distance = true;
  bool precision_recall = true;
  bool floor = true;
  int jackknife = 0;  ///< groups for the standard error of the Frechet distance; 0: none
};

/// Figures and what they were taken with: `metrics` and `settings` of a score record.
struct FeatureComparison {
  nlohmann::ordered_json metrics;
  nlohmann::ordered_json settings;
};

/// Compares the features of fakes with those of reals. `train`: the training reals where `real` are
/// held-out ones, else null; for the floor and the distance from them.
///
/// What is not defined for so few images is left out. `check_stop` is called between the steps and
/// may throw to give up. Throws DataError when the dimensions differ.
FeatureComparison compare_features(const FeatureSet& fakes, const FeatureSet& real,
                                   const FeatureSet* train, const CompareOptions& options,
                                   const std::function<void()>& check_stop = {});

}  // namespace gp
