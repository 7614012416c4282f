#include "stages/torch/dcgan.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

at::Tensor random_maps(at::IntArrayRef sizes, const std::string& purpose) {
  return normal_tensor(sizes, {3, purpose, 0});
}

TEST(UpConv, EqualsUpsamplingThenConvolution) {
  UpConv layer(6, 5);
  init_weights(*layer, "test", 1);
  const at::Tensor x = random_maps({2, 6, 7, 9}, "x").set_requires_grad(true);
  const at::Tensor weights = random_maps({2, 5, 14, 18}, "weights");
  const at::Tensor folded = layer(x);
  (folded * weights).sum().backward();
  const at::Tensor x_gradient = x.grad().clone();
  const at::Tensor weight_gradient = layer->weight.grad().clone();

  x.mutable_grad().reset();
  layer->weight.mutable_grad().reset();
  const at::Tensor plain =
      at::conv2d(at::upsample_nearest2d(x, {14, 18}), layer->weight, layer->bias, {1, 1}, {1, 1});
  (plain * weights).sum().backward();
  EXPECT_TRUE(at::allclose(folded, plain, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x_gradient, x.grad(), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(weight_gradient, layer->weight.grad(), 1e-4, 1e-4));
}

TEST(Conv, PadsBelowAndToTheRightAtStrideTwo) {
  Conv layer(1, 1, 2);
  at::NoGradGuard no_grad;
  layer->weight.fill_(1);
  const at::Tensor x = at::arange(16, at::kFloat).view({1, 1, 4, 4});
  // Sums of the 3x3 windows at rows and columns 0..2 and 2..4, row and column 4 being zero.
  const at::Tensor expected = at::tensor({45.0F, 39.0F, 66.0F, 50.0F}).view({1, 1, 2, 2});
  EXPECT_TRUE(at::equal(layer(x), expected)) << layer(x);
}

TEST(Dcgan, DepthFollowsTheResolution) {
  for (int resolution = 16; resolution <= 256; resolution *= 2) {
    DcganConfig config;
    config.resolution = resolution;
    config.channels = 4;
    config.channels_d = 2;
    config.latent = 10;
    Generator generator(config);
    Discriminator discriminator(config);
    const at::Tensor images = generator(random_maps({3, 10}, "z"));
    EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{3, 3, resolution, resolution}));
    EXPECT_TRUE(images.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_EQ(discriminator(images).sizes(), (std::vector<std::int64_t>{3}));
  }
}

TEST(Dcgan, ChannelsDoubleUpToTheLimit) {
  DcganConfig config;
  config.resolution = 256;
  config.max_channels = 100;
  Generator generator(config);
  EXPECT_EQ(generator->named_parameters()["dense.weight"].size(0), 8 * 8 * 100);
  EXPECT_EQ(generator->named_parameters()["block4_conv.weight"].sizes(),
            (std::vector<std::int64_t>{32, 64, 3, 3}));
  Discriminator discriminator(config);
  EXPECT_EQ(discriminator->named_parameters()["block5_conv.weight"].sizes(),
            (std::vector<std::int64_t>{100, 100, 3, 3}));
}

TEST(Dcgan, DropoutNeedsAKeyAndDependsOnIt) {
  DcganConfig config;
  config.resolution = 16;
  Discriminator discriminator(config);
  init_weights(*discriminator, "D", 1);
  discriminator->eval();
  const at::Tensor images = random_maps({2, 3, 16, 16}, "images");
  const at::Tensor plain = discriminator(images);
  EXPECT_TRUE(at::equal(plain, discriminator(images)));
  const at::Tensor dropped = discriminator(images, DropoutKey{1, 0, "real"});
  EXPECT_FALSE(at::allclose(dropped, plain));
  EXPECT_TRUE(at::equal(dropped, discriminator(images, DropoutKey{1, 0, "real"})));
  EXPECT_FALSE(at::allclose(dropped, discriminator(images, DropoutKey{1, 0, "fake"})));
  EXPECT_FALSE(at::allclose(dropped, discriminator(images, DropoutKey{1, 1, "real"})));
}

TEST(InitWeights, IsGlorotUniformAndDependsOnTheSeed) {
  DcganConfig config;
  config.resolution = 32;
  Generator a(config), b(config), c(config);
  init_weights(*a, "G", 1);
  init_weights(*b, "G", 1);
  init_weights(*c, "G", 2);
  for (const auto& parameter : a->named_parameters()) {
    const at::Tensor& value = parameter.value();
    EXPECT_TRUE(at::equal(value, b->named_parameters()[parameter.key()]));
    if (value.dim() < 2) continue;
    EXPECT_FALSE(at::equal(value, c->named_parameters()[parameter.key()]));
    const double fans = static_cast<double>(value.numel()) /
                        static_cast<double>(value.size(0) * value.size(1)) *
                        static_cast<double>(value.size(0) + value.size(1));
    const double limit = std::sqrt(6 / fans);
    EXPECT_LE(value.abs().max().item<double>(), limit * 1.0001) << parameter.key();
    // A uniform distribution on [-limit, limit] has the variance limit^2 / 3.
    EXPECT_NEAR(value.std().item<double>() / (limit / std::sqrt(3)), 1, 0.05) << parameter.key();
  }
}

TEST(Pixels, SurviveTheWayToTheNetworkAndBack) {
  const at::Tensor pixels =
      at::arange(2 * 8 * 16 * 3).remainder(256).to(at::kByte).view({2, 8, 16, 3});
  const at::Tensor images = to_signed(pixels);
  EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{2, 3, 8, 16}));
  EXPECT_TRUE(images.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(images.min().item<float>(), -1);
  EXPECT_EQ(images.max().item<float>(), 1);
  EXPECT_TRUE(at::equal(to_pixels(images), pixels));
}

}  // namespace
}  // namespace gp
