#include "stages/torch/gan_loss.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "pipeline/error.hpp"

namespace gp {
namespace {

const std::vector<double> kReal{0.5, -2, 3};
const std::vector<double> kFake{-0.25, 1.5, -4};

at::Tensor logits(const std::vector<double>& values) {
  return at::tensor(values).to(at::kFloat).set_requires_grad(true);
}

template <class F>
double mean(F&& f) {
  double sum = 0;
  for (std::size_t i = 0; i < kReal.size(); ++i) sum += f(kReal[i], kFake[i]);
  return sum / static_cast<double>(kReal.size());
}

double log1pexp(double x) { return std::log1p(std::exp(x)); }

void expect_losses(GanLoss loss, double smoothing, double real, double fake, double generator) {
  const DiscriminatorLoss d = discriminator_loss(loss, logits(kReal), logits(kFake), smoothing);
  EXPECT_NEAR(d.real.item<double>(), real, 1e-6);
  EXPECT_NEAR(d.fake.item<double>(), fake, 1e-6);
  EXPECT_NEAR(generator_loss(loss, logits(kFake), logits(kReal)).item<double>(), generator, 1e-6);
}

TEST(GanLoss, CrossEntropy) {
  for (const double smoothing : {0.0, 0.1}) {
    const auto entropy = [](double x, double target) {
      const double p = 1 / (1 + std::exp(-x));
      return -target * std::log(p) - (1 - target) * std::log(1 - p);
    };
    expect_losses(GanLoss::kBce, smoothing,
                  mean([&](double r, double) { return entropy(r, 1 - smoothing); }),
                  mean([&](double, double f) { return entropy(f, 0); }),
                  mean([&](double, double f) { return entropy(f, 1); }));
  }
}

TEST(GanLoss, Hinge) {
  expect_losses(GanLoss::kHinge, 0, mean([](double r, double) { return std::max(0.0, 1 - r); }),
                mean([](double, double f) { return std::max(0.0, 1 + f); }),
                mean([](double, double f) { return -f; }));
}

TEST(GanLoss, LeastSquares) {
  for (const double smoothing : {0.0, 0.2}) {
    expect_losses(GanLoss::kLeastSquares, smoothing,
                  mean([&](double r, double) { return std::pow(r - 1 + smoothing, 2) / 2; }),
                  mean([](double, double f) { return f * f / 2; }),
                  mean([](double, double f) { return (f - 1) * (f - 1) / 2; }));
  }
}

TEST(GanLoss, RelativisticPairs) {
  const double d = mean([](double r, double f) { return log1pexp(f - r); });
  expect_losses(GanLoss::kRelativistic, 0, d / 2, d / 2,
                mean([](double r, double f) { return log1pexp(r - f); }));
  EXPECT_THROW(generator_loss(GanLoss::kRelativistic, logits(kFake)), c10::Error);
  EXPECT_THROW(discriminator_loss(GanLoss::kRelativistic, logits({1, 2}), logits(kFake)),
               c10::Error);
}

TEST(GanLoss, PullsBothNetworksTheRightWay) {
  for (const std::string& name : gan_loss_names()) {
    const GanLoss loss = gan_loss_of(name);
    // Where no loss is flat: real and fake look the same.
    const at::Tensor real = logits({0.1, 0.2});
    const at::Tensor fake = logits({0.1, 0.2});
    const DiscriminatorLoss d = discriminator_loss(loss, real, fake);
    (d.real + d.fake).backward();
    EXPECT_LT(real.grad().max().item<double>(), 0) << name;
    EXPECT_GT(fake.grad().min().item<double>(), 0) << name;
    const at::Tensor again = logits({0.1, 0.2});
    generator_loss(loss, again, needs_pairs(loss) ? real.detach() : at::Tensor()).backward();
    EXPECT_LT(again.grad().max().item<double>(), 0) << name;
  }
}

TEST(GanLoss, StaysFiniteFarOut) {
  for (const std::string& name : gan_loss_names()) {
    const at::Tensor real = logits({-1e4, 1e4});
    const at::Tensor fake = logits({1e4, -1e4});
    const DiscriminatorLoss d = discriminator_loss(gan_loss_of(name), real, fake);
    (d.real + d.fake + generator_loss(gan_loss_of(name), fake, real)).backward();
    EXPECT_TRUE(real.grad().isfinite().all().item<bool>()) << name;
    EXPECT_TRUE(fake.grad().isfinite().all().item<bool>()) << name;
  }
}

TEST(GanLoss, Names) {
  EXPECT_EQ(gan_loss_of("bce"), GanLoss::kBce);
  EXPECT_EQ(gan_loss_of("hinge"), GanLoss::kHinge);
  EXPECT_EQ(gan_loss_of("least_squares"), GanLoss::kLeastSquares);
  EXPECT_EQ(gan_loss_of("relativistic"), GanLoss::kRelativistic);
  EXPECT_THROW(gan_loss_of("wasserstein"), ConfigError);
  EXPECT_THROW(discriminator_loss(GanLoss::kHinge, logits(kReal), logits(kFake), 0.1), c10::Error);
}

}  // namespace
}  // namespace gp
