#include "stages/data/resize.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <opencv2/imgproc.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/crop.hpp"
#include "stages/data/stages.hpp"
#include "tests/stages/data/list_file.hpp"
#include "tests/stages/data/memory_output.hpp"

namespace gp {
namespace {

const std::string kFixtures = GP_SOURCE_DIR "/tests/stages/data/fixtures/resize/";

/// The same as picture() in make_fixtures.py.
Image picture(int height, int width) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      std::uint8_t* pixel = image.view().row(y) + x * kChannels;
      pixel[0] = static_cast<std::uint8_t>(x * 11 + y * 3);
      pixel[1] = static_cast<std::uint8_t>(y * 15 + x * x);
      pixel[2] = static_cast<std::uint8_t>((x + 2 * y) * 7);
    }
  }
  return image;
}

RectF whole(const Image& image) { return Geometry::whole(image.shape()).region; }

int largest_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  int largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

TEST(Resize, MatchesPillow) {
  const Image in = picture(31, 45);
  const auto rows = read_table(kFixtures + "list.tsv");
  ASSERT_EQ(rows.size(), 29U);
  for (const auto& row : rows) {
    SCOPED_TRACE(row[0]);
    const double left = std::stod(row[2]);
    const double top = std::stod(row[3]);
    const RectF region{left, top, std::stod(row[4]) - left, std::stod(row[5]) - top};
    const ResizeFilter filter = resize_filter(row[1]);
    Image out(std::stoi(row[7]), std::stoi(row[6]));
    resize(in.view(), region, filter, out.view());
    // Pillow's own filters byte for byte. The mean is rounded twice here, once there.
    EXPECT_LE(largest_difference(out.pixels(), read_file(kFixtures + row[0] + ".rgb")),
              filter == ResizeFilter::kArea ? 1 : 0);
  }
}

TEST(Resize, AreaIsTheExactMeanOfEachFootprint) {
  const Image in = picture(174, 256);
  const RectF region{0.3, 0, 255.4, 168.75};
  Image out(128, 128);
  resize_area(in.view(), region, out.view());
  const double wide = region.width / 128;
  const double high = region.height / 128;
  double worst = 0;
  for (int y = 0; y < 128; ++y) {
    for (int x = 0; x < 128; ++x) {
      const double x0 = region.x + x * wide;
      const double y0 = region.y + y * high;
      double sums[kChannels] = {};
      for (int v = static_cast<int>(y0); v < std::ceil(y0 + high) && v < in.shape().height; ++v) {
        for (int u = static_cast<int>(x0); u < std::ceil(x0 + wide) && u < in.shape().width; ++u) {
          const double share = (std::min(u + 1.0, x0 + wide) - std::max<double>(u, x0)) *
                               (std::min(v + 1.0, y0 + high) - std::max<double>(v, y0));
          for (int c = 0; c < kChannels; ++c) sums[c] += share * in.view().row(v)[u * 3 + c];
        }
      }
      for (int c = 0; c < kChannels; ++c) {
        const double exact = sums[c] / (wide * high);
        worst = std::max(worst, std::abs(exact - out.view().row(y)[x * 3 + c]));
      }
    }
  }
  EXPECT_LE(worst, 1.0);
}

TEST(Resize, AreaAgreesWithOpenCv) {
  Image in = picture(174, 256);
  Image ours(64, 100);
  resize_area(in.view(), whole(in), ours.view());
  cv::Mat theirs;
  cv::resize(cv::Mat(174, 256, CV_8UC3, in.pixels().data()), theirs, {100, 64}, 0, 0,
             cv::INTER_AREA);
  EXPECT_LE(largest_difference(ours.pixels(), {theirs.data, theirs.data + theirs.total() * 3}), 1);
}

TEST(Resize, SameSizeIsACopy) {
  const Image in = picture(31, 45);
  for (const ResizeFilter filter :
       {ResizeFilter::kArea, ResizeFilter::kBox, ResizeFilter::kBilinear, ResizeFilter::kBicubic,
        ResizeFilter::kLanczos}) {
    Image out(31, 45);
    resize(in.view(), whole(in), filter, out.view());
    EXPECT_EQ(out.pixels(), in.pixels());
  }
}

TEST(Resize, RegionOutsideTheImageIsClippedOrRefused) {
  const Image in = picture(10, 10);
  Image expected(5, 5);
  resize_area(in.view(), {0, 0, 10, 10}, expected.view());
  Image out(5, 5);
  resize_area(in.view(), {-1e-9, -1e-9, 10 + 1e-8, 10 + 1e-8}, out.view());
  EXPECT_EQ(out.pixels(), expected.pixels());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const RectF& region : {RectF{10, 0, 5, 5}, RectF{0, 0, 0, 5}, RectF{0, 0, 5, -1},
                              RectF{nan, 0, 5, 5}, RectF{0, 0, nan, 5}, RectF{infinity, 0, 5, 5}}) {
    EXPECT_THROW(resize_area(in.view(), region, out.view()), SampleError);
  }
}

TEST(Resize, ReadsAndWritesRowsOfAnyStride) {
  const Image in = picture(30, 40);
  Image expected(8, 8);
  resize_area(in.view(), {10, 5, 20, 20}, expected.view());
  // The same rectangle as a view into the image, the same target as a part of a larger one.
  const ConstImageView part{in.view().row(5) + 10 * kChannels, 20, 20, in.view().stride};
  Image canvas(12, 12);
  resize_area(part, {0, 0, 20, 20},
              {canvas.view().row(2) + 3 * kChannels, 8, 8, canvas.view().stride});
  for (int y = 0; y < 8; ++y) {
    EXPECT_EQ(std::memcmp(canvas.view().row(y + 2) + 3 * kChannels, expected.view().row(y), 24), 0);
  }
}

TEST(ResizeToSquare, CropTakesTheCentre) {
  const Image in = picture(20, 40);
  Image expected(10, 10);
  resize_area(in.view(), {10, 0, 20, 20}, expected.view());
  Image out(10, 10);
  resize_to_square(in.view(), whole(in), 1, ResizeFit::kCrop, ResizeFilter::kArea, out.view());
  EXPECT_EQ(out.pixels(), expected.pixels());
  resize_area(in.view(), {4, 6, 8, 8}, expected.view());
  resize_to_square(in.view(), {4, 0, 8, 20}, 1, ResizeFit::kCrop, ResizeFilter::kArea, out.view());
  EXPECT_EQ(out.pixels(), expected.pixels());
}

TEST(ResizeToSquare, PadCentresOnBlack) {
  const Image in = picture(20, 40);
  Image expected(5, 10);
  resize_area(in.view(), whole(in), expected.view());
  Image out(10, 10);
  std::fill(out.pixels().begin(), out.pixels().end(), std::uint8_t{99});
  resize_to_square(in.view(), whole(in), 1, ResizeFit::kPad, ResizeFilter::kArea, out.view());
  for (int y = 0; y < 10; ++y) {
    const std::vector<std::uint8_t> row(out.view().row(y), out.view().row(y) + 30);
    if (y >= 2 && y < 7) {
      EXPECT_EQ(row, std::vector<std::uint8_t>(expected.view().row(y - 2),
                                               expected.view().row(y - 2) + 30));
    } else {
      EXPECT_EQ(row, std::vector<std::uint8_t>(30, 0));
    }
  }
  // However thin, something of it is seen.
  const Image thin = picture(2, 3000);
  resize_to_square(thin.view(), whole(thin), 1, ResizeFit::kPad, ResizeFilter::kArea, out.view());
  EXPECT_NE(out.pixels(), std::vector<std::uint8_t>(300, 0));
}

TEST(ResizeStage, SamplesTheRegionOfTheSource) {
  const auto stage = make_transform(image_resize_info(), {{"size", std::int64_t{16}}});
  EXPECT_EQ(stage->output_shape({}), (ImageShape{16, 16}));
  EXPECT_TRUE(stage->reads_region());
  const Image in = picture(50, 80);  // decoded at 1/4
  const Geometry geometry{320, 200, {8, 0, 300, 180}};
  MemoryOutput out;
  Rng rng(1, "test", 0);
  stage->process({SampleInfo{}, {}, in.view(), geometry}, rng, out);
  Image expected(16, 16);
  resize_area(in.view(), {2, 0, 75, 45}, expected.view());
  EXPECT_EQ(out.pixels.pixels(), expected.pixels());
  EXPECT_FALSE(out.geometry.has_value());  // the whole of the new image
}

TEST(ResizeStage, FitLooksAtTheShapeOfTheSource) {
  // 7 rows for 25 of the source, 10 columns for 40: pixels are not square.
  const auto stage = make_transform(image_resize_info(),
                                    {{"size", std::int64_t{8}}, {"fit", std::string("crop")}});
  const Image in = picture(7, 10);
  MemoryOutput out;
  Rng rng(1, "test", 0);
  stage->process({SampleInfo{}, {}, in.view(), {40, 25, {0, 0, 40, 25}}}, rng, out);
  Image expected(8, 8);
  resize_area(in.view(), {7.5 / 4, 0, 25.0 / 4, 7}, expected.view());
  EXPECT_LE(largest_difference(out.pixels.pixels(), expected.pixels()), 1);
}

TEST(ResizeStage, AsksForItsSize) {
  const auto stage = make_transform(image_resize_info(), {{"size", std::int64_t{96}}});
  const SizeDemand demand = stage->demand({});
  EXPECT_FALSE(demand.full);
  EXPECT_EQ(demand.region, (ImageShape{96, 96}));
  const auto crop = make_transform(image_crop_info(), {{"bottom", 20.0}, {"left", 3.0}});
  const SizeDemand above = crop->demand(demand);
  EXPECT_FALSE(above.full);
  EXPECT_EQ(above.region, (ImageShape{96, 96}));
  EXPECT_EQ(above.crop_bottom, 20);
  EXPECT_EQ(above.crop_left, 3);
}

TEST(CropStage, NarrowsTheRegionAndLeavesThePixels) {
  const auto stage =
      make_transform(image_crop_info(), {{"bottom", 20.0}, {"left", 1.5}, {"top", 2.0}});
  EXPECT_TRUE(stage->reads_region());
  const Image in = picture(50, 80);
  MemoryOutput out;
  Rng rng(1, "test", 0);
  stage->process({SampleInfo{}, {}, in.view(), {320, 200, {8, 0, 300, 180}, {8, 0, 300, 180}}}, rng,
                 out);
  EXPECT_TRUE(out.passed);
  ASSERT_TRUE(out.geometry.has_value());
  EXPECT_EQ(out.geometry->region, (RectF{9.5, 2, 298.5, 158}));
  EXPECT_EQ(out.geometry->source_width, 320);
}

TEST(CropStage, OfABoxRemainsWhatLiesWithinTheMarginsToo) {
  Geometry geometry = Geometry::whole({200, 320});
  geometry.region = {10, 40, 300, 150};
  // Margins count from the sides of the image: 20 off its bottom end at 180, the box at 190.
  geometry = crop(geometry, {0, 0, 0, 20});
  EXPECT_EQ(geometry.region, (RectF{10, 40, 300, 140}));
  EXPECT_EQ(geometry.frame, (RectF{0, 0, 320, 180}));
  // The second crop goes on where the first ended.
  geometry = crop(geometry, {30, 8, 5, 20});
  EXPECT_EQ(geometry.region, (RectF{30, 40, 280, 120}));
  EXPECT_EQ(geometry.frame, (RectF{30, 8, 285, 152}));
  EXPECT_THROW(crop(geometry, {0, 0, 0, 121}), SampleError);
  EXPECT_NO_THROW(crop(geometry, {0, 0, 0, 119}));
}

TEST(CropStage, NothingLeftIsABadSample) {
  const auto stage = make_transform(image_crop_info(), {{"bottom", 20.0}, {"top", 30.0}});
  const Image in = picture(50, 80);
  MemoryOutput out;
  Rng rng(1, "test", 0);
  try {
    stage->process({SampleInfo{}, {}, in.view(), Geometry::whole({50, 80})}, rng, out);
    FAIL();
  } catch (const SampleError& error) {
    EXPECT_STREQ(error.what(),
                 "crop of left 0, top 30, right 0, bottom 20 leaves nothing of an area of 80x50 "
                 "source pixels");
  }
}

}  // namespace
}  // namespace gp
