#include "stages/torch/gradient_penalty.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

at::Tensor drawn(at::IntArrayRef sizes, const std::string& purpose) {
  return normal_tensor(sizes, {11, purpose, 0});
}

TEST(GradientPenalty, OfALinearDiscriminatorIsItsSquaredNorm) {
  const at::Tensor weight = drawn({3, 4, 4}, "weight").requires_grad_(true);
  const at::Tensor x = drawn({5, 3, 4, 4}, "x").requires_grad_(true);
  const at::Tensor penalty = gradient_penalty((x * weight).sum({1, 2, 3}), x);
  EXPECT_NEAR(penalty.item<double>(), weight.square().sum().item<double>(), 1e-4);
  penalty.backward();
  EXPECT_TRUE(at::allclose(weight.grad(), 2 * weight, 1e-5, 1e-5));
}

TEST(GradientPenalty, OfAQuadraticDiscriminator) {
  // D(x) = a |x|^2 / 2, so the gradient is a x.
  const at::Tensor a = at::full({}, 1.5).requires_grad_(true);
  const at::Tensor x = drawn({6, 3, 4, 4}, "x").requires_grad_(true);
  const at::Tensor penalty = gradient_penalty(a * x.square().sum({1, 2, 3}) / 2, x);
  const double mean_norm = x.square().sum({1, 2, 3}).mean().item<double>();
  EXPECT_NEAR(penalty.item<double>(), 2.25 * mean_norm, 1e-3);
  penalty.backward();
  EXPECT_NEAR(a.grad().item<double>(), 3 * mean_norm, 1e-3);
}

/// A small discriminator whose every operation can be differentiated twice. In doubles: finite
/// differences of floats would say little.
struct SmallNet {
  std::vector<at::Tensor> weights{drawn({4, 3, 3, 3}, "w1").to(at::kDouble) / 3,
                                  drawn({6, 4, 3, 3}, "w2").to(at::kDouble) / 3,
                                  drawn({1, 6 * 2 * 2}, "w3").to(at::kDouble)};
  at::Tensor operator()(const at::Tensor& x) const {
    at::Tensor y = at::leaky_relu(at::conv2d(x, weights[0], {}, 2, 1), 0.2);
    // Something curved, else the penalty is locally constant in x.
    y = at::leaky_relu(at::conv2d(y + y.square() / 4, weights[1], {}, 2, 1), 0.2);
    return at::linear(y.flatten(1), weights[2]).view({-1});
  }
};

TEST(GradientPenalty, IsTheSumOfSquaredFiniteDifferences) {
  const SmallNet net;
  const at::Tensor x = drawn({2, 3, 8, 8}, "x").to(at::kDouble);
  double sum = 0;
  const double h = 1e-6;
  for (std::int64_t image = 0; image < 2; ++image) {
    for (std::int64_t i = 0; i < 192; ++i) {
      const auto moved = [&](double by) {
        const at::Tensor y = x.clone();
        y.view({2, 192})[image][i] += by;
        return net(y)[image].item<double>();
      };
      const double slope = (moved(h) - moved(-h)) / (2 * h);
      sum += slope * slope;
    }
  }
  const at::Tensor leaf = x.clone().requires_grad_(true);
  const double expected = sum / 2;
  EXPECT_NEAR(gradient_penalty(net(leaf), leaf).item<double>(), expected, 1e-5 * expected);
}

TEST(GradientPenalty, ItsOwnGradientIsThatOfFiniteDifferences) {
  const SmallNet net;
  const at::Tensor x = drawn({3, 3, 8, 8}, "x").to(at::kDouble).requires_grad_(true);
  for (const at::Tensor& weight : net.weights) weight.requires_grad_(true);
  gradient_penalty(net(x), x).backward();
  for (const at::Tensor& weight : net.weights) {
    const at::Tensor gradient = weight.grad().view(-1);
    at::Tensor values = weight.detach().view(-1);
    ASSERT_GT(gradient.abs().max().item<double>(), 0);
    for (std::int64_t i = 0; i < values.numel(); i += 7) {
      const double h = 1e-6;  // small, so that no kink of a leaky ReLU lies between
      const double old = values[i].item<double>();
      const auto at_value = [&](double value) {
        values[i] = value;
        return gradient_penalty(net(x), x).item<double>();
      };
      const double slope = (at_value(old + h) - at_value(old - h)) / (2 * h);
      values[i] = old;
      EXPECT_NEAR(gradient[i].item<double>(), slope, 1e-5 * gradient.abs().max().item<double>());
    }
  }
}

TEST(GradientPenalty, SumsBf16GradientsAsFloats) {
  // 3072 slopes of 1/16: a bf16 sum of squares would stop growing at 1 (256 times 1/256).
  const at::Tensor x = at::ones({2, 3, 32, 32}, at::kBFloat16).requires_grad_(true);
  const at::Tensor penalty = gradient_penalty((x * 0.0625).flatten(1).sum(1), x);
  EXPECT_EQ(penalty.scalar_type(), at::kFloat);
  EXPECT_FLOAT_EQ(penalty.item<float>(), 12);
}

TEST(GradientPenalty, NeedsImagesWithGradients) {
  const at::Tensor x = drawn({2, 3, 4, 4}, "x");
  EXPECT_THROW(gradient_penalty(x.sum({1, 2, 3}), x), c10::Error);
}

}  // namespace
}  // namespace gp
