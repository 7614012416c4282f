#include "pipeline/image.hpp"

#include <gtest/gtest.h>

namespace gp {
namespace {

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
