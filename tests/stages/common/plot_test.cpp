#include "stages/common/plot.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/stages/common/decode_png.hpp"

#if defined(__SANITIZE_ADDRESS__)
// PLplot, Pango (on a thread of its own) and fontconfig keep caches for the life of the process,
// and PLplot unloads the driver that points to them, so they look like leaks. They do not grow from
// plot to plot; plot.cpp itself allocates nothing by hand.
extern "C" int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() { return 1; }
#endif

namespace gp {
namespace {

constexpr std::uint8_t kBlue[3] = {0, 114, 178};
constexpr std::uint8_t kVermilion[3] = {213, 94, 0};
constexpr std::uint8_t kGreen[3] = {0, 158, 115};

class PlotTest : public ::testing::Test {
 protected:
  PlotTest() {
    // GP_KEEP_PLOTS=DIR keeps the pictures, to look at.
    const char* keep = std::getenv("GP_KEEP_PLOTS");
    keep_ = keep != nullptr;
    folder_ = keep_ ? std::filesystem::path(keep)
                    : std::filesystem::temp_directory_path() /
                          ("gp_plot_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~PlotTest() override {
    if (!keep_) std::filesystem::remove_all(folder_);
  }

  Image draw(const Plot& plot, const std::string& name) {
    write_plot(folder_ / name, plot);
    return decode_png(read_file(folder_ / name));
  }

  std::filesystem::path folder_;
  bool keep_ = false;
};

/// Pixels of exactly this colour with x in [left, right) and y in [top, bottom).
int count_colour(const Image& image, const std::uint8_t (&rgb)[3], int left = 0,
                 int right = 1 << 20, int top = 0, int bottom = 1 << 20) {
  int count = 0;
  for (int y = top; y < std::min(bottom, image.shape().height); ++y) {
    for (int x = left; x < std::min(right, image.shape().width); ++x) {
      const std::uint8_t* p = image.view().row(y) + x * kChannels;
      if (p[0] == rgb[0] && p[1] == rgb[1] && p[2] == rgb[2]) ++count;
    }
  }
  return count;
}

/// Pixels that are nearly black in the given rectangle: text and axes.
int count_ink(const Image& image, int left, int right, int top, int bottom) {
  int count = 0;
  for (int y = top; y < bottom; ++y) {
    for (int x = left; x < right; ++x) {
      const std::uint8_t* p = image.view().row(y) + x * kChannels;
      if (p[0] < 100 && p[1] < 100 && p[2] < 100) ++count;
    }
  }
  return count;
}

Plot losses() {
  Plot plot{
      "Losses of 'aircraft'", "step", "loss", {{"discriminator", {}, {}}, {"generator", {}, {}}}};
  for (int i = 0; i <= 400; ++i) {
    const double step = i * 78;
    plot.series[0].x.push_back(step);
    plot.series[0].y.push_back(0.35 + 0.4 * std::exp(-i / 40.0) + 0.05 * std::sin(i * 1.7));
    plot.series[1].x.push_back(step);
    plot.series[1].y.push_back(1.0 + 2.5 * i / 400.0 + 0.3 * std::sin(i * 2.3));
  }
  return plot;
}

TEST_F(PlotTest, ShowsEverySeriesAxesAndLegend) {
  const Image image = draw(losses(), "loss.png");
  ASSERT_EQ(image.shape(), (ImageShape{640, 1000}));
  const std::uint8_t* corner = image.view().row(0);
  EXPECT_EQ(corner[0] + corner[1] + corner[2], 3 * 255) << "white paper";
  // The curves, inside the axes.
  EXPECT_GT(count_colour(image, kBlue, 100, 970, 100, 550), 500);
  EXPECT_GT(count_colour(image, kVermilion, 100, 970, 100, 550), 500);
  // The legend's line samples, above the axes.
  EXPECT_GT(count_colour(image, kBlue, 70, 970, 55, 85), 20);
  EXPECT_GT(count_colour(image, kVermilion, 70, 970, 55, 85), 20);
  EXPECT_EQ(count_colour(image, kGreen), 0);
  // Words: title, x label under the axis, y label left of it.
  EXPECT_GT(count_ink(image, 80, 400, 10, 50), 100);
  EXPECT_GT(count_ink(image, 400, 650, 600, 640), 20);
  EXPECT_GT(count_ink(image, 0, 40, 200, 450), 20);
}

TEST_F(PlotTest, CurvesGoWhereTheDataIs) {
  // One series along the top, one along the bottom.
  const Plot plot{"t", "x", "y", {{"low", {0, 1}, {0, 0}}, {"high", {0, 1}, {1, 1}}}};
  const Image image = draw(plot, "levels.png");
  EXPECT_GT(count_colour(image, kBlue, 100, 970, 450, 560), 500);
  EXPECT_EQ(count_colour(image, kBlue, 100, 970, 120, 400), 0);
  EXPECT_GT(count_colour(image, kVermilion, 100, 970, 86, 150), 500);
  EXPECT_EQ(count_colour(image, kVermilion, 100, 970, 200, 560), 0);
}

TEST_F(PlotTest, AxisIncludesZeroWhereAskedTo) {
  Plot plot{"t", "x", "y", {{"high", {0, 1}, {9, 10}}}};
  EXPECT_GT(count_colour(draw(plot, "range.png"), kBlue, 100, 970, 300, 560), 100);
  plot.y_from_zero = true;
  EXPECT_EQ(count_colour(draw(plot, "zero.png"), kBlue, 100, 970, 200, 560), 0);
}

TEST_F(PlotTest, LeavesOutPointsThatAreNotFinite) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  Plot plot{"gaps", "x", "y", {{"a", {}, {}}}};
  for (int i = 0; i < 100; ++i) {
    plot.series[0].x.push_back(i == 5 ? nan : i);
    plot.series[0].y.push_back(i >= 40 && i < 60 ? (i % 2 == 0 ? nan : -inf) : 1.0 + i % 2);
  }
  plot.series[0].y[50] = 1.5;  // alone between two gaps
  const Image image = draw(plot, "gaps.png");
  // x runs from about 95 to 975 for 0..99: the gap is empty but for the lone dot at its middle.
  EXPECT_GT(count_colour(image, kBlue, 100, 430), 500);
  EXPECT_GT(count_colour(image, kBlue, 650, 970), 500);
  EXPECT_EQ(count_colour(image, kBlue, 460, 520, 90, 560), 0);
  EXPECT_GT(count_colour(image, kBlue, 530, 555, 90, 560), 4);
}

TEST_F(PlotTest, LittleOrNothingToDrawIsFine) {
  EXPECT_EQ(draw({"", "", "", {}}, "nothing.png").shape().width, 1000);
  EXPECT_EQ(draw({"t", "x", "y", {{"empty", {}, {}}}}, "empty.png").shape().width, 1000);
  const Image one = draw({"t", "x", "y", {{"one", {3}, {1e9}}}}, "one.png");
  EXPECT_GT(count_colour(one, kBlue, 100, 970, 100, 550), 4) << "a single point is a dot";
  const Image flat = draw({"t", "x", "y", {{"flat", {1, 2}, {1e-300, 1e-300}}}}, "flat.png");
  EXPECT_GT(count_colour(flat, kBlue, 100, 970, 100, 550), 500);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(count_colour(draw({"t", "x", "y", {{"n", {1, 2}, {nan, nan}}}}, "nan.png"), kBlue, 100,
                         970, 100, 550),
            0);
}

TEST_F(PlotTest, ManySeriesAndOddTexts) {
  Plot plot{"50 % of #g, é and <b>", "x #1", "y \\ 2", {}};
  for (int s = 0; s < 9; ++s) {
    plot.series.push_back({"series #" + std::to_string(s), {0, 1, 2}, {1.0 * s, s + 1.0, s + 0.5}});
  }
  const Image image = draw(plot, "many.png");
  EXPECT_GT(count_colour(image, kGreen, 100, 970, 100, 550), 100);
}

TEST_F(PlotTest, SameInputSameBytes) {
  draw(losses(), "a.png");
  draw({"between", "x", "y", {{"one", {0, 1}, {0, 1}}}}, "between.png");
  draw(losses(), "b.png");
  EXPECT_EQ(read_file(folder_ / "a.png"), read_file(folder_ / "b.png"));
}

TEST_F(PlotTest, ThreadsMayPlotAtOnce) {
  draw(losses(), "reference.png");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back(
        [&, t] { write_plot(folder_ / ("t" + std::to_string(t) + ".png"), losses()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < 4; ++t) {
    EXPECT_EQ(read_file(folder_ / ("t" + std::to_string(t) + ".png")),
              read_file(folder_ / "reference.png"));
  }
}

TEST_F(PlotTest, SaysNothingOnStandardOutput) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  draw(losses(), "quiet.png");
  draw({"t", "x", "y", {{"one", {3}, {1e9}}}}, "quiet_one.png");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(PlotTest, Errors) {
  try {
    write_plot(folder_ / "x.png", {"t", "x", "y", {{"bad", {1, 2}, {1}}}});
    FAIL() << "expected an error";
  } catch (const RunError& error) {
    EXPECT_NE(std::string(error.what()).find("series 'bad' has 2 x and 1 y"), std::string::npos);
  }
  EXPECT_THROW(write_plot(folder_ / "no" / "x.png", losses()), RunError);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.png"));
}

}  // namespace
}  // namespace gp
