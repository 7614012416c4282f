#pragma once

#include "pipeline/image.hpp"

namespace gp {

// The two ways to compute warp_affine() (declared in image.hpp), apart, for tests and benchmarks.
// They give the same bytes.

void warp_affine_portable(ConstImageView in, const Affine& map, ImageView out);

/// May be called only where `has_warp_instructions` says so (x86 with AVX2).
void warp_affine_by_instructions(ConstImageView in, const Affine& map, ImageView out);
bool has_warp_instructions();

}  // namespace gp
