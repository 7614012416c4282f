#include "stages/torch/adaptive_augment.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

TEST(AdaptiveAugment, MovesUpWhenRealsAreToldTooWell) {
  AdaptiveAugment control({.target = 0.6, .interval = 4, .speed_kimg = 1});
  for (int step = 0; step < 3; ++step) control.add(at::ones({8}));
  EXPECT_EQ(control.p(), 0);
  control.add(at::ones({8}));
  EXPECT_DOUBLE_EQ(control.p(), 0.032);
  EXPECT_EQ(control.r_t(), 1);
}

TEST(AdaptiveAugment, MovesDownAndNotBelowZero) {
  AdaptiveAugment control({.target = 0.6, .interval = 1, .speed_kimg = 1});
  for (int step = 0; step < 10; ++step) control.add(at::ones({8}));
  EXPECT_NEAR(control.p(), 0.08, 1e-12);
  // Half of the signs are positive: r_t is 0.
  const at::Tensor half = at::tensor({3.0F, -1.0F, 2.0F, -4.0F, 1.0F, -1.0F, 5.0F, -5.0F});
  control.add(half);
  EXPECT_NEAR(control.p(), 0.072, 1e-12);
  EXPECT_EQ(control.r_t(), 0);
  for (int step = 0; step < 20; ++step) control.add(half);
  EXPECT_EQ(control.p(), 0);
}

TEST(AdaptiveAugment, StaysWhereTheTargetIsMet) {
  AdaptiveAugment control({.target = 0.5, .interval = 1, .speed_kimg = 1});
  control.add(at::ones({8}));
  const double p = control.p();
  control.add(at::tensor({1.0F, 1.0F, 1.0F, -1.0F}));
  EXPECT_EQ(control.r_t(), 0.5);
  EXPECT_EQ(control.p(), p);
}

TEST(AdaptiveAugment, SpeedIsTheImagesFromZeroToOne) {
  AdaptiveAugment control({.target = 0.6, .interval = 4, .speed_kimg = 2});
  int images = 0;
  while (control.p() < 1 - 1e-9 && images < 10000) {
    control.add(at::ones({20}));
    images += 20;
  }
  EXPECT_EQ(images, 2000);
  for (int step = 0; step < 8; ++step) control.add(at::ones({20}));
  EXPECT_EQ(control.p(), 1);
}

TEST(AdaptiveAugment, ItsLimit) {
  AdaptiveAugment control({.interval = 1, .speed_kimg = 0.1, .max_p = 0.75});
  for (int step = 0; step < 20; ++step) control.add(at::ones({20}));
  EXPECT_EQ(control.p(), 0.75);
}

TEST(AdaptiveAugment, GoesOnFromAState) {
  const auto logits = [](std::uint64_t step) {
    return normal_tensor({16}, {1, "logits", step}) + (step % 13 < 7 ? 2.0 : 0.2);
  };
  const AdaptiveAugment::Options options{.speed_kimg = 1};
  AdaptiveAugment whole(options);
  AdaptiveAugment first(options);
  for (std::uint64_t step = 0; step < 22; ++step) {
    whole.add(logits(step));
    first.add(logits(step));
  }
  AdaptiveAugment second(options);
  const auto state = first.state();
  for (const auto& [name, tensor] : second.state()) tensor.copy_(state.at(name));
  for (std::uint64_t step = 22; step < 60; ++step) {
    whole.add(logits(step));
    second.add(logits(step));
    ASSERT_EQ(second.p(), whole.p());
    ASSERT_EQ(second.r_t(), whole.r_t());
  }
  EXPECT_GT(whole.p(), 0);
  EXPECT_EQ(first.state().at("steps").item<double>(), 2);
}

}  // namespace
}  // namespace gp
