#include "stages/torch/bootstrap.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace gp {
namespace {

TEST(Bootstrap, EveryResampleHasAsManyVectors) {
  const at::Tensor counts = resample_counts(200, 50, "a");
  ASSERT_EQ(counts.sizes(), (at::IntArrayRef{200, 50}));
  EXPECT_TRUE(at::equal(counts.sum(0), at::full({50}, 200, at::kDouble)));
  // A share of (1 - 1/n)^n is not drawn: 36.7 %, known to 0.4 % from 50 sets.
  EXPECT_NEAR(counts.eq(0).to(at::kDouble).mean().item<double>(), 0.367, 0.015);
  EXPECT_NEAR(counts.mean(1).var().item<double>(), 1 / 50.0, 0.01);  // every vector alike
  EXPECT_TRUE(at::equal(counts, resample_counts(200, 50, "a")));
  EXPECT_FALSE(at::equal(counts, resample_counts(200, 50, "b")));
  EXPECT_FALSE(at::equal(counts.select(1, 0), counts.select(1, 1)));
}

TEST(Bootstrap, IntervalsAreStudents) {
  const auto half = [](int resamples) {
    const Interval interval = confidence_interval(10, 2, resamples);
    EXPECT_DOUBLE_EQ(interval.low + interval.high, 20);
    return (interval.high - interval.low) / 4;
  };
  EXPECT_NEAR(half(2), 12.706, 0.001);
  EXPECT_NEAR(half(3), 4.3027, 0.001);
  EXPECT_NEAR(half(4), 3.1824, 0.01);
  EXPECT_NEAR(half(10), 2.2622, 0.0005);
  EXPECT_NEAR(half(20), 2.0930, 0.0002);
  EXPECT_NEAR(half(100), 1.9842, 0.0001);
}

}  // namespace
}  // namespace gp
