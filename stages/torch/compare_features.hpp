#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "stages/torch/feature_set.hpp"

namespace gp {

/// What compare_features does beside the Frechet distance.
struct CompareOptions {
  bool kernel_distance = true;
  bool precision_recall = true;
  bool floor = true;
  bool memorisation = true;
  int bootstrap = 0;  ///< resamples for the Frechet distance's interval; 0: none
};

/// Figures and what they were taken with: `metrics` and `settings` of a score record.
struct FeatureComparison {
  nlohmann::ordered_json metrics;
  nlohmann::ordered_json settings;
};

/// Compares the features of fakes with those of reals. `train`: the training reals where `real` are
/// held-out ones, else null; for the floor, the distance from them and memorisation.
///
/// `nearer_than_held_out` is the share of all pairs of a fake and a held-out real in which the fake
/// is nearer to its nearest training image than the real is to its own (ties half). 0.5: as near as
/// reals that were never seen; above: the generator copies; well below: the fakes are far from all
/// reals, which says nothing about copying. It is Mann and Whitney's statistic of the test for
/// data-copying by Meehan, Chaudhuri and Dasgupta (AISTATS 2020), over one cell.
///
/// What is not defined for so few images is left out. `check_stop` is called between the steps and
/// may throw to give up. Throws DataError when the dimensions differ.
FeatureComparison compare_features(const FeatureSet& fakes, const FeatureSet& real,
                                   const FeatureSet* train, const CompareOptions& options,
                                   const std::function<void()>& check_stop = {});

/// What to say, in plain words, about a distance `name` from few images: that the covariances are
/// incomplete (no more images than dimensions); else how much of it is due to the number of images,
/// by the floor, where that is a twentieth or more; without a floor, that there is such a part
/// where images are fewer than five times the dimensions. Empty: nothing. `metrics` of
/// compare_features.
std::string few_images_warning(const std::string& name, const FeatureStatistics& fakes,
                               const FeatureStatistics& real,
                               const nlohmann::ordered_json& metrics);

}  // namespace gp
