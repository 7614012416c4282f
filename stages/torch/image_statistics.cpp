#include "stages/torch/image_statistics.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace gp {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// |Largest channel| below which a pixel is zero and, by its mean, a strip or square one of zeros.
/// Zeros in uint8 would be 127.5: no real has exactly them, and G's tanh hits them only nearly.
constexpr double kFlat = 0.06;
constexpr std::int64_t kMostCompared = 128;

double leak(double fakes, double reals, double augmented, double least) {
  const double added = augmented - reals;
  return added >= least ? std::clamp((fakes - reals) / added, -2.0, 2.0) : kNan;
}

}  // namespace

ImageStatistics image_statistics(const at::Tensor& images) {
  TORCH_CHECK(images.dim() == 4 && images.size(0) > 0 && images.size(1) == 3 &&
                  images.size(2) == images.size(3) && images.size(2) > 0 && images.size(2) % 8 == 0,
              "image_statistics: the images are ", images.sizes(),
              "; expected [N,3,S,S], S a multiple of 8");
  const at::NoGradGuard no_grad;
  const std::int64_t count = images.size(0), side = images.size(2);
  const at::Tensor x = images.detach().to(at::kFloat);

  // Distances, each computed by itself: by a product of matrices those of copies would be noise.
  at::Tensor distance = at::full({}, kNan, x.options()), nearest = distance;
  if (const std::int64_t compared = std::min(count, kMostCompared); compared > 1) {
    const at::Tensor flat =
        at::avg_pool2d(x.slice(0, 0, compared), side / 8).reshape({compared, -1});
    const at::Tensor distances = at::cdist(flat, flat, 2, 2);
    distance = distances.sum() / static_cast<double>(compared * (compared - 1));
    nearest = (distances + at::diag(at::full({compared}, 1e9, x.options()))).amin(1).mean();
  }

  const at::Tensor largest = x.abs().amax(1, true);  // [N,1,S,S]
  const at::Tensor brightness = x.mean(1, true);
  const at::Tensor seen = largest.gt(kFlat).to(at::kFloat);
  const at::Tensor pixels = seen.sum({1, 2, 3}).clamp_min(1);
  const at::Tensor light = (brightness * seen).sum({1, 2, 3}) / pixels;
  const at::Tensor saturation =
      ((x - brightness).abs().mean(1, true) * seen).sum({1, 2, 3}) / pixels;
  const auto variance = [&](const at::Tensor& values) {
    return count > 1 ? values.var() : at::full({}, kNan, x.options());
  };

  const std::int64_t width = std::max<std::int64_t>(1, side / 32);
  at::Tensor strip = largest.narrow(2, 0, width).mean({1, 2, 3});
  for (const at::Tensor& border :
       {largest.narrow(2, side - width, width), largest.narrow(3, 0, width),
        largest.narrow(3, side - width, width)}) {
    strip = at::minimum(strip, border.mean({1, 2, 3}));
  }
  const at::Tensor block =
      at::avg_pool2d(largest, side / 4, std::max<std::int64_t>(1, side / 16)).amin({1, 2, 3});

  const at::Tensor values =
      at::stack({distance, nearest, variance(light), variance(saturation),
                 strip.lt(kFlat).to(at::kFloat).mean(), block.lt(kFlat).to(at::kFloat).mean()})
          .cpu();
  const float* const value = values.const_data_ptr<float>();
  return {value[0], value[1], value[2], value[3], value[4], value[5]};
}

double diversity_of(const ImageStatistics& fakes, const ImageStatistics& reals) {
  if (!(reals.distance > 0) || !(reals.nearest > 0)) return kNan;
  return std::sqrt(fakes.distance / reals.distance * (fakes.nearest / reals.nearest));
}

LeakMeasures leaks_of(const ImageStatistics& fakes, const ImageStatistics& reals,
                      const ImageStatistics& augmented) {
  // Variances, because independent ones add up. Below a quarter of the reals' own, the noise of a
  // batch is larger; absolutely, below a level of uint8. Shares: a tenth is three images of 32.
  const auto variance_leak = [](double fake, double real, double other) {
    return leak(fake, real, other, std::max(real / 4, 1e-4));
  };
  const double light = variance_leak(fakes.brightness_variance, reals.brightness_variance,
                                     augmented.brightness_variance);
  const double saturation = variance_leak(fakes.saturation_variance, reals.saturation_variance,
                                          augmented.saturation_variance);
  LeakMeasures leaks;
  leaks.colour = std::isnan(light)        ? saturation
                 : std::isnan(saturation) ? light
                                          : (light + saturation) / 2;
  leaks.translation = leak(fakes.border_share, reals.border_share, augmented.border_share, 0.1);
  leaks.cutout = leak(fakes.block_share, reals.block_share, augmented.block_share, 0.1);
  return leaks;
}

}  // namespace gp
