#include "stages/torch/dcgan.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

constexpr int kSmallestMap = 8;
constexpr double kBatchNormMomentum = 0.2;  // Keras: 0.8
constexpr double kBatchNormEps = 1e-3;
constexpr double kLeak = 0.2;

at::Tensor kernel(int out, int in) {
  return at::zeros({out, in, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
}

/// The taps of a 3-kernel along `dim`, summed where they meet the same pixel of the small map.
at::Tensor fold(const at::Tensor& weight, std::int64_t dim) {
  const at::Tensor w0 = weight.select(dim, 0);
  const at::Tensor w1 = weight.select(dim, 1);
  const at::Tensor w2 = weight.select(dim, 2);
  return at::stack({w2, w1 + w2, w0 + w1, w0}, dim);
}

}  // namespace

int DcganConfig::levels() const {
  return std::countr_zero(static_cast<unsigned>(resolution / kSmallestMap));
}

int DcganConfig::channels_at(int base, int halvings) const {
  return std::min(base << halvings, max_channels);
}

ConvImpl::ConvImpl(int in, int out, int stride)
    : weight(register_parameter("weight", kernel(out, in))),
      bias(register_parameter("bias", at::zeros({out}))),
      stride_(stride) {}

at::Tensor ConvImpl::forward(const at::Tensor& x) { return convolve(x, false, true); }

at::Tensor ConvImpl::convolve(const at::Tensor& x, bool padded, bool add_bias) {
  const at::Tensor input = stride_ == 1 || padded ? x : at::constant_pad_nd(x, {0, 1, 0, 1});
  const std::int64_t padding = stride_ == 1 ? 1 : 0;
  return at::conv2d(input, weight, add_bias ? bias : at::Tensor(), {stride_, stride_},
                    {padding, padding});
}

UpConvImpl::UpConvImpl(int in, int out, bool exact)
    : weight(register_parameter("weight", kernel(out, in))),
      bias(register_parameter("bias", at::zeros({out}))),
      exact_(exact) {}

at::Tensor UpConvImpl::forward(const at::Tensor& x) { return convolve(x, true); }

at::Tensor UpConvImpl::convolve(const at::Tensor& x, bool add_bias) {
  const at::Tensor added = add_bias ? bias : at::Tensor();
  if (exact_) {
    const at::Tensor large = at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
    return at::conv2d(large, weight, added, {1, 1}, {1, 1});
  }
  const at::Tensor folded = fold(fold(weight, 2), 3).transpose(0, 1);
  return at::conv_transpose2d(x, folded, added, {2, 2}, {1, 1});
}

BatchNormImpl::BatchNormImpl(int channels)
    : weight(register_parameter("weight", at::ones({channels}))),
      bias(register_parameter("bias", at::zeros({channels}))),
      running_mean(register_buffer("running_mean", at::zeros({channels}))),
      running_var(register_buffer("running_var", at::ones({channels}))) {}

at::Tensor BatchNormImpl::forward(const at::Tensor& x) {
  return at::batch_norm(x, weight, bias, running_mean, running_var, /*training=*/false,
                        kBatchNormMomentum, kBatchNormEps, /*cudnn_enabled=*/true);
}

BatchNormState BatchNormImpl::state(const at::Tensor& input_bias) const {
  return {weight, bias, running_mean, running_var, kBatchNormMomentum, kBatchNormEps, input_bias};
}

DenseImpl::DenseImpl(int in, int out)
    : weight(register_parameter("weight", at::zeros({out, in}))),
      bias(register_parameter("bias", at::zeros({out}))) {}

at::Tensor DenseImpl::forward(const at::Tensor& x) { return at::linear(x, weight, bias); }

GeneratorImpl::GeneratorImpl(const DcganConfig& config)
    : exact_(config.exact), dense_channels_(config.channels_at(config.channels, config.levels())) {
  dense_ =
      register_module("dense", Dense(config.latent, dense_channels_ * kSmallestMap * kSmallestMap));
  int in = dense_channels_;
  for (int level = config.levels() - 1; level >= 0; --level) {
    const std::string name = "block" + std::to_string(blocks_.size());
    const int out = config.channels_at(config.channels, level);
    Block block;
    block.conv = register_module(name + "_conv", UpConv(in, out, exact_));
    block.norm = register_module(name + "_norm", BatchNorm(out));
    blocks_.push_back(block);
    in = out;
  }
  image_ = register_module("image", Conv(in, 3, 1));
}

at::Tensor GeneratorImpl::forward(const at::Tensor& z) {
  at::Tensor x = at::relu(dense_(z))
                     .view({z.size(0), kSmallestMap, kSmallestMap, dense_channels_})
                     .permute({0, 3, 1, 2});
  for (Block& block : blocks_) {
    if (!is_training()) {
      x = at::relu(block.norm(block.conv(x)));
      continue;
    }
    // Not added where batch norm takes it away again: oneDNN needs as long for the gradient of a
    // transposed convolution's bias (which is 0 here) as for that of its weights.
    x = block.conv->convolve(x, /*add_bias=*/exact_);
    x = norm_activation(x, block.norm->state(exact_ ? at::Tensor() : block.conv->bias), 0, {},
                        /*pad=*/false, exact_);
  }
  return at::tanh(image_(x));
}

DiscriminatorImpl::DiscriminatorImpl(const DcganConfig& config)
    : dropout_(config.dropout), exact_(config.exact) {
  int in = 3;
  for (int level = 0; level <= config.levels(); ++level) {
    const std::string name = "block" + std::to_string(level);
    const int out = config.channels_at(config.channels_d, level);
    Block block;
    block.conv = register_module(name + "_conv", Conv(in, out, level < config.levels() ? 2 : 1));
    if (level > 0) block.norm = register_module(name + "_norm", BatchNorm(out));
    blocks_.push_back(block);
    in = out;
  }
  dense_ = register_module("dense", Dense(in * kSmallestMap * kSmallestMap, 1));
}

at::Tensor DiscriminatorImpl::forward(const at::Tensor& images,
                                      const std::optional<DropoutKey>& dropout) {
  at::Tensor x = images;
  bool padded = false;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    std::optional<BatchNormState> norm;
    if (block.norm && is_training()) {
      x = block.conv->convolve(x, padded, /*add_bias=*/exact_);
      norm = block.norm->state(exact_ ? at::Tensor() : block.conv->bias);
    } else {
      x = block.conv->convolve(x, padded, /*add_bias=*/true);
      if (block.norm) x = block.norm(x);
    }
    std::optional<Dropout> dropped;
    if (dropout) {
      dropped = Dropout{
          dropout_,
          {dropout->seed, "dropout." + dropout->pass + "." + std::to_string(i), dropout->step}};
    }
    padded = i + 1 < blocks_.size() && blocks_[i + 1].conv->stride() == 2;
    x = norm_activation(x, norm, kLeak, dropped, padded, exact_);
  }
  return dense_(x.permute({0, 2, 3, 1}).flatten(1)).squeeze(1).to(at::kFloat);
}

void init_weights(torch::nn::Module& network, const std::string& name, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : network.named_parameters()) {
    at::Tensor weight = parameter.value();
    if (weight.dim() < 2) continue;  // biases stay 0, batch norm's scales 1
    const std::int64_t taps = weight.numel() / (weight.size(0) * weight.size(1));
    const double limit =
        std::sqrt(6.0 / static_cast<double>(taps * (weight.size(0) + weight.size(1))));
    at::Tensor drawn = at::empty(weight.sizes(), at::kFloat);
    fill_uniform(drawn, {seed, "weights." + name + "." + parameter.key(), 0},
                 static_cast<float>(-limit), static_cast<float>(limit));
    weight.copy_(drawn);
  }
}

at::Tensor to_signed(const at::Tensor& pixels) {
  return pixels.permute({0, 3, 1, 2}).to(at::kFloat).sub_(127.5).div_(127.5);
}

at::Tensor to_pixels(const at::Tensor& images) {
  return images.to(at::kFloat)
      .mul(127.5)
      .add_(127.5)
      .round_()
      .clamp_(0, 255)
      .permute({0, 2, 3, 1})
      .to(at::kByte)
      .contiguous();
}

}  // namespace gp
