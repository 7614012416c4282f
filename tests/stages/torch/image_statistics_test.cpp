#include "stages/torch/image_statistics.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "pipeline/rng.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

constexpr int kSide = 64;
constexpr int kCount = 32;

/// Photograph-like: smooth random fields, each image with its own mean colour.
at::Tensor pictures(std::uint64_t number, int count = kCount, int side = kSide) {
  const at::Tensor coarse = normal_tensor({count, 3, 4, 4}, {1, "coarse", number}) * 0.3;
  const at::Tensor mean = normal_tensor({count, 3, 1, 1}, {1, "mean", number}) * 0.15;
  const at::Tensor fine = normal_tensor({count, 3, side, side}, {1, "fine", number}) * 0.08;
  return (at::upsample_bilinear2d(coarse, {side, side}, false) + mean + fine + 0.15)
      .clamp(-1, 1)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

struct Policy {
  bool colour = false, translation = false, cutout = false;
};

/// Zhao et al. 2020, image by image.
at::Tensor augmented(const at::Tensor& images, const Policy& policy, std::uint64_t number) {
  at::Tensor all = images.clone();
  const std::int64_t side = images.size(2);
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    Rng rng(2, "augment", number * 1000 + static_cast<std::uint64_t>(i));
    const auto uniform = [&] { return static_cast<double>(rng.below(1 << 20)) / (1 << 20); };
    at::Tensor x = all[i].clone();
    if (policy.colour) {
      x = x + (uniform() - 0.5);
      const at::Tensor gray = x.mean(0, true);
      x = (x - gray) * (2 * uniform()) + gray;
      x = (x - x.mean()) * (uniform() + 0.5) + x.mean();
    }
    if (policy.translation) {
      const auto shift = [&] {
        return static_cast<std::int64_t>(rng.below(static_cast<std::uint32_t>(side / 4 + 1))) -
               side / 8;
      };
      for (const std::int64_t axis : {1, 2}) {
        const std::int64_t by = shift(), kept = side - std::abs(by);
        at::Tensor moved = at::zeros_like(x);
        moved.narrow(axis, std::max<std::int64_t>(by, 0), kept)
            .copy_(x.narrow(axis, std::max<std::int64_t>(-by, 0), kept));
        x = moved;
      }
    }
    if (policy.cutout) {
      const auto range = [&] {
        const auto centre =
            static_cast<std::int64_t>(rng.below(static_cast<std::uint32_t>(side + 1)));
        return std::pair{std::max<std::int64_t>(centre - side / 4, 0),
                         std::min(centre + side / 4, side)};
      };
      const auto [top, bottom] = range();
      const auto [left, right] = range();
      x.slice(1, top, bottom).slice(2, left, right).zero_();
    }
    all[i].copy_(x);
  }
  return all;
}

/// Means over a few batches.
LeakMeasures mean_leaks(const Policy& fake, const Policy& d) {
  LeakMeasures sum;
  constexpr int kBatches = 8;
  for (int i = 0; i < kBatches; ++i) {
    const auto number = static_cast<std::uint64_t>(i);
    const at::Tensor reals = pictures(number);
    // A network gives zeros and range not exactly.
    const at::Tensor fakes = (augmented(pictures(100 + number), fake, 1000 + number) +
                              0.02 * normal_tensor({kCount, 3, kSide, kSide}, {1, "error", number}))
                                 .clamp(-1, 1);
    const LeakMeasures leaks = leaks_of(image_statistics(fakes), image_statistics(reals),
                                        image_statistics(augmented(reals, d, 2000 + number)));
    sum.colour += leaks.colour / kBatches;
    sum.translation += leaks.translation / kBatches;
    sum.cutout += leaks.cutout / kBatches;
  }
  return sum;
}

TEST(ImageStatistics, TellsDiverseBatchesFromCollapsedOnes) {
  const ImageStatistics reals = image_statistics(pictures(0));
  EXPECT_NEAR(diversity_of(image_statistics(pictures(1)), reals), 1, 0.15);
  // All nearly the same.
  const at::Tensor noise = 0.05 * normal_tensor({kCount, 3, kSide, kSide}, {1, "noise", 0});
  EXPECT_LT(diversity_of(image_statistics(pictures(1, 1) + noise), reals), 0.1);
  EXPECT_EQ(diversity_of(image_statistics(pictures(1, 1).repeat({kCount, 1, 1, 1})), reals), 0);
  // Copies of four pictures: pairs are far apart, but the nearest is not.
  const ImageStatistics four =
      image_statistics(pictures(1, 4).repeat({kCount / 4, 1, 1, 1}) + noise);
  EXPECT_GT(four.distance, reals.distance / 2);
  EXPECT_LT(diversity_of(four, reals), 0.25);
  EXPECT_TRUE(std::isnan(diversity_of(reals, image_statistics(at::zeros({4, 3, 16, 16})))));
  EXPECT_TRUE(std::isnan(image_statistics(pictures(0, 1)).distance));
}

TEST(ImageStatistics, DistancesAreThoseOfALoop) {
  const at::Tensor images = pictures(3, 5, 16);
  const at::Tensor flat = at::avg_pool2d(images, 2).reshape({5, -1});
  double sum = 0, nearest = 0;
  for (int i = 0; i < 5; ++i) {
    double least = 1e9;
    for (int j = 0; j < 5; ++j) {
      if (i == j) continue;
      const double distance = (flat[i] - flat[j]).norm().item<double>();
      sum += distance;
      least = std::min(least, distance);
    }
    nearest += least / 5;
  }
  EXPECT_NEAR(image_statistics(images).distance, sum / 20, 1e-5);
  EXPECT_NEAR(image_statistics(images).nearest, nearest, 1e-5);
}

TEST(ImageStatistics, NoLeakWhereFakesAreLikeReals) {
  const LeakMeasures leaks = mean_leaks({}, {true, true, true});
  EXPECT_NEAR(leaks.colour, 0, 0.25);
  EXPECT_NEAR(leaks.translation, 0, 0.05);
  EXPECT_NEAR(leaks.cutout, 0, 0.05);
}

TEST(ImageStatistics, AllLeaksWhereFakesAreLikeAugmentedReals) {
  const LeakMeasures leaks = mean_leaks({true, true, true}, {true, true, true});
  EXPECT_NEAR(leaks.colour, 1, 0.4);
  EXPECT_NEAR(leaks.translation, 1, 0.1);
  EXPECT_NEAR(leaks.cutout, 1, 0.2);
}

TEST(ImageStatistics, TellsTheLeaksApart) {
  const LeakMeasures colour = mean_leaks({true, false, false}, {true, true, true});
  EXPECT_GT(colour.colour, 0.5);
  EXPECT_LT(colour.translation, 0.1);
  EXPECT_LT(colour.cutout, 0.1);
  const LeakMeasures translation = mean_leaks({false, true, false}, {true, true, true});
  EXPECT_LT(translation.colour, 0.3);
  EXPECT_GT(translation.translation, 0.8);
  EXPECT_LT(translation.cutout, 0.1);
  const LeakMeasures cutout = mean_leaks({false, false, true}, {true, true, true});
  EXPECT_LT(cutout.colour, 0.3);
  EXPECT_LT(cutout.translation, 0.1);
  EXPECT_GT(cutout.cutout, 0.8);
}

TEST(ImageStatistics, LeaksAreUnknownWhereNothingIsAugmented) {
  const ImageStatistics reals = image_statistics(pictures(0));
  const LeakMeasures leaks = leaks_of(image_statistics(pictures(1)), reals, reals);
  EXPECT_TRUE(std::isnan(leaks.colour));
  EXPECT_TRUE(std::isnan(leaks.translation));
  EXPECT_TRUE(std::isnan(leaks.cutout));
}

TEST(ImageStatistics, TakesSmallAndHalfPreciseImagesButNoOtherShapes) {
  const ImageStatistics whole = image_statistics(pictures(0, 8, 16));
  const ImageStatistics half = image_statistics(pictures(0, 8, 16).to(at::kBFloat16));
  EXPECT_NEAR(half.distance, whole.distance, 0.02 * whole.distance);
  EXPECT_GT(image_statistics(pictures(0, 4, 8)).distance, 0);
  EXPECT_THROW(image_statistics(at::zeros({4, 3, 12, 12})), c10::Error);
  EXPECT_THROW(image_statistics(at::zeros({4, 1, 16, 16})), c10::Error);
}

}  // namespace
}  // namespace gp
