#pragma once

#include "pipeline/image.hpp"
#include "stages/data/aircraft_scene.hpp"

namespace gp {

/// Paints a scene. Anti-aliased (8 samples a pixel); a scene looks the same at every size. Uses
/// only operations that IEEE 754 rounds exactly, so the bytes are the same on every machine.
/// Thread-safe. `out` must be square.
void paint_aircraft_scene(const AircraftScene& scene, ImageView out);

}  // namespace gp
