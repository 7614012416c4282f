#include "pipeline/image.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

Image noise(int height, int width) {
  Image image(height, width);
  Rng rng(1, "noise", 0);
  for (auto& value : image.pixels()) value = static_cast<std::uint8_t>(rng.next_u32());
  return image;
}

TEST(WarpAffine, IdentityIsExact) {
  const Image in = noise(7, 9);
  Image out(7, 9);
  warp_affine(in.view(), {}, out.view());
  EXPECT_EQ(in.pixels(), out.pixels());
}

TEST(WarpAffine, MirrorIsExact) {
  const Image in = noise(7, 9);
  Image out(7, 9);
  warp_affine(in.view(), {{-1, 0, 8, 0, 1, 0}}, out.view());
  for (int y = 0; y < 7; ++y) {
    for (int x = 0; x < 9; ++x) {
      EXPECT_EQ(out.view().row(y)[x * 3 + 1], in.view().row(y)[(8 - x) * 3 + 1]);
    }
  }
}

TEST(WarpAffine, BordersReflectWithoutRepeatingTheEdge) {
  const Image in = noise(4, 4);
  Image out(4, 4);
  warp_affine(in.view(), {{1, 0, -2, 0, 1, 0}}, out.view());
  const int expected[] = {2, 1, 0, 1};
  for (int x = 0; x < 4; ++x) {
    EXPECT_EQ(out.view().row(0)[x * 3], in.view().row(0)[expected[x] * 3]);
  }
}

TEST(WarpAffine, WildMatricesAndTinyImagesStayInside) {
  const Image in = noise(1, 1);
  Image out(3, 3);
  warp_affine(in.view(), {{1e30, 0, -1e30, 1e12, -1e30, 5}}, out.view());
  EXPECT_EQ(out.pixels()[0], in.pixels()[0]);
}

TEST(Affine, ComposeAppliesFirstThenSecond) {
  const Affine mirror{{-1, 0, 9, 0, 1, 0}};
  const Affine shift{{1, 0, -2, 0, 1, 0}};  // moves the picture right by two
  // Mirror the picture, then shift it: output x shows shifted x-2, which shows 9-(x-2).
  const Affine both = compose(mirror, shift);
  EXPECT_EQ(both.m[0], -1);
  EXPECT_EQ(both.m[2], 11);
}

TEST(Geometry, RegionScalesWithTheDecodedSize) {
  Geometry geometry = Geometry::whole({695, 1024});
  EXPECT_TRUE(geometry.is_whole());
  geometry.region.height -= 20;
  EXPECT_FALSE(geometry.is_whole());
  const RectF region = geometry.region_in({174, 256});
  EXPECT_DOUBLE_EQ(region.width, 256);
  EXPECT_DOUBLE_EQ(region.height, 675.0 * 174 / 695);
}

}  // namespace
}  // namespace gp
