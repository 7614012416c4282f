#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/image.hpp"
#include "pipeline/stage.hpp"

namespace gp {

/// One item on its way from the source to its batch. Owned by one node at a time.
///
/// A sample that failed or was dropped stays in the stream as a tombstone (`reject` is set), so
/// that sequence numbers have no holes.
struct Sample {
  SampleInfo info;
  std::uint64_t sequence = 0;  ///< dense over the stream, from 0
  std::uint64_t position = 0;  ///< in the epoch's order
  bool ends_epoch = false;     ///< last position of its epoch
  std::uint64_t item = 0;      ///< number within the source

  std::vector<std::uint8_t> bytes;  ///< payload between graph nodes
  Image image;                      ///< payload between graph nodes
  Geometry geometry;

  std::shared_ptr<std::uint8_t[]> slab;  ///< memory of the batch it will probably be part of
  int slot = 0;                          ///< its place there
  bool keeps_image = false;  ///< no slab: sizes differ, and `image` is what becomes of it
  std::optional<Reject> reject;
};

}  // namespace gp
