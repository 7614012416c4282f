#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stages/torch/networks.hpp"
#include "stages/torch/norm_activation.hpp"

namespace gp {

/// The size of a DCGAN. The defaults are the seed experiment's.
struct DcganConfig {
  static constexpr int kMinResolution = 16;
  static constexpr int kMaxResolution = 512;
  static constexpr int kMaxLatent = 4096;
  static constexpr int kMaxChannels = 4096;

  int resolution = 128;    ///< pixels a side: a power of two, 16 or more
  int latent = 64;         ///< length of z
  int channels = 32;       ///< of the generator at full size; doubled at each halving ...
  int channels_d = 32;     ///< of the discriminator's first layer; doubled at each halving ...
  int max_channels = 512;  ///< ... up to this
  double dropout = 0.25;   ///< discriminator
  /// Whether to compute every layer as it is described, one operation after the other, instead of
  /// faster ways to the same result. Not part of the model.
  bool exact = false;

  /// Halvings between the image and the 8 x 8 of the smallest maps: 4 for 128.
  int levels() const;
  /// Channels at `halvings` below full size, for a network that starts with `base`.
  int channels_at(int base, int halvings) const;
};

/// Which dropout masks a pass of the discriminator gets. Every pass of every step has its own.
struct DropoutKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::string pass;
};

// The layers follow Keras, where the seed comes from: Glorot-uniform weights and zero biases, batch
// norm with momentum 0.8 (torch counts the other way: 0.2) and eps 1e-3 (running variance unbiased,
// as in torch and Keras 2; Keras 3 keeps the biased one). Maps are flattened and unflattened in
// Keras's order (height, width, channel), which costs nothing for channels_last tensors. All maps
// are [N,C,H,W], channels_last. Weights are drawn by `init_weights`, not by constructors.

/// 3x3 convolution with bias, "same" padding. At stride 2 that is Keras's: for even sizes one row
/// below and one column to the right, where torch's padding = 1 would add above and to the left.
class ConvImpl : public torch::nn::Module {
 public:
  ConvImpl(int in, int out, int stride);
  at::Tensor forward(const at::Tensor& x);
  /// The parts: for stride 2, `padded` says whether `x` has that row and column already.
  at::Tensor convolve(const at::Tensor& x, bool padded, bool add_bias);
  int stride() const { return stride_; }

  at::Tensor weight;  ///< [out,in,3,3]
  at::Tensor bias;

 private:
  int stride_;
};
TORCH_MODULE(Conv);

/// Nearest-neighbour upsampling by two, then a 3x3 convolution. Computed as one 4x4 transposed
/// convolution of stride 2, whose kernel sums those of the 3x3 kernel's taps that meet the same
/// pixel: equal, borders included, with 4 instead of 9 products an output.
class UpConvImpl : public torch::nn::Module {
 public:
  UpConvImpl(int in, int out, bool exact = false);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor convolve(const at::Tensor& x, bool add_bias);

  at::Tensor weight;  ///< [out,in,3,3]
  at::Tensor bias;

 private:
  bool exact_;
};
TORCH_MODULE(UpConv);

class BatchNormImpl : public torch::nn::Module {
 public:
  explicit BatchNormImpl(int channels);
  /// By running statistics.
  at::Tensor forward(const at::Tensor& x);
  /// For norm_activation(), of what a convolution gave; `input_bias` as there.
  BatchNormState state(const at::Tensor& input_bias = {}) const;

  at::Tensor weight, bias, running_mean, running_var;
};
TORCH_MODULE(BatchNorm);

class DenseImpl : public torch::nn::Module {
 public:
  DenseImpl(int in, int out);
  at::Tensor forward(const at::Tensor& x);

  at::Tensor weight;  ///< [out,in]
  at::Tensor bias;
};
TORCH_MODULE(Dense);

/// z -> dense to 8 x 8, ReLU -> (upsample, convolution, batch norm, ReLU) for each level ->
/// convolution to RGB, tanh.
class GeneratorImpl : public GeneratorNetwork {
 public:
  explicit GeneratorImpl(const DcganConfig& config);
  /// [N,latent] -> [N,3,resolution,resolution] in [-1,1].
  at::Tensor forward(const at::Tensor& z);
  at::Tensor generate(const at::Tensor& z, const at::Tensor& /*labels*/) override {
    return forward(z);
  }

 private:
  struct Block {
    UpConv conv{nullptr};
    BatchNorm norm{nullptr};
  };
  bool exact_;
  int dense_channels_;
  Dense dense_{nullptr};
  std::vector<Block> blocks_;
  Conv image_{nullptr};
};
TORCH_MODULE(Generator);

/// (convolution of stride 2, batch norm but in the first, LeakyReLU 0.2, dropout) for each level,
/// the same once more with stride 1 -> dense to one logit.
class DiscriminatorImpl : public DiscriminatorNetwork {
 public:
  explicit DiscriminatorImpl(const DcganConfig& config);
  /// [N,3,resolution,resolution] in [-1,1] -> logits [N], float; above 0: real. Without a key there
  /// is no dropout.
  at::Tensor forward(const at::Tensor& images, const std::optional<DropoutKey>& dropout = {});
  at::Tensor judge(const at::Tensor& images, const at::Tensor& /*labels*/) override {
    return forward(images);
  }

 private:
  struct Block {
    Conv conv{nullptr};
    BatchNorm norm{nullptr};
  };
  double dropout_;
  bool exact_;
  std::vector<Block> blocks_;
  Dense dense_{nullptr};
};
TORCH_MODULE(Discriminator);

/// Draws the weights of a network on the CPU: Glorot-uniform, purpose "weights.<name>.<parameter>".
void init_weights(torch::nn::Module& network, const std::string& name, std::uint64_t seed);

/// uint8 [N,H,W,3] -> float [N,3,H,W] in [-1,1], channels_last.
at::Tensor to_signed(const at::Tensor& pixels);
/// The way back, rounded and clamped: contiguous uint8 [N,H,W,3].
at::Tensor to_pixels(const at::Tensor& images);

}  // namespace gp
