#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/graph_builder.hpp"

namespace gp {

/// What one stage made of a sample.
struct ReplayedStage {
  int number = 0;  ///< place in the list of stages: 0 the source, then the transforms
  std::string address;
  std::vector<std::uint8_t> bytes;  ///< where it gives bytes; `image` is empty then
  Image image;                      ///< the region that counts, as the next stage gets it
  ImageShape shape;                 ///< of the whole image, of which `image` is the region
  Geometry geometry;
};

/// One sample on its way through the stages, with everything that they made of it.
struct ReplayedSample {
  SampleInfo info;
  /// For each transform the address of the stage that ran: its own, that of the choice taken, or ""
  /// where augment.one_of took none.
  std::vector<std::string> chosen;
  /// In order, up to the one before a reject. The image of the last stage is, byte for byte, the
  /// sample's image in its batch; between neighbouring geometric stages, which become one
  /// resampling, each image is made by one resampling of the maps so far.
  std::vector<ReplayedStage> stages;
  std::optional<Reject> reject;
};

/// Takes one item of the source through the stages of `data`, as a graph does in that epoch (from
/// 0). One at a time for each DataPath, and not while a stream is open on it. Throws what a graph
/// throws; a bad sample is no error.
ReplayedSample replay_sample(const DataPath& data, const SampleOrder::Entry& entry,
                             std::uint32_t epoch);

/// The position of the sample called `key` in an epoch (from 0), whose order becomes the current
/// one. O(size of the source). Throws ConfigError that names the nearest keys, or says that
/// training leaves the sample out.
std::uint64_t find_position(const DataPath& data, const std::string& key, std::uint32_t epoch);

}  // namespace gp
