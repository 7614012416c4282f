#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gp {

struct PlotSeries {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
};

/// A line chart with named axes and a legend, as PNG (PLplot with its cairo driver).
struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<PlotSeries> series;
  bool y_from_zero = false;  ///< the y axis includes 0, so that heights compare
};

/// Temporary name, rename. Points that are not finite are left out. Throws RunError.
void write_plot(const std::filesystem::path& path, const Plot& plot);

}  // namespace gp
