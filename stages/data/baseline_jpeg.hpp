#pragma once

#include <cstddef>
#include <cstdio>

// jpeglib.h needs size_t and FILE.
#include <jpeglib.h>

#include "pipeline/image.hpp"
#include "stages/data/exif.hpp"

namespace gp {

/// Decodes the common kind of JPEG to exactly the pixels that libjpeg-turbo gives, in about two
/// thirds of the time: 8 bits, sequential Huffman coding, one scan of gray or of YCbCr, at 1/8 and
/// 1/4, and at 1/2 where that needs no transform of full size (gray, 4:4:4, 4:2:2). 4:4:0 only at
/// 1/8.
///
/// `info`: after jpeg_read_header() and jpeg_calc_output_dimensions() with a source that holds the
/// whole file in memory and an output of RGB. It is not changed, so that libjpeg-turbo can take
/// over. `out`: the upright image, to be written by place_row()'s rules.
///
/// False: this is another kind, or something about the data is unusual, damaged or missing; `out`
/// then holds rubbish. Whether libjpeg-turbo would warn or fail is left to it. So true also says
/// that it would do neither.
bool decode_baseline_jpeg(const jpeg_decompress_struct& info, Orientation orientation,
                          ImageView out);

/// Whether it is worth calling, from the header alone.
bool is_baseline_jpeg(const jpeg_decompress_struct& info);

}  // namespace gp
