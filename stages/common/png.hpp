#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// 8-bit RGB PNG (libpng).
std::vector<std::uint8_t> encode_png(ConstImageView image);
/// Temporary name, fsync, rename.
void write_png(const std::filesystem::path& path, ConstImageView image);

/// `count` images (uint8 NHWC) side by side in rows of `columns`, `gap` white pixels between.
Image make_grid(const std::uint8_t* images, ImageShape shape, int count, int columns, int gap = 2);

}  // namespace gp
