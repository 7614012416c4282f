#include "pipeline/warp.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

Image noise(int height, int width) {
  Image image(height, width);
  Rng rng(1, "noise", 0);
  for (auto& value : image.pixels()) value = static_cast<std::uint8_t>(rng.next_u32());
  return image;
}

Image warped(ConstImageView in, const Affine& map, ImageShape shape) {
  Image out(shape.height, shape.width);
  warp_affine(in, map, out.view());
  return out;
}

/// Turns by `degrees` and scales about the centre, then shifts by (x, y) pixels.
Affine turn(ImageShape shape, double degrees, double scale, double x, double y) {
  const double angle = degrees * std::acos(-1.0) / 180;
  const double c = std::cos(angle) / scale;
  const double s = std::sin(angle) / scale;
  const double cx = (shape.width - 1) / 2.0;
  const double cy = (shape.height - 1) / 2.0;
  return {{c, s, cx - c * (cx + x) - s * (cy + y), -s, c, cy + s * (cx + x) - c * (cy + y)}};
}

int reflected(std::int64_t i, int size) {
  if (size == 1) return 0;
  const int period = 2 * (size - 1);
  const int rest = static_cast<int>(((i % period) + period) % period);
  return std::min(rest, period - rest);
}

/// The exact value at the place that output pixel (x, y) looks at.
double exact(ConstImageView in, const Affine& map, int x, int y, int channel) {
  const double xi = map.m[0] * x + map.m[1] * y + map.m[2];
  const double yi = map.m[3] * x + map.m[4] * y + map.m[5];
  const double fx = xi - std::floor(xi);
  const double fy = yi - std::floor(yi);
  const auto at = [&](int dx, int dy) {
    const int column = reflected(static_cast<std::int64_t>(std::floor(xi)) + dx, in.width);
    const int row = reflected(static_cast<std::int64_t>(std::floor(yi)) + dy, in.height);
    return static_cast<double>(in.row(row)[column * kChannels + channel]);
  };
  return (at(0, 0) * (1 - fx) + at(1, 0) * fx) * (1 - fy) +
         (at(0, 1) * (1 - fx) + at(1, 1) * fx) * fy;
}

/// How far the farthest pixel is from the exact value; 0.5 is what rounding alone gives.
double largest_error(ConstImageView in, const Affine& map, const Image& out) {
  double largest = 0;
  for (int y = 0; y < out.shape().height; ++y) {
    for (int x = 0; x < out.shape().width; ++x) {
      for (int c = 0; c < kChannels; ++c) {
        const double found = out.view().row(y)[x * kChannels + c];
        largest = std::max(largest, std::abs(found - exact(in, map, x, y, c)));
      }
    }
  }
  return largest;
}

TEST(WarpAffine, IdentityIsExact) {
  const Image in = noise(7, 9);
  EXPECT_EQ(in.pixels(), warped(in.view(), {}, {7, 9}).pixels());
}

TEST(WarpAffine, MirrorsAndTranslationsByWholePixelsAreExact) {
  for (const int width : {1, 2, 3, 5, 6, 7, 9, 16, 17, 100}) {
    const Image in = noise(7, width);
    for (const double direction : {1.0, -1.0}) {
      for (const int shift : {0, 1, -1, 3, width - 1, -width, 4 * width + 1}) {
        const Affine map{{direction, 0, static_cast<double>(shift), 0, -1, 2}};
        const Image out = warped(in.view(), map, {7, width + 3});
        for (int y = 0; y < 7; ++y) {
          for (int x = 0; x < width + 3; ++x) {
            const int column = reflected(static_cast<int>(direction) * x + shift, width);
            EXPECT_EQ(std::memcmp(out.view().row(y) + x * 3,
                                  in.view().row(reflected(2 - y, 7)) + column * 3, 3),
                      0)
                << width << ' ' << direction << ' ' << shift << ' ' << x << ' ' << y;
          }
        }
      }
    }
  }
}

TEST(WarpAffine, QuarterTurnsAreExact) {
  const Image in = noise(40, 40);
  const Image out = warped(in.view(), turn({40, 40}, 90, 1, 0, 0), {40, 40});
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 40; ++x) {
      EXPECT_EQ(std::memcmp(out.view().row(y) + x * 3, in.view().row(39 - x) + y * 3, 3), 0);
    }
  }
}

TEST(WarpAffine, BordersReflectWithoutRepeatingTheEdge) {
  const Image in = noise(4, 4);
  const Image out = warped(in.view(), {{1, 0, -2, 0, 1, 0}}, {4, 4});
  const int expected[] = {2, 1, 0, 1};
  for (int x = 0; x < 4; ++x) {
    EXPECT_EQ(out.view().row(0)[x * 3], in.view().row(0)[expected[x] * 3]);
  }
}

TEST(WarpAffine, IsWithinAFractionOfALevelOfTheExactValue) {
  // Noise is the worst case: neighbours differ by up to 255.
  Rng rng(3, "maps", 0);
  for (int i = 0; i < 200; ++i) {
    const int height = 1 + static_cast<int>(rng.next_u32() % 60);
    const int width = 1 + static_cast<int>(rng.next_u32() % 60);
    const Image in = noise(height, width);
    const Affine map =
        i % 2 == 0 ? turn({height, width}, rng.uniform(-180, 180), rng.uniform(0.3, 3),
                          rng.uniform(-20, 20), rng.uniform(-20, 20))
                   : Affine{{rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(-300, 300),
                             rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(-300, 300)}};
    const ImageShape shape{1 + static_cast<int>(rng.next_u32() % 60),
                           1 + static_cast<int>(rng.next_u32() % 60)};
    EXPECT_LE(largest_error(in.view(), map, warped(in.view(), map, shape)), 0.54) << i;
  }
}

TEST(WarpAffine, NoErrorBuildsUpAlongALongRow) {
  const Image in = noise(4, 20000);
  const Affine map{{1.0 / 3, 0, 0.1, 1e-5, 1.0 / 7, 0.2}};
  EXPECT_LE(largest_error(in.view(), map, warped(in.view(), map, {3, 60000})), 0.54);
}

TEST(WarpAffine, InstructionsGiveThePortableBytes) {
  if (!has_warp_instructions()) GTEST_SKIP() << "this processor has none that we know of";
  Rng rng(4, "maps", 0);
  for (int i = 0; i < 600; ++i) {
    const int height = 1 + static_cast<int>(rng.next_u32() % 40);
    const int width = 1 + static_cast<int>(rng.next_u32() % 40);
    // Exactly as much memory as there are pixels: reading over an end is an error under asan.
    const Image in = noise(height, width);
    Affine map{{rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(-50, 50), rng.uniform(-2, 2),
                rng.uniform(-2, 2), rng.uniform(-50, 50)}};
    // Whole and half numbers meet the edges exactly.
    if (i % 3 == 1) {
      for (double& value : map.m) value = std::round(value * 2) / 2;
    }
    if (i % 3 == 2) {
      map = turn({height, width}, rng.uniform(-20, 20), rng.uniform(0.8, 1.2), rng.uniform(-4, 4),
                 rng.uniform(-4, 4));
    }
    if (i % 12 == 2) map = {{i % 24 == 2 ? -1.0 : 1.0, 0, i - 300.0, i % 5 - 2.0, 1, 0}};
    const ImageShape shape{1 + static_cast<int>(rng.next_u32() % 40),
                           1 + static_cast<int>(rng.next_u32() % 40)};
    Image portable(shape.height, shape.width);
    Image quick(shape.height, shape.width);
    warp_affine_portable(in.view(), map, portable.view());
    warp_affine_by_instructions(in.view(), map, quick.view());
    EXPECT_EQ(portable.pixels(), quick.pixels()) << i;
  }
}

TEST(WarpAffine, ReadsNothingBehindTheLastPixel) {
  // The last output pixel looks between the last four of the input; asan tells.
  const Image in = noise(16, 16);
  const Affine half{{1, 0, 0.5, 0, 1, 0.5}};
  EXPECT_LE(largest_error(in.view(), half, warped(in.view(), half, {15, 15})), 0.54);
}

TEST(WarpAffine, BytesAreTheSameOnEveryMachine) {
  const Image out = warped(noise(50, 70).view(), {{0.9, 0.2, -3.3, -0.15, 1.1, 2.7}}, {60, 61});
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (const std::uint8_t value : out.pixels()) hash = (hash ^ value) * 16777619U;
  EXPECT_EQ(hash, 3426771780U);
}

TEST(WarpAffine, ReadsAndWritesRowsOfAnyStride) {
  const Image in = noise(60, 60);
  const Affine map = turn({30, 33}, 12, 0.9, 2, -1);
  Image part(30, 33);
  copy_image({in.view().row(29) + 27 * kChannels, 30, 33, in.view().stride}, part.view());
  const Image expected = warped(part.view(), map, {20, 27});
  // The right lower corner of an image, into the middle of another one.
  Image canvas(30, 40);
  std::fill(canvas.pixels().begin(), canvas.pixels().end(), 7);
  Image untouched = canvas;
  const ImageView target{canvas.view().row(2) + 3 * kChannels, 20, 27, canvas.view().stride};
  warp_affine({in.view().row(29) + 27 * kChannels, 30, 33, in.view().stride}, map, target);
  copy_image(expected.view(), {untouched.view().row(2) + 3 * kChannels, 20, 27, target.stride});
  EXPECT_EQ(canvas.pixels(), untouched.pixels());
  // Bottom up.
  Image turned(30, 33);
  for (int y = 0; y < 30; ++y) {
    std::memcpy(turned.view().row(y), part.view().row(29 - y), 33 * kChannels);
  }
  Image out(20, 27);
  warp_affine({turned.view().row(29), 30, 33, -turned.view().stride}, map, out.view());
  EXPECT_EQ(out.pixels(), expected.pixels());
}

TEST(WarpAffine, WildMatricesAndTinyImagesStayInside) {
  const double huge = std::numeric_limits<double>::max();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const ImageShape shape : {ImageShape{1, 1}, ImageShape{1, 50}, ImageShape{50, 1},
                                 ImageShape{2, 2}, ImageShape{3, 2}, ImageShape{30, 30}}) {
    Image in(shape.height, shape.width);
    std::fill(in.pixels().begin(), in.pixels().end(), 77);
    for (const Affine& map :
         {Affine{{1e30, 0, -1e30, 1e12, -1e30, 5}}, Affine{{1, 0, 1e300, 0, 1, -1e300}},
          Affine{{huge, huge, huge, huge, huge, huge}}, Affine{{-huge, huge, 0, 0, -huge, huge}},
          Affine{{infinity, -infinity, 0, 1e18, 1e18, infinity}}, Affine{{4e9, 3, 0, 4e9, 0, 0}}}) {
      const Image out = warped(in.view(), map, {40, 50});
      EXPECT_EQ(out.pixels(), std::vector<std::uint8_t>(std::size_t{40} * 50 * kChannels, 77));
    }
  }
}

}  // namespace
}  // namespace gp
