#include "stages/common/png.hpp"

#include <gtest/gtest.h>
#include <png.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/stages/common/decode_png.hpp"

namespace gp {
namespace {

Image noise_image(int height, int width) {
  Image image(height, width);
  std::uint32_t state = 12345;
  for (std::uint8_t& value : image.pixels()) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::uint8_t>(state >> 24);
  }
  return image;
}

TEST(Png, RoundTripIsExact) {
  for (const auto& [height, width] : {std::pair{1, 1}, {7, 13}, {64, 64}, {3, 500}}) {
    const Image image = noise_image(height, width);
    const std::vector<std::uint8_t> png = encode_png(image.view());
    const Image back = decode_png(png);
    EXPECT_EQ(back.shape(), image.shape());
    EXPECT_EQ(back.pixels(), image.pixels()) << height << "x" << width;
    // IHDR: 8 bits a channel, colour type 2 (RGB).
    ASSERT_GT(png.size(), 26U);
    EXPECT_EQ(png[24], 8);
    EXPECT_EQ(png[25], 2);
  }
}

TEST(Png, HonoursTheStrideOfAView) {
  const Image image = noise_image(20, 30);
  const ConstImageView inner{image.view().row(5) + 4 * kChannels, 8, 9, image.view().stride};
  const Image back = decode_png(encode_png(inner));
  ASSERT_EQ(back.shape(), (ImageShape{8, 9}));
  for (int y = 0; y < 8; ++y) {
    for (int i = 0; i < 9 * kChannels; ++i) {
      ASSERT_EQ(back.view().row(y)[i], inner.row(y)[i]) << y << " " << i;
    }
  }
}

TEST(Png, EmptyImageIsAnError) {
  EXPECT_THROW(encode_png({}), RunError);
  const Image image(0, 5);
  EXPECT_THROW(encode_png(image.view()), RunError);
}

TEST(Png, WriteReplacesTheFileAndLeavesNoOther) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("gp_png_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto path = folder / "picture.png";
  write_file(path, std::string_view("something else"));
  const Image image = noise_image(11, 5);
  write_png(path, image.view());
  EXPECT_EQ(decode_png(read_file(path)).pixels(), image.pixels());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  EXPECT_THROW(write_png(folder / "missing" / "picture.png", image.view()), RunError);
  std::filesystem::remove_all(folder);
}

TEST(MakeGrid, PlacesImagesRowByRowWithWhiteBetween) {
  // Five images of 2x3 pixels; every byte of image i is 10 * (i + 1).
  const ImageShape shape{2, 3};
  std::vector<std::uint8_t> images;
  for (int i = 0; i < 5; ++i) {
    images.insert(images.end(), shape.bytes(), static_cast<std::uint8_t>(10 * (i + 1)));
  }
  const Image grid = make_grid(images.data(), shape, 5, 3, 1);
  ASSERT_EQ(grid.shape(), (ImageShape{5, 11}));
  for (int y = 0; y < 5; ++y) {
    for (int x = 0; x < 11; ++x) {
      const bool in_gap = y == 2 || x == 3 || x == 7;
      const int index = (y > 2 ? 3 : 0) + (x > 7 ? 2 : x > 3 ? 1 : 0);
      const int expected = in_gap || index >= 5 ? 255 : 10 * (index + 1);
      for (int c = 0; c < kChannels; ++c) {
        ASSERT_EQ(grid.view().row(y)[x * kChannels + c], expected) << x << "," << y;
      }
    }
  }
}

TEST(MakeGrid, FewerImagesThanColumnsMakeANarrowGrid) {
  const std::vector<std::uint8_t> images(2 * 12, 7);
  EXPECT_EQ(make_grid(images.data(), {2, 2}, 2, 8, 2).shape(), (ImageShape{2, 6}));
  EXPECT_EQ(make_grid(images.data(), {2, 2}, 2, 8, 0).shape(), (ImageShape{2, 4}));
}

TEST(MakeGrid, RefusesNonsense) {
  const std::vector<std::uint8_t> images(12);
  EXPECT_THROW(make_grid(images.data(), {2, 2}, 0, 1), std::invalid_argument);
  EXPECT_THROW(make_grid(images.data(), {2, 2}, 1, 0), std::invalid_argument);
  EXPECT_THROW(make_grid(images.data(), {0, 2}, 1, 1), std::invalid_argument);
}

}  // namespace
}  // namespace gp
