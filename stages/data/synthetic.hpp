#pragma once

#include <cstdint>

#include "pipeline/image.hpp"
#include "pipeline/stage.hpp"
#include "stages/data/aircraft_scene.hpp"

namespace gp {

/// Draws aircraft number `draw` of the endless collection that belongs to `seed` into `out`, which
/// must be square, 8 to 1024 pixels. A pure function: the same bytes in every thread, at every
/// call and on every machine with IEEE 754 floats. The scene does not depend on the size.
/// Throws std::invalid_argument when `out` is not square or its size is out of range.
void draw_aircraft(std::uint64_t seed, std::uint64_t draw, ImageView out,
                   AircraftViews views = AircraftViews::kAll);

/// Counts up whenever draw_aircraft gives other pixels than before; part of the data's digest.
inline constexpr int kSyntheticVersion = 1;

/// `source.synthetic`: a collection of drawn aircraft; needs no files.
StageInfo synthetic_source_info();

}  // namespace gp
