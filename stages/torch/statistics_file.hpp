#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "stages/torch/feature_extractor.hpp"
#include "stages/torch/frechet.hpp"

namespace gp {

/// Statistics of a set of images as a file holds them.
struct SavedStatistics {
  FeatureStatistics statistics;       ///< its count is 0 where the file does not say it
  std::optional<std::int64_t> count;  ///< images; pytorch-fid does not save it
};

/// Reads `mu` [D] and `sigma` [D,D] from a .npz as pytorch-fid, clean-fid and save_statistics write
/// them. Throws DataError that names the file when an array is missing, of another type or shape,
/// holds NaN or infinity, or `sigma` is no covariance; when D is not the extractor's; or when
/// save_statistics noted another extractor, protocol or other weights.
SavedStatistics load_statistics(const std::filesystem::path& path,
                                const FeatureExtractor& extractor);

/// Writes `mu` and `sigma`, float64, for numpy.load and pytorch-fid; and `made_with`, a JSON text
/// that holds count, extractor, protocol and the weights' digest. Throws RunError.
void save_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics,
                     const FeatureExtractor& extractor);

}  // namespace gp
