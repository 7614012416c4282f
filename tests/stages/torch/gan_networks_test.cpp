#include "stages/torch/gan_networks.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

using Blocks = GanConfig::Blocks;
using Norm = GanConfig::Norm;
using Growth = GanConfig::Growth;
using Sizes = std::vector<std::int64_t>;

at::Tensor normals(at::IntArrayRef sizes, const std::string& purpose) {
  return normal_tensor(sizes, {3, purpose, 0});
}

at::Tensor pictures(int count, int size, const std::string& purpose = "images") {
  return normals({count, 3, size, size}, purpose)
      .mul(0.5)
      .tanh()
      .contiguous(at::MemoryFormat::ChannelsLast);
}

GanConfig small() {
  GanConfig config;
  config.resolution = 32;
  config.latent = 12;
  config.channels = 4;
  config.channels_d = 4;
  return config;
}

GanGenerator generator(const GanConfig& config, std::uint64_t seed = 1) {
  GanGenerator network(config);
  init_gan_weights(network, seed);
  return network;
}

GanDiscriminator discriminator(const GanConfig& config, std::uint64_t seed = 1) {
  GanDiscriminator network(config);
  init_gan_weights(network, seed);
  return network;
}

/// Draws what starts at 0 (biases, last convolutions of blocks), so that tests see all of it.
void stir(torch::nn::Module& network) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : network.named_parameters()) {
    at::Tensor value = parameter.value();
    if (value.dim() == 1 || value.abs().max().item<double>() == 0)
      value.add_(normals(value.sizes(), "stir." + parameter.key()), 0.1);
  }
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

std::int64_t count(const torch::nn::Module& network) {
  std::int64_t sum = 0;
  for (const at::Tensor& parameter : network.parameters()) sum += parameter.numel();
  return sum;
}

/// Every combination that the networks know.
std::vector<GanConfig> all_configs() {
  std::vector<GanConfig> all;
  for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
    for (const Growth growth : {Growth::kNone, Growth::kSkip, Growth::kPhases}) {
      for (const Norm norm_g : {Norm::kNone, Norm::kBatch}) {
        for (const Norm norm_d : {Norm::kNone, Norm::kBatch, Norm::kSpectral}) {
          GanConfig config = small();
          config.blocks = blocks;
          config.growth = growth;
          config.norm_g = norm_g;
          config.norm_d = norm_d;
          // Each of these in some of them.
          config.classes = norm_g == Norm::kNone ? 5 : 0;
          config.minibatch_stddev = norm_d != Norm::kBatch;
          all.push_back(config);
        }
      }
    }
  }
  return all;
}

std::string describe(const GanConfig& config) {
  return "blocks " + std::to_string(static_cast<int>(config.blocks)) + ", growth " +
         std::to_string(static_cast<int>(config.growth)) + ", norm_g " +
         std::to_string(static_cast<int>(config.norm_g)) + ", norm_d " +
         std::to_string(static_cast<int>(config.norm_d));
}

TEST(GanNetworks, EveryCombinationTrains) {
  const at::Tensor labels = at::tensor({0, 4, 2, 2}, at::kLong);
  for (const GanConfig& config : all_configs()) {
    SCOPED_TRACE(describe(config));
    GanGenerator g = generator(config);
    GanDiscriminator d = discriminator(config);
    stir(*g);
    stir(*d);
    for (const bool training : {true, false}) {
      g->train(training);
      d->train(training);
      g->zero_grad();
      d->zero_grad();
      const at::Tensor images = g(normals({4, 12}, "z"), labels);
      EXPECT_EQ(images.sizes(), (Sizes{4, 3, 32, 32}));
      EXPECT_TRUE(images.is_contiguous(at::MemoryFormat::ChannelsLast));
      EXPECT_LE(images.abs().max().item<double>(), 1);
      EXPECT_GT(images.std().item<double>(), 0.05);
      const at::Tensor logits = d(images, labels);
      EXPECT_EQ(logits.sizes(), (Sizes{4}));
      EXPECT_GT(logits.std().item<double>(), 0);
      logits.square().sum().backward();
      // At full size phases use the last level's RGB only.
      for (torch::nn::Module* network :
           {static_cast<torch::nn::Module*>(g.get()), static_cast<torch::nn::Module*>(d.get())}) {
        for (const auto& parameter : network->named_parameters()) {
          const bool used = config.growth != Growth::kPhases ||
                            parameter.key().rfind("rgb", 0) != 0 ||
                            parameter.key().rfind("rgb32", 0) == 0;
          EXPECT_EQ(parameter.value().grad().defined(), used) << parameter.key();
          if (!used) continue;
          EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
          // A bias before batch norm has the gradient 0 in training.
          if (parameter.value().dim() >= 2) {
            EXPECT_GT(parameter.value().grad().abs().max().item<double>(), 0) << parameter.key();
          }
        }
      }
    }
  }
}

TEST(GanNetworks, DependOnTheSeedOnly) {
  for (const GanConfig& config : all_configs()) {
    SCOPED_TRACE(describe(config));
    GanGenerator a = generator(config, 7), b = generator(config, 7), c = generator(config, 8);
    GanDiscriminator d = discriminator(config, 7), e = discriminator(config, 7),
                     f = discriminator(config, 8);
    const at::Tensor labels = at::tensor({0, 1}, at::kLong);
    const at::Tensor z = normals({2, 12}, "z");
    EXPECT_TRUE(at::equal(a(z, labels), b(z, labels)));
    EXPECT_GT(distance(a(z, labels), c(z, labels)), 1e-3);
    const at::Tensor images = pictures(2, 32);
    EXPECT_TRUE(at::equal(d(images, labels), e(images, labels)));
    EXPECT_GT(distance(d(images, labels), f(images, labels)), 1e-4);
  }
}

TEST(GanNetworks, DepthFollowsTheResolution) {
  for (int resolution = 16; resolution <= 128; resolution *= 2) {
    GanConfig config = small();
    config.resolution = resolution;
    config.channels = config.channels_d = 2;
    EXPECT_EQ(8 << config.levels(), resolution);
    for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
      config.blocks = blocks;
      const at::Tensor images = generator(config)(normals({2, 12}, "z"));
      EXPECT_EQ(images.sizes(), (Sizes{2, 3, resolution, resolution}));
      EXPECT_EQ(discriminator(config)(images).sizes(), (Sizes{2}));
    }
  }
}

// Counted by hand, weights and biases: convolutions in x out x taps + out.
TEST(GanNetworks, HaveTheSizesOfTheirDescription) {
  const auto conv = [](int in, int out, int taps = 9) { return in * out * taps + out; };
  const GanConfig plain;
  EXPECT_EQ(count(*GanGenerator(plain)), conv(128, 256 * 64, 1) + conv(256, 128) + 2 * 128 +
                                             conv(128, 64) + 2 * 64 + conv(64, 32) + 2 * 32 +
                                             conv(32, 3));
  EXPECT_EQ(count(*GanDiscriminator(plain)),
            conv(3, 32) + conv(32, 64) + conv(64, 128) + conv(128, 256) + conv(256 * 64, 1, 1));
  GanConfig growing;
  growing.growth = Growth::kPhases;
  EXPECT_EQ(count(*GanGenerator(growing)) - count(*GanGenerator(plain)),
            conv(256, 256) + 2 * 256 + conv(256, 3) + conv(128, 3) + conv(64, 3));
  GanConfig residual;
  residual.blocks = Blocks::kResidual;
  residual.norm_g = Norm::kNone;
  residual.minibatch_stddev = true;
  residual.classes = 10;
  EXPECT_EQ(count(*GanGenerator(residual)),
            10 * 128 + conv(256, 256 * 64, 1) + conv(256, 256) +  //
                conv(256, 128) + conv(128, 128) + (256 * 128 + 128) + conv(128, 64) + conv(64, 64) +
                (128 * 64 + 64) +  //
                conv(64, 32) + conv(32, 32) + (64 * 32 + 32) + conv(32, 3));
  EXPECT_EQ(count(*GanDiscriminator(residual)),
            conv(3, 32, 1) +                                           //
                conv(32, 32) + conv(32, 64) + conv(32, 64, 1) +        //
                conv(64, 64) + conv(64, 128) + conv(64, 128, 1) +      //
                conv(128, 128) + conv(128, 256) + conv(128, 256, 1) +  //
                conv(257, 256) + conv(256 * 64, 1, 1) + 10 * 256);
}

TEST(GanNetworks, RefuseWhatMakesNoSense) {
  GanConfig config = small();
  config.resolution = 48;
  EXPECT_THROW(GanGenerator{config}, c10::Error);
  EXPECT_THROW(GanDiscriminator{config}, c10::Error);
  config = small();
  config.norm_g = Norm::kSpectral;
  EXPECT_THROW(GanGenerator{config}, c10::Error);
  config = small();
  EXPECT_THROW(GanGenerator(config)->set_growth({16}), c10::Error);
  EXPECT_THROW(discriminator(config)(pictures(2, 16)), c10::Error);
  config.growth = Growth::kPhases;
  config.first_resolution = 16;
  GanDiscriminator network(config);
  EXPECT_THROW(network->set_growth({8}), c10::Error);
  EXPECT_THROW(network->set_growth({64}), c10::Error);
  EXPECT_THROW(network->set_growth({32, 0}), c10::Error);
  EXPECT_THROW(network->set_growth({16, 0.5}), c10::Error);
}

// The weights' spread is what keeps maps at their size. Nothing is normed here. The images are flat
// in squares of 8 pixels: means over 2 x 2 pixels would take noise away.
TEST(InitGanWeights, KeepsTheSizeOfWhatPasses) {
  GanConfig config;
  config.norm_g = config.norm_d = Norm::kNone;
  for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
    config.blocks = blocks;
    for (const Growth growth : {Growth::kNone, Growth::kSkip, Growth::kPhases}) {
      config.growth = growth;
      SCOPED_TRACE(describe(config));
      const at::NoGradGuard no_grad;
      const double rgb = generator(config)(normals({8, 128}, "z")).atanh().std().item<double>();
      EXPECT_GT(rgb, 0.4);
      EXPECT_LT(rgb, 2.5);
      const at::Tensor images = at::upsample_nearest2d(normals({32, 3, 8, 8}, "x"), {64, 64});
      const double logit = discriminator(config)(images).square().mean().sqrt().item<double>();
      EXPECT_GT(logit, 0.2);
      EXPECT_LT(logit, 3);
    }
  }
}

TEST(InitGanWeights, IsUniformOfTheStatedVariance) {
  GanConfig config;
  config.blocks = Blocks::kResidual;
  config.norm_g = config.norm_d = Norm::kNone;
  GanGenerator g = generator(config);
  const auto weights = g->named_parameters();
  const auto check = [&](const char* name, double variance) {
    const at::Tensor& weight = weights[name];
    EXPECT_NEAR(weight.var().item<double>() / variance, 1, 0.05) << name;
    EXPECT_NEAR(weight.abs().max().item<double>() / std::sqrt(3 * variance), 1, 0.01) << name;
  };
  check("dense.weight", 1.0 / 128);
  check("base_conv.weight", 2 / 1.04 / (9 * 256));
  check("block0_conv.weight", 2 / 1.04 / 3 / (9 * 256));
  check("block1_skip.weight", 1.0 / 128);
  EXPECT_EQ(weights["block0_conv2.weight"].abs().max().item<double>(), 0);
  EXPECT_EQ(weights["block0_conv.bias"].abs().max().item<double>(), 0);
  GanDiscriminator d = discriminator(config);
  EXPECT_EQ(d->named_parameters()["block2_conv2.weight"].abs().max().item<double>(), 0);
}

TEST(SpectralNorm, FindsTheLargestSingularValue) {
  GanConv conv(6, 10, GanConvImpl::Kind::kSame, /*spectral=*/true);
  const at::NoGradGuard no_grad;
  conv->weight.copy_(normals({10, 6, 3, 3}, "weight"));
  conv->spectral->start(conv->weight, {1, "u", 0});
  const double exact = std::get<1>(at::linalg_svd(conv->weight.flatten(1).to(at::kDouble), false))
                           .max()
                           .item<double>();
  const double early = conv->spectral->sigma(conv->weight).item<double>();
  EXPECT_LE(early, exact * (1 + 1e-6));
  EXPECT_GT(early, 0.8 * exact);
  conv->spectral->iterate(conv->weight, 500);
  EXPECT_NEAR(conv->spectral->sigma(conv->weight).item<double>(), exact, 1e-5 * exact);
  // What is convolved with has the largest singular value 1.
  const at::Tensor normed = conv->spectral(conv->weight);
  EXPECT_NEAR(std::get<1>(at::linalg_svd(normed.flatten(1), false)).max().item<double>(), 1, 1e-5);
  const at::Tensor x = normals({2, 6, 5, 5}, "x");
  EXPECT_LE(distance(conv(x), at::conv2d(x, conv->weight / exact, {}, {1, 1}, {1, 1})), 1e-5);
}

TEST(SpectralNorm, HasTheGradientOfTheSingularValue) {
  const at::Tensor towards = normals({7, 5}, "towards").to(at::kDouble);
  const at::Tensor weight = normals({7, 5}, "weight").to(at::kDouble).set_requires_grad(true);
  SpectralNorm norm(weight);
  norm->to(at::kDouble);
  {
    const at::NoGradGuard no_grad;
    norm->u.copy_(normals({7}, "u"));
    norm->iterate(weight, 2000);
  }
  const at::Tensor found = torch::autograd::grad({(norm(weight) * towards).sum()}, {weight})[0];
  const at::Tensor exact = torch::autograd::grad(
      {(weight / at::linalg_matrix_norm(weight, 2) * towards).sum()}, {weight})[0];
  EXPECT_LE(distance(found, exact), 1e-9);
  // The gradient through sigma is part of it.
  EXPECT_GT(distance(found, towards / norm->sigma(weight)), 1e-2);
}

TEST(SpectralNorm, MovesByUpdatesOnly) {
  GanConfig config = small();
  config.blocks = Blocks::kResidual;
  config.classes = 3;
  GanDiscriminator d = discriminator(config);
  const at::Tensor labels = at::tensor({0, 1, 2}, at::kLong);
  const auto state = [&] {
    std::vector<at::Tensor> all;
    for (const at::Tensor& buffer : d->buffers()) all.push_back(buffer.clone());
    return all;
  };
  const auto start = state();
  d(pictures(3, 32), labels).sum().backward();
  const auto after_pass = state();
  d->update_spectral();
  const auto updated = state();
  ASSERT_EQ(start.size(), 2 * 10u);  // RGB, 3 in each of 2 blocks, last, dense, table
  for (std::size_t i = 0; i < start.size(); ++i) {
    EXPECT_TRUE(at::equal(start[i], after_pass[i]));
    EXPECT_NEAR(updated[i].norm().item<double>(), 1, 1e-5);
  }
  EXPECT_FALSE(at::equal(start[0], updated[0]));
  // An update between a pass and its gradient does not matter to the gradient.
  const auto gradient = [&](bool update) {
    GanDiscriminator fresh = discriminator(config);
    const at::Tensor logits = fresh(pictures(3, 32), labels);
    if (update) fresh->update_spectral();
    logits.sum().backward();
    return fresh->named_parameters()["block0_conv.weight"].grad().clone();
  };
  EXPECT_TRUE(at::equal(gradient(false), gradient(true)));
}

TEST(SpectralNorm, NormsEveryLayerOfTheDiscriminator) {
  GanConfig config = small();
  config.classes = 3;
  for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
    config.blocks = blocks;
    GanDiscriminator d = discriminator(config);
    // Then no weight's scale matters.
    const at::Tensor labels = at::tensor({0, 1}, at::kLong);
    const at::Tensor before = d(pictures(2, 32), labels);
    {
      const at::NoGradGuard no_grad;
      for (const at::Tensor& parameter : d->parameters()) parameter.mul_(3);
    }
    EXPECT_LE(distance(before, d(pictures(2, 32), labels)), 1e-5);
    EXPECT_GT(before.abs().max().item<double>(), 1e-3);
  }
}

TEST(GanConv, FoldsTheMeanIntoTheKernel) {
  GanConv conv(5, 7, GanConvImpl::Kind::kMean, false);
  {
    const at::NoGradGuard no_grad;
    conv->weight.copy_(normals({7, 5, 3, 3}, "weight"));
    conv->bias.copy_(normals({7}, "bias"));
  }
  const at::Tensor x = normals({2, 5, 8, 12}, "x").set_requires_grad(true);
  const at::Tensor towards = normals({2, 7, 4, 6}, "towards");
  const auto outcome = [&](const at::Tensor& y) {
    auto all = torch::autograd::grad({(y * towards).sum()}, {x, conv->weight, conv->bias});
    all.push_back(y);
    return all;
  };
  const auto folded = outcome(conv(x));
  const auto plain =
      outcome(at::avg_pool2d(at::conv2d(x, conv->weight, conv->bias, {1, 1}, {1, 1}), {2, 2}));
  for (std::size_t i = 0; i < plain.size(); ++i)
    EXPECT_TRUE(at::allclose(folded[i], plain[i], 1e-4, 1e-4)) << i;
}

TEST(GanNetworks, ResidualBlocksAreTheirDescription) {
  GanConfig config = small();
  config.blocks = Blocks::kResidual;
  config.norm_g = config.norm_d = Norm::kNone;
  GanGenerator g = generator(config);
  GanDiscriminator d = discriminator(config);
  stir(*g);
  stir(*d);
  const auto p = g->named_parameters();
  const auto q = d->named_parameters();
  const auto same = [](const at::Tensor& x, const auto& all, const std::string& name) {
    const at::Tensor& weight = all[name + ".weight"];
    return at::conv2d(x, weight, all[name + ".bias"], {1, 1}, {weight.size(2) / 2});
  };
  const auto up = [](const at::Tensor& x) {
    return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
  };
  const auto leaky = [](const at::Tensor& x) { return at::leaky_relu(x, 0.2); };
  const at::Tensor z = normals({2, 12}, "z");
  at::Tensor x =
      at::linear(z, p["dense.weight"], p["dense.bias"]).view({2, 8, 8, 16}).permute({0, 3, 1, 2});
  x = leaky(same(x, p, "base_conv"));
  for (const std::string name : {"block0", "block1"}) {
    x = same(leaky(same(up(x), p, name + "_conv")), p, name + "_conv2") +
        at::upsample_bilinear2d(same(x, p, name + "_skip"), {2 * x.size(2), 2 * x.size(3)}, false);
  }
  const at::Tensor images = at::tanh(same(x, p, "image"));
  EXPECT_LE(distance(g(z), images), 1e-5);

  x = same(images, q, "rgb32");
  for (const std::string name : {"block0", "block1"}) {
    x = at::avg_pool2d(same(leaky(same(x, q, name + "_conv")), q, name + "_conv2"), {2, 2}) +
        same(at::avg_pool2d(x, {2, 2}), q, name + "_skip");
  }
  x = leaky(same(x, q, "last_conv"));
  const at::Tensor logits =
      at::linear(x.permute({0, 2, 3, 1}).flatten(1), q["dense.weight"], q["dense.bias"]).squeeze(1);
  EXPECT_LE(distance(d(images), logits), 2e-5);
}

TEST(GanNetworks, PlainOnesAreTheDcgan) {
  GanConfig config = small();
  config.norm_d = Norm::kBatch;
  config.dropout = 0.25;
  DcganConfig old;
  old.resolution = 32;
  old.latent = 12;
  old.channels = old.channels_d = 4;
  GanGenerator g = generator(config);
  GanDiscriminator d = discriminator(config);
  stir(*g);
  stir(*d);
  Generator old_g(old);
  Discriminator old_d(old);
  const auto copy = [](const torch::nn::Module& from, torch::nn::Module& to,
                       const std::string& last) {
    const at::NoGradGuard no_grad;
    const auto source = from.named_parameters();
    auto target = to.named_parameters();
    ASSERT_EQ(source.size(), target.size());
    for (auto& parameter : target) {
      std::string name = parameter.key();
      if (!last.empty() && name.rfind(last, 0) == 0) name = "last" + name.substr(last.size());
      parameter.value().copy_(source[name]);
    }
  };
  copy(*g, *old_g, "");
  copy(*d, *old_d, "block2");
  const at::Tensor z = normals({4, 12}, "z");
  for (const bool training : {true, false}) {
    for (torch::nn::Module* network :
         std::initializer_list<torch::nn::Module*>{g.get(), d.get(), old_g.get(), old_d.get()})
      network->train(training);
    const at::Tensor images = old_g(z);
    EXPECT_TRUE(at::allclose(g(z), images, 1e-5, 1e-6)) << training;
    EXPECT_TRUE(at::allclose(d(images), old_d(images), 1e-4, 1e-5)) << training;
  }
}

TEST(GanNetworks, BatchNormUsesRunningStatisticsOutsideTraining) {
  for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
    GanConfig config = small();
    config.blocks = blocks;
    config.norm_d = Norm::kBatch;
    GanGenerator g = generator(config);
    GanDiscriminator d = discriminator(config);
    stir(*g);
    stir(*d);
    const at::NoGradGuard no_grad;
    const at::Tensor z = normals({8, 12}, "z");
    const at::Tensor x = pictures(8, 32);
    EXPECT_GT(distance(g(z).narrow(0, 0, 4), g(z.narrow(0, 0, 4))), 1e-3);
    EXPECT_GT(distance(d(x).narrow(0, 0, 4), d(x.narrow(0, 0, 4))), 1e-3);
    for (int i = 0; i < 60; ++i) {
      g(z);
      d(x);
    }
    const at::Tensor trained_g = g(z);
    const at::Tensor trained_d = d(x);
    g->eval();
    d->eval();
    EXPECT_TRUE(at::allclose(g(z).narrow(0, 0, 4), g(z.narrow(0, 0, 4)), 1e-4, 1e-5));
    EXPECT_TRUE(at::allclose(d(x).narrow(0, 0, 4), d(x.narrow(0, 0, 4)), 1e-4, 1e-5));
    // The running statistics have come to those of this batch (the variance's unbiased).
    EXPECT_LE(distance(g(z), trained_g), 0.02);
    EXPECT_LE(distance(d(x), trained_d), 0.05);
  }
}

TEST(MinibatchStddev, IsTheLoopOfItsDescription) {
  for (const int images : {1, 2, 3, 4, 5, 6, 8, 12}) {
    const int group = images % 4 == 0 ? 4 : images % 3 == 0 ? 3 : images % 2 == 0 ? 2 : 1;
    const at::Tensor x = normals({images, 3, 2, 5}, "x" + std::to_string(images));
    const at::Tensor found = append_minibatch_stddev(x);
    ASSERT_EQ(found.sizes(), (Sizes{images, 4, 2, 5}));
    EXPECT_TRUE(at::equal(found.narrow(1, 0, 3), x));
    const int groups = images / group;
    const at::Tensor flat = x.reshape({images, 30});
    const auto values = flat.accessor<float, 2>();
    for (int m = 0; m < groups; ++m) {
      double total = 0;
      for (int k = 0; k < 30; ++k) {
        double mean = 0, square = 0;
        for (int i = m; i < images; i += groups) mean += values[i][k] / group;
        for (int i = m; i < images; i += groups)
          square += (values[i][k] - mean) * (values[i][k] - mean) / group;
        total += std::sqrt(square + 1e-8) / 30;
      }
      for (int i = m; i < images; i += groups)
        EXPECT_LE((found[i][3] - total).abs().max().item<double>(), 1e-6) << images;
    }
  }
}

TEST(MinibatchStddev, TellsOneImageRepeatedFromMany) {
  GanConfig config = small();
  config.minibatch_stddev = true;
  GanDiscriminator d = discriminator(config);
  const at::Tensor many = pictures(4, 32);
  const at::Tensor one = many.narrow(0, 0, 1).repeat({4, 1, 1, 1});
  EXPECT_GT(std::abs((d(many)[0] - d(one)[0]).item<double>()), 1e-4);
  config.minibatch_stddev = false;
  GanDiscriminator without = discriminator(config);
  EXPECT_LE(std::abs((without(many)[0] - without(one)[0]).item<double>()), 1e-6);
}

TEST(Conditional, ProjectionAddsTheRowTimesTheSum) {
  GanConfig config = small();
  config.norm_d = Norm::kNone;
  config.classes = 3;
  GanDiscriminator d = discriminator(config);
  const at::Tensor images = pictures(3, 32);
  at::Tensor table = d->named_parameters()["embedding.weight"];
  const auto logits = [&](std::vector<std::int64_t> labels) {
    const at::NoGradGuard no_grad;
    return d(images, at::tensor(labels));
  };
  const at::Tensor rows = table.detach().clone();
  {
    const at::NoGradGuard no_grad;
    table.zero_();
  }
  const at::Tensor unconditional = logits({0, 0, 0});
  // The sums over space, read off with rows of one 1.
  at::Tensor sums = at::empty({3, 16});
  for (int c = 0; c < 16; ++c) {
    const at::NoGradGuard no_grad;
    table.zero_();
    table.select(1, c).fill_(1);
    sums.select(1, c).copy_(logits({0, 1, 2}) - unconditional);
  }
  // ... and by hand, for a plain network.
  const auto p = d->named_parameters();
  at::Tensor x = images;
  for (const std::string name : {"block0_conv", "block1_conv", "last_conv"}) {
    const bool last = name == "last_conv";
    x = at::leaky_relu(
        at::conv2d(last ? x : at::constant_pad_nd(x, {0, 1, 0, 1}), p[name + ".weight"],
                   p[name + ".bias"], {last ? 1 : 2}, {last ? 1 : 0}),
        0.2);
  }
  EXPECT_TRUE(at::allclose(sums, x.detach().sum({2, 3}), 1e-3, 1e-3));
  {
    const at::NoGradGuard no_grad;
    table.copy_(rows);
  }
  const at::Tensor labels = at::tensor({2, 0, 1}, at::kLong);
  const at::Tensor expected =
      unconditional + (rows.index_select(0, labels) * x.detach().sum({2, 3})).sum(1);
  EXPECT_TRUE(at::allclose(logits({2, 0, 1}), expected, 1e-4, 1e-4));
  EXPECT_GT(distance(expected, unconditional), 1e-3);
}

TEST(Conditional, TheGeneratorFollowsTheLabel) {
  GanConfig config = small();
  config.classes = 3;
  GanGenerator g = generator(config);
  g->eval();
  const at::Tensor z = normals({1, 12}, "z").repeat({3, 1});
  const at::Tensor images = g(z, at::tensor({0, 1, 0}, at::kLong));
  EXPECT_LE(distance(images[0], images[2]), 1e-6);
  EXPECT_GT(distance(images[0], images[1]), 0.01);
  // A row's length does not matter.
  {
    const at::NoGradGuard no_grad;
    g->named_parameters()["embedding.weight"].mul_(5);
  }
  EXPECT_LE(distance(g(z, at::tensor({0, 1, 0}, at::kLong)), images), 1e-5);
}

TEST(Conditional, NamesTheLabelThatIsWrong) {
  GanConfig config = small();
  config.classes = 3;
  GanGenerator g = generator(config);
  GanDiscriminator d = discriminator(config);
  const at::Tensor z = normals({2, 12}, "z");
  for (const std::int64_t wrong : {std::int64_t{-4}, std::int64_t{3}}) {
    const at::Tensor labels = at::tensor({std::int64_t{1}, wrong});
    for (const auto& call : {std::function<void()>([&] { g(z, labels); }),
                             std::function<void()>([&] { d(pictures(2, 32), labels); })}) {
      try {
        call();
        ADD_FAILURE();
      } catch (const c10::Error& error) {
        EXPECT_NE(std::string(error.what()).find("label " + std::to_string(wrong)),
                  std::string::npos)
            << error.what();
      }
    }
  }
  EXPECT_THROW(g(z), c10::Error);
  EXPECT_THROW(d(pictures(2, 32)), c10::Error);
}

class Phases : public testing::TestWithParam<Blocks> {
 protected:
  Phases() {
    config_ = small();
    config_.blocks = GetParam();
    config_.growth = Growth::kPhases;
    config_.norm_g = Norm::kNone;
    g_ = generator(config_);
    d_ = discriminator(config_);
    stir(*g_);
    stir(*d_);
  }
  at::Tensor images(GrowthPoint point) {
    const at::NoGradGuard no_grad;
    g_->set_growth(point);
    return g_(normals({4, 12}, "z"));
  }
  at::Tensor logits(const at::Tensor& x, GrowthPoint point) {
    const at::NoGradGuard no_grad;
    d_->set_growth(point);
    return d_(x);
  }
  static at::Tensor up(const at::Tensor& x) {
    return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
  }

  GanConfig config_;
  GanGenerator g_{nullptr};
  GanDiscriminator d_{nullptr};
};

TEST_P(Phases, GrowWithoutAJump) {
  for (const int size : {8, 16}) {
    const at::Tensor old = up(images({size}));
    EXPECT_EQ(old.sizes(), (Sizes{4, 3, 2 * size, 2 * size}));
    EXPECT_LE(distance(images({2 * size, 1e-4}), old), 2e-3);
    EXPECT_GT(distance(images({2 * size, 0.5}), old), 0.05);
    const at::Tensor x = pictures(4, 2 * size);
    const at::Tensor before = logits(at::avg_pool2d(x, {2, 2}), {size});
    EXPECT_LE(distance(logits(x, {2 * size, 1e-4}), before), 1e-3);
    EXPECT_GT(distance(logits(x, {2 * size, 0.5}), before), 1e-3);
  }
}

TEST_P(Phases, BlendInProportion) {
  const at::Tensor before = up(images({16})).atanh();
  const at::Tensor after = images({32}).atanh();
  const at::Tensor blend = images({32, 0.3}).atanh();
  EXPECT_LE(distance(blend, 0.7 * before + 0.3 * after), 1e-3);
}

TEST_P(Phases, EndWithoutABlend) {
  // Nothing of the smaller levels' RGB layers is left at full size.
  const at::Tensor x = pictures(4, 32);
  const at::Tensor before = images({32, 1});
  const at::Tensor logits_before = logits(x, {32, 1});
  GanGenerator never_set = generator(config_);
  stir(*never_set);
  EXPECT_TRUE(at::equal(before, never_set(normals({4, 12}, "z")).detach()));
  EXPECT_LE(distance(images({32, 0.9999}), before), 2e-3);
  const at::NoGradGuard no_grad;
  for (const char* name : {"rgb8.weight", "rgb16.weight"}) {
    g_->named_parameters()[name].fill_(9);
    d_->named_parameters()[name].fill_(9);
  }
  EXPECT_TRUE(at::equal(images({32, 1}), before));
  EXPECT_TRUE(at::equal(logits(x, {32, 1}), logits_before));
  EXPECT_GT(distance(images({32, 0.9}), before), 0.01);
}

TEST_P(Phases, LeaveUnusedLevelsWithoutGradient) {
  const auto used = [](torch::nn::Module& network) {
    std::string names;
    for (const auto& parameter : network.named_parameters()) {
      if (parameter.value().grad().defined() && parameter.value().dim() >= 2)
        names += parameter.key().substr(0, parameter.key().find('.')) + " ";
    }
    return names;
  };
  g_->set_growth({16, 0.5});
  d_->set_growth({16, 0.5});
  d_(g_(normals({4, 12}, "z"))).sum().backward();
  const bool residual = GetParam() == Blocks::kResidual;
  EXPECT_EQ(used(*g_), residual ? "dense base_conv rgb8 block0_conv block0_conv2 block0_skip rgb16 "
                                : "dense base_conv rgb8 block0_conv rgb16 ");
  EXPECT_EQ(used(*d_), residual ? "rgb16 rgb8 block1_conv block1_conv2 block1_skip last_conv dense "
                                : "rgb16 rgb8 block1_conv last_conv dense ");
}

TEST_P(Phases, MayStartLater) {
  config_.first_resolution = 16;
  g_ = generator(config_);
  d_ = discriminator(config_);
  EXPECT_EQ(g_->named_parameters().find("rgb8.weight"), nullptr);
  EXPECT_EQ(d_->named_parameters().find("rgb8.weight"), nullptr);
  EXPECT_EQ(images({16}).sizes(), (Sizes{4, 3, 16, 16}));
  EXPECT_EQ(logits(images({32, 0.5}), {32, 0.5}).sizes(), (Sizes{4}));
}

INSTANTIATE_TEST_SUITE_P(All, Phases, testing::Values(Blocks::kPlain, Blocks::kResidual));

TEST(Skip, SumsTheLevels) {
  GanConfig config = small();
  config.growth = Growth::kSkip;
  config.norm_g = Norm::kNone;
  GanGenerator g = generator(config);
  stir(*g);
  const at::NoGradGuard no_grad;
  const auto p = g->named_parameters();
  const at::Tensor z = normals({2, 12}, "z");
  const auto only = [&](const std::string& kept) {
    std::vector<at::Tensor> saved;
    for (const auto& parameter : p) {
      saved.push_back(parameter.value().clone());
      if (parameter.key().rfind("rgb", 0) == 0 && parameter.key().rfind(kept + ".", 0) != 0)
        parameter.value().detach().zero_();
    }
    const at::Tensor image = g(z).atanh();
    std::size_t i = 0;
    for (const auto& parameter : p) parameter.value().detach().copy_(saved[i++]);
    return image;
  };
  const at::Tensor sum = only("rgb8") + only("rgb16") + only("rgb32");
  EXPECT_LE(distance(g(z).atanh(), sum), 1e-4);
  // 8 x 8 values only, bilinearly upsampled: smooth; the last level's are not.
  const auto roughness = [](const at::Tensor& x) {
    return ((x.slice(3, 1) - x.slice(3, 0, -1)).square().mean() / x.var()).item<double>();
  };
  EXPECT_LT(roughness(only("rgb8")), 0.2);
  EXPECT_GT(roughness(only("rgb32")), 2 * roughness(only("rgb8")));
}

TEST(Discriminator, TwiceGivesTheSame) {
  for (GanConfig config : all_configs()) {
    SCOPED_TRACE(describe(config));
    config.dropout = 0.25;
    const at::Tensor labels = at::tensor({0, 4, 2, 2}, at::kLong);
    const auto run = [&](bool twice) {
      GanDiscriminator d = discriminator(config);
      stir(*d);
      const at::Tensor images = pictures(4, 32).set_requires_grad(true);
      const at::Tensor logits = d(images, labels, DropoutKey{1, 2, "real"}, twice);
      logits.sum().backward();
      std::vector<at::Tensor> all{logits.detach(), images.grad()};
      for (const auto& parameter : d->named_parameters()) {
        if (parameter.value().grad().defined()) all.push_back(parameter.value().grad());
      }
      for (const at::Tensor& buffer : d->buffers()) all.push_back(buffer);
      return all;
    };
    const auto fast = run(false);
    const auto plain = run(true);
    ASSERT_EQ(fast.size(), plain.size());
    for (std::size_t i = 0; i < fast.size(); ++i) {
      const double scale = std::max(1.0, plain[i].abs().max().item<double>());
      EXPECT_LE(distance(fast[i], plain[i]), 1e-4 * scale) << i;
    }
  }
}

// The gradient of a gradient penalty, against differences of the penalty, in double.
TEST(Discriminator, TwiceCanBeDifferentiatedTwice) {
  for (GanConfig config : all_configs()) {
    if (config.norm_g == Norm::kBatch) continue;  // the generator does not matter here
    SCOPED_TRACE(describe(config));
    config.resolution = 16;
    config.channels_d = 2;
    GanDiscriminator d = discriminator(config);
    stir(*d);
    if (config.growth == Growth::kPhases) d->set_growth({16, 0.4});
    d->to(at::kDouble);
    // So that running statistics do not move in between; by the batch it is tested in TwiceGives.
    if (config.norm_d == Norm::kBatch) d->eval();
    const at::Tensor labels = at::tensor({0, 4, 2, 2}, at::kLong);
    const at::Tensor images = pictures(4, 16).to(at::kDouble).set_requires_grad(true);
    const auto penalty = [&] {
      const at::Tensor logits = d(images, labels, std::nullopt, /*twice=*/true);
      EXPECT_EQ(logits.scalar_type(), at::kDouble);
      return torch::autograd::grad({logits.sum()}, {images}, {}, true, /*create_graph=*/true)[0]
          .square()
          .sum();
    };
    d->zero_grad();
    penalty().backward();
    for (const auto& parameter : d->named_parameters()) {
      at::Tensor value = parameter.value();
      if (value.dim() < 2) continue;
      const at::Tensor direction =
          normals(value.sizes(), "direction." + parameter.key()).to(at::kDouble);
      const double expected =
          value.grad().defined() ? (value.grad() * direction).sum().item<double>() : 0;
      const auto at_step = [&](double step) {
        {
          const at::NoGradGuard no_grad;
          value.add_(direction, step);
        }
        const double found = penalty().item<double>();
        const at::NoGradGuard no_grad;
        value.add_(direction, -step);
        return found;
      };
      // Small enough that hardly an activation changes its side.
      const double step = 1e-7;
      const double difference = (at_step(step) - at_step(-step)) / (2 * step);
      EXPECT_NEAR(difference, expected, 1e-4 * std::max(1.0, std::abs(expected)))
          << parameter.key();
    }
  }
}

TEST(Discriminator, DropoutNeedsAKeyAndDependsOnIt) {
  for (const Blocks blocks : {Blocks::kPlain, Blocks::kResidual}) {
    GanConfig config = small();
    config.blocks = blocks;
    config.dropout = 0.25;
    GanDiscriminator d = discriminator(config);
    stir(*d);
    const at::Tensor x = pictures(2, 32);
    const at::Tensor plain = d(x);
    EXPECT_TRUE(at::equal(plain, d(x)));
    const at::Tensor dropped = d(x, at::Tensor(), DropoutKey{1, 0, "real"});
    EXPECT_GT(distance(dropped, plain), 1e-4);
    EXPECT_TRUE(at::equal(dropped, d(x, at::Tensor(), DropoutKey{1, 0, "real"})));
    EXPECT_FALSE(at::equal(dropped, d(x, at::Tensor(), DropoutKey{1, 1, "real"})));
    config.dropout = 0;
    GanDiscriminator without = discriminator(config);
    EXPECT_TRUE(at::equal(without(x), without(x, at::Tensor(), DropoutKey{1, 0, "real"})));
  }
}

}  // namespace
}  // namespace gp
