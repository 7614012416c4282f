#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pipeline/plugin_sdk.hpp"

// torchvision's RandomResizedCrop, back to the size of the input. It is a map, so the host joins it
// with its neighbours; at the window's edge it blends with the real pixels outside.
struct RandomResizedCrop {
  static constexpr auto name = "augment.crop";
  static constexpr auto doc = "Enlarges a random part of the image to the whole image's size.";
  static constexpr bool random = true;

  double p = 1, scale_min = 0.5, scale_max = 1, ratio_min = 0.75, ratio_max = 4.0 / 3;

  static void params(gp::sdk::Params<RandomResizedCrop>& params) {
    using T = RandomResizedCrop;
    params.add("p", &T::p, "probability", 0, 1);
    params.add("scale_min", &T::scale_min, "smallest part, as a share of the area", 0.001, 1);
    params.add("scale_max", &T::scale_max, "largest part, as a share of the area", 0.001, 1);
    params.add("ratio_min", &T::ratio_min, "smallest width / height of the part", 0.01, 100);
    params.add("ratio_max", &T::ratio_max, "largest width / height of the part", 0.01, 100);
  }

  void init() {
    if (scale_min > scale_max) throw std::invalid_argument("scale_min is greater than scale_max");
    if (ratio_min > ratio_max) throw std::invalid_argument("ratio_min is greater than ratio_max");
  }

  /// The map of the window (left, top, width, height) to an image of size `in`.
  static gp::sdk::Matrix enlarge(gp::sdk::Size in, int left, int top, int width, int height) {
    const double x = static_cast<double>(width) / in.width;
    const double y = static_cast<double>(height) / in.height;
    return {{x, 0, left + (x - 1) / 2, 0, y, top + (y - 1) / 2}};
  }

  gp::sdk::Matrix matrix(gp::sdk::Host& host, gp::sdk::Size in) const {
    if (!host.chance(p)) return {};
    for (int tries = 0; tries < 10; ++tries) {
      const double area = host.uniform(scale_min, scale_max) * in.width * in.height;
      const double ratio = std::exp(host.uniform(std::log(ratio_min), std::log(ratio_max)));
      const int width = static_cast<int>(std::lround(std::sqrt(area * ratio)));
      const int height = static_cast<int>(std::lround(std::sqrt(area / ratio)));
      if (width < 1 || width > in.width || height < 1 || height > in.height) continue;
      const int top = static_cast<int>(host.uniform() * (in.height - height + 1));
      const int left = static_cast<int>(host.uniform() * (in.width - width + 1));
      return enlarge(in, left, top, width, height);
    }
    // No window fits: the largest one in the middle whose ratio is allowed.
    const double ratio = static_cast<double>(in.width) / in.height;
    const double wanted = std::clamp(ratio, ratio_min, ratio_max);
    const int width = ratio > wanted ? static_cast<int>(std::lround(in.height * wanted)) : in.width;
    const int height =
        ratio < wanted ? static_cast<int>(std::lround(in.width / wanted)) : in.height;
    return enlarge(in, (in.width - width) / 2, (in.height - height) / 2, std::max(width, 1),
                   std::max(height, 1));
  }
};

GP_PLUGIN("augment_crop", "1.0.0", RandomResizedCrop)
