#pragma once

#include "pipeline/image.hpp"
#include "pipeline/stage.hpp"

namespace gp {

/// How much to cut off each side, in pixels of the upright full-size source.
struct CropMargins {
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
};

/// Narrows frame and region by the margins; the pixels stay where they are. Margins count from the
/// sides of the frame, so of a box that the source gave remains what lies within them too. Throws
/// SampleError when nothing would be left.
Geometry crop(const Geometry& geometry, const CropMargins& margins);

}  // namespace gp
