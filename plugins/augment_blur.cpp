#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "pipeline/plugin_sdk.hpp"

using gp::sdk::mirrored;

struct Blur {
  static constexpr auto name = "augment.blur";
  static constexpr auto doc =
      "Blurs the image with a Gaussian of random width; borders are mirrored.";
  static constexpr bool random = true;

  double p = 0.5, sigma_min = 0.1, sigma_max = 2;

  static void params(gp::sdk::Params<Blur>& params) {
    params.add("p", &Blur::p, "probability", 0, 1);
    params.add("sigma_min", &Blur::sigma_min, "smallest standard deviation, pixels", 0.01, 50);
    params.add("sigma_max", &Blur::sigma_max, "largest standard deviation, pixels", 0.01, 50);
  }

  void init() {
    if (sigma_min > sigma_max) throw std::invalid_argument("sigma_min is greater than sigma_max");
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (!host.chance(p)) return gp::sdk::copy(in, out);
    const double sigma = host.uniform(sigma_min, sigma_max);
    const int radius = static_cast<int>(std::ceil(3 * sigma));
    std::vector<float> kernel;
    float sum = 0;
    for (int i = -radius; i <= radius; ++i) {
      kernel.push_back(static_cast<float>(std::exp(-i * i / (2 * sigma * sigma))));
      sum += kernel.back();
    }
    for (float& weight : kernel) weight /= sum;
    // Down first, into one row with mirrored margins; then along it.
    const int values = 3 * in.width;
    std::vector<float> row(static_cast<std::size_t>(3) * (in.width + 2 * radius));
    float* middle = row.data() + static_cast<std::ptrdiff_t>(3) * radius;
    for (int y = 0; y < in.height; ++y) {
      std::fill(middle, middle + values, 0.0F);
      for (int k = -radius; k <= radius; ++k) {
        const std::uint8_t* from = in.row(mirrored(y + k, in.height));
        for (int i = 0; i < values; ++i) middle[i] += kernel[k + radius] * from[i];
      }
      for (int x = 1; x <= radius; ++x) {
        for (int c = 0; c < 3; ++c) {
          middle[-3 * x + c] = middle[3 * mirrored(-x, in.width) + c];
          middle[values - 3 + 3 * x + c] = middle[3 * mirrored(in.width - 1 + x, in.width) + c];
        }
      }
      for (int i = 0; i < values; ++i) {
        float value = 0.5F;
        for (int k = -radius; k <= radius; ++k) value += kernel[k + radius] * middle[i + 3 * k];
        out.row(y)[i] = static_cast<std::uint8_t>(std::min(value, 255.0F));
      }
    }
  }
};

GP_PLUGIN("augment_blur", "1.0.0", Blur)
