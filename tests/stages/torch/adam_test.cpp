#include "stages/torch/adam.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

namespace gp {
namespace {

struct TwoWeights : torch::nn::Module {
  at::Tensor first = register_parameter("first", at::full({2}, 1.0));
  at::Tensor second = register_parameter("second", at::full({2}, 1.0));
};

TEST(Adam, ParametersThatJoinLaterHaveStepCountsOfTheirOwn) {
  const Adam::Options options{1e-2, 0.9, 0.99, 1e-7};
  TwoWeights network;
  Adam adam(network, options);
  constexpr int kBefore = 5;
  for (int step = 0; step < kBefore; ++step) {
    (network.first * 3).sum().backward();
    adam.step();
    EXPECT_TRUE(at::equal(network.second, at::full({2}, 1.0))) << "nothing has asked it to move";
  }
  // Bias correction makes the first step of a constant gradient the learning rate. With the count
  // of the other one it would be 0.1 / (1 - 0.9^6) / sqrt(0.01 / (1 - 0.99^6)) = 0.52 of it.
  (network.first * 3 + network.second * 3).sum().backward();
  adam.step();
  EXPECT_TRUE(at::allclose(network.second, at::full({2}, 1 - 1e-2), 0, 1e-6)) << network.second;
  EXPECT_TRUE(at::allclose(network.first, at::full({2}, 1 - 6e-2), 0, 1e-6)) << network.first;
  EXPECT_TRUE(at::equal(adam.state().at("steps"), at::tensor({6, 1}, at::kLong)))
      << adam.state().at("steps");
  // One that has no gradient for a while is left alone, averages and all.
  const at::Tensor average = adam.state().at("exp_avg.second").clone();
  const at::Tensor weight = network.second.detach().clone();
  (network.first * 3).sum().backward();
  adam.step();
  EXPECT_TRUE(at::equal(adam.state().at("exp_avg.second"), average));
  EXPECT_TRUE(at::equal(network.second, weight));
  EXPECT_TRUE(at::equal(adam.state().at("steps"), at::tensor({7, 1}, at::kLong)));
}

TEST(Adam, GradientNormIsOfAllThatHaveOne) {
  TwoWeights network;
  Adam adam(network, {});
  EXPECT_THROW(adam.gradient_norm(), c10::Error);
  EXPECT_THROW(adam.step(), c10::Error);
  (network.first * 3).sum().backward();
  EXPECT_NEAR(adam.gradient_norm().item<double>(), 3 * std::sqrt(2.0), 1e-6);
  (network.second * 4).sum().backward();
  EXPECT_NEAR(adam.gradient_norm().item<double>(), 5 * std::sqrt(2.0), 1e-6);
}

}  // namespace
}  // namespace gp
