#pragma once

#include <png.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// Decodes a PNG to RGB with libpng, for looking at what was written.
inline Image decode_png(const std::vector<std::uint8_t>& bytes) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0) {
    throw std::runtime_error(std::string("decode_png: ") + png.message);
  }
  png.format = PNG_FORMAT_RGB;
  Image image(static_cast<int>(png.height), static_cast<int>(png.width));
  if (png_image_finish_read(&png, nullptr, image.pixels().data(), 0, nullptr) == 0) {
    throw std::runtime_error(std::string("decode_png: ") + png.message);
  }
  return image;
}

}  // namespace gp
