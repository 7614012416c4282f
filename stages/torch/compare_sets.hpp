#pragma once

#include <stop_token>
#include <string>

#include "pipeline/stage.hpp"
#include "stages/torch/compare_features.hpp"
#include "stages/torch/feature_extractor.hpp"

namespace gp {

/// Carries out EvaluateStage::compare: takes the features of both sets, compares them, and returns
/// the record, one JSON object; "" when a stop was asked for.
///
/// Each set is gone through once, in its order; what the cache holds, or a file of statistics, is
/// not computed. Images that cannot be used are left out, named and counted. Of saved statistics
/// only the Frechet distance can be taken. Throws DataError that names the image whose features are
/// not finite, and as EvaluateStage::compare does.
std::string compare_sets(const Comparison& comparison, FeatureExtractor& extractor,
                         const CompareOptions& options, Log& log, std::stop_token stop);

}  // namespace gp
