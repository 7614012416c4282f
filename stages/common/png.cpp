#include "stages/common/png.hpp"

#include <png.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {

std::vector<std::uint8_t> encode_png(ConstImageView image) {
  if (image.empty() || image.height <= 0 || image.width <= 0) {
    throw RunError("encode_png: cannot encode an image of " + std::to_string(image.width) + "x" +
                   std::to_string(image.height) + " pixels; PNG needs at least 1x1");
  }
  // libpng's simplified interface: it reports errors by return value, so no longjmp crosses C++.
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  std::vector<std::uint8_t> bytes(PNG_IMAGE_PNG_SIZE_MAX(png));
  png_alloc_size_t size = bytes.size();
  if (png_image_write_to_memory(&png, bytes.data(), &size, 0, image.data,
                                static_cast<png_int_32>(image.stride), nullptr) == 0) {
    const std::string reason = png.message;
    png_image_free(&png);
    throw RunError("encode_png: libpng failed on an image of " + std::to_string(image.width) + "x" +
                   std::to_string(image.height) + " pixels: " + reason);
  }
  bytes.resize(size);
  return bytes;
}

void write_png(const std::filesystem::path& path, ConstImageView image) {
  write_file(path, encode_png(image));
}

Image make_grid(const std::uint8_t* images, ImageShape shape, int count, int columns, int gap) {
  if (!shape.fixed() || count < 1 || columns < 1 || gap < 0) {
    throw std::invalid_argument(
        "make_grid: needs a fixed shape, count >= 1, columns >= 1, gap >= 0");
  }
  columns = std::min(columns, count);
  const int rows = (count + columns - 1) / columns;
  Image grid(rows * (shape.height + gap) - gap, columns * (shape.width + gap) - gap);
  std::fill(grid.pixels().begin(), grid.pixels().end(), std::uint8_t{255});
  const ImageView canvas = grid.view();
  const std::ptrdiff_t row_bytes = static_cast<std::ptrdiff_t>(shape.width) * kChannels;
  for (int i = 0; i < count; ++i) {
    const int top = i / columns * (shape.height + gap);
    const int left = i % columns * (shape.width + gap);
    copy_image({images + static_cast<std::size_t>(i) * shape.bytes(), shape.height, shape.width,
                row_bytes},
               {canvas.row(top) + static_cast<std::ptrdiff_t>(left) * kChannels, shape.height,
                shape.width, canvas.stride});
  }
  return grid;
}

}  // namespace gp
