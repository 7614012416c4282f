#pragma once

#include <cstdint>
#include <span>

#include "pipeline/image.hpp"

namespace gp {

/// How stored pixels become an upright image: the values of EXIF's tag 0x0112 (1: as stored).
enum class Orientation : std::uint8_t {
  kNormal = 1,
  kMirror = 2,         ///< left-right
  kRotate180 = 3,      //
  kFlip = 4,           ///< top-bottom
  kTranspose = 5,      ///< along the main diagonal
  kRotateRight = 6,    ///< turn the stored image 90 degrees clockwise
  kAntiTranspose = 7,  ///< along the other diagonal
  kRotateLeft = 8      ///< turn the stored image 90 degrees anticlockwise
};

/// Whether width and height change places.
inline bool swaps_axes(Orientation orientation) { return orientation >= Orientation::kTranspose; }

/// Where a rectangle of the stored image lies in the upright one. `stored`: the size of the former.
RectF turn_upright(const RectF& rectangle, ImageShape stored, Orientation orientation);

/// Reads the orientation of a TIFF structure: the body of EXIF ("II*\0" or "MM\0*" first), or a
/// TIFF file. Whatever is broken, missing or out of range gives kNormal; reads nothing outside
/// `tiff`.
Orientation read_orientation(std::span<const std::uint8_t> tiff);

/// The same for EXIF as JPEG's APP1 holds it, behind "Exif\0\0" (which may be absent).
Orientation read_exif_orientation(std::span<const std::uint8_t> exif);

/// Writes one row of stored pixels (RGB, row `y` of `stored`) to where it belongs in `upright`,
/// whose shape is that of `stored` with the axes swapped where the orientation asks for it.
void place_row(const std::uint8_t* row, int y, ImageShape stored, Orientation orientation,
               ImageView upright);

}  // namespace gp
