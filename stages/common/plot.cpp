#include "stages/common/plot.hpp"

#include <plplot/plplot.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string>

#include "pipeline/error.hpp"
#include "stages/common/png.hpp"

namespace gp {
namespace {

constexpr int kWidth = 1000;
constexpr int kHeight = 640;

struct Rgb {
  int r, g, b;
};

// Okabe and Ito's palette (jfly.uni-koeln.de/color), which stays distinct in the common forms of
// colour blindness, without its yellow, too faint on white. Neighbours differ in lightness too.
constexpr std::array<Rgb, 7> kSeriesColours = {{{0, 114, 178},
                                                {213, 94, 0},
                                                {0, 158, 115},
                                                {204, 121, 167},
                                                {86, 180, 233},
                                                {230, 159, 0},
                                                {0, 0, 0}}};

// Colour map 0: the paper, the ink, the grid, then the series.
constexpr int kInk = 1;
constexpr int kGridInk = 2;
constexpr int kFirstSeries = 3;

constexpr double kLeft = 0.085;  // left end of the axes, in widths of the picture

/// PLplot ends the process or asks on the terminal when a device is missing, so look before.
bool has_device(const char* name) {
  std::array<const char*, 256> menu{};
  std::array<const char*, 256> devices{};
  const char** menu_start = menu.data();
  const char** devices_start = devices.data();
  int count = static_cast<int>(devices.size());
  plgFileDevs(&menu_start, &devices_start, &count);
  return std::any_of(devices.begin(), devices.begin() + count, [&](const char* device) {
    return device != nullptr && std::strcmp(device, name) == 0;
  });
}

/// '#' starts PLplot's escapes; doubled it stands for itself.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    result += c;
    if (c == '#') result += c;
  }
  return result;
}

/// The range of the finite points of all series along one axis.
struct Range {
  double low = 0;
  double high = 1;
  bool any = false;

  void include(double value) {
    low = any ? std::min(low, value) : value;
    high = any ? std::max(high, value) : value;
    any = true;
  }
  /// Wider by `share` on both sides; a single value gets some room too.
  void pad(double share) {
    double margin = (high - low) * share;
    // PLplot refuses a window without extent, and one that vanishes beside its position.
    const double least = std::max(std::abs(low), std::abs(high)) * 1e-6;
    if (!(high - low > least)) margin = std::max({least, std::abs(low) * 0.1, 0.5});
    low -= margin;
    high += margin;
  }
};

/// Draws the stretches of finite points; a point between two gaps becomes a dot.
void draw_series(const PlotSeries& series) {
  const std::size_t n = series.x.size();
  for (std::size_t i = 0; i < n;) {
    std::size_t end = i;
    while (end < n && std::isfinite(series.x[end]) && std::isfinite(series.y[end])) ++end;
    if (end == i + 1) {
      plstring(1, &series.x[i], &series.y[i], "•");
    } else if (end > i) {
      plline(static_cast<PLINT>(end - i), &series.x[i], &series.y[i]);
    }
    i = end + 1;
  }
}

/// Line style (1: solid) that tells series apart once the colours repeat.
int line_style(std::size_t series) {
  return 1 + static_cast<int>(series / kSeriesColours.size()) % 8;
}

int legend_columns(const Plot& plot) {
  std::size_t longest = 0;
  for (const PlotSeries& series : plot.series) longest = std::max(longest, series.name.size());
  // A line sample and gaps take 85 pixels, a character about 11.
  const int fit = 900 / (85 + 11 * static_cast<int>(std::min<std::size_t>(longest, 80)));
  return std::clamp(fit, 1, std::max(1, static_cast<int>(plot.series.size())));
}

int legend_rows(const Plot& plot) {
  const int columns = legend_columns(plot);
  return (static_cast<int>(plot.series.size()) + columns - 1) / columns;
}

void draw_legend(const Plot& plot) {
  const auto n = static_cast<PLINT>(plot.series.size());
  if (n == 0) return;
  std::vector<std::string> names;
  for (const PlotSeries& series : plot.series) names.push_back(escaped(series.name));
  std::vector<const char*> texts;
  std::vector<PLINT> options, text_colours, colours, styles;
  std::vector<PLFLT> widths;
  for (std::size_t i = 0; i < names.size(); ++i) {
    texts.push_back(names[i].c_str());
    options.push_back(PL_LEGEND_LINE);
    text_colours.push_back(kInk);
    colours.push_back(kFirstSeries + static_cast<PLINT>(i % kSeriesColours.size()));
    styles.push_back(line_style(i));
    widths.push_back(2.5);
  }
  PLFLT width = 0;
  PLFLT height = 0;
  // Between title and axes, where it covers neither a curve nor the title.
  const PLINT rows = legend_rows(plot);
  pllegend(&width, &height, PL_LEGEND_ROW_MAJOR,
           PL_POSITION_LEFT | PL_POSITION_TOP | PL_POSITION_INSIDE | PL_POSITION_SUBPAGE,
           kLeft - 0.012, 0.085, 0.032, 0, kInk, 1, rows, legend_columns(plot), n, options.data(),
           0.6, 0.85, 2.0, 0.0, text_colours.data(), texts.data(), nullptr, nullptr, nullptr,
           nullptr, colours.data(), styles.data(), widths.data(), nullptr, nullptr, nullptr,
           nullptr);
}

/// Draws everything on PLplot's current, initialised stream.
void draw(const Plot& plot) {
  Range x;
  Range y;
  for (const PlotSeries& series : plot.series) {
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
      x.include(series.x[i]);
      y.include(series.y[i]);
    }
  }
  x.pad(0.01);
  if (plot.y_from_zero) y.include(0);
  y.pad(0.04);

  pladv(0);
  // The title's place is counted in the picture, so that it does not depend on the legend.
  plvpor(0, 1, 0, 1);
  plwind(0, 1, 0, 1);
  plcol0(kInk);
  plschr(0, 1.2);
  plptex(kLeft, 0.95, 1, 0, 0, escaped(plot.title).c_str());
  const double top = std::max(0.5, 0.905 - 0.05 * legend_rows(plot));
  plvpor(kLeft, 0.975, 0.125, top);
  plwind(x.low, x.high, y.low, y.high);
  plschr(0, 1.0);
  plcol0(kGridInk);
  plwidth(0.8);
  plbox("gt", 0, 0, "gt", 0, 0);
  plcol0(kInk);
  plwidth(1.2);
  // Up to seven digits before PLplot takes out a power of ten: steps are easier to read whole.
  plsxax(7, 0);
  plsyax(5, 0);
  plbox("bcnst", 0, 0, "bcnstv", 0, 0);
  plmtex("b", 3.2, 0.5, 0.5, escaped(plot.x_label).c_str());
  plmtex("l", 4.0, 0.5, 0.5, escaped(plot.y_label).c_str());
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    plcol0(kFirstSeries + static_cast<PLINT>(i % kSeriesColours.size()));
    pllsty(line_style(i));
    plwidth(2.0);
    draw_series(plot.series[i]);
  }
  pllsty(1);
  draw_legend(plot);
}

}  // namespace

void write_plot(const std::filesystem::path& path, const Plot& plot) {
  for (const PlotSeries& series : plot.series) {
    if (series.x.size() != series.y.size()) {
      throw RunError(path.string() + ": series '" + series.name + "' has " +
                     std::to_string(series.x.size()) + " x and " + std::to_string(series.y.size()) +
                     " y values; they must be as many");
    }
  }
  // PLplot keeps its state in globals.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!has_device("memcairo")) {
    throw RunError(path.string() +
                   ": PLplot has no cairo driver; install the Debian package plplot-driver-cairo");
  }
  // Drawn into memory, so that nothing but write_png touches the file.
  Image canvas(kHeight, kWidth);
  std::fill(canvas.pixels().begin(), canvas.pixels().end(), std::uint8_t{255});
  plsdev("memcairo");
  plsmem(kWidth, kHeight, canvas.pixels().data());
  std::vector<PLINT> r = {255, 40, 222};
  std::vector<PLINT> g = r;
  std::vector<PLINT> b = r;
  for (const Rgb& colour : kSeriesColours) {
    r.push_back(colour.r);
    g.push_back(colour.g);
    b.push_back(colour.b);
  }
  plscmap0(r.data(), g.data(), b.data(), static_cast<PLINT>(r.size()));
  plinit();
  plsfont(PL_FCI_SANS, PL_FCI_UPRIGHT, PL_FCI_MEDIUM);
  draw(plot);
  plend();
  write_png(path, canvas.view());
}

}  // namespace gp
