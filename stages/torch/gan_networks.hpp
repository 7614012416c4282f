#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "stages/torch/dcgan.hpp"
#include "stages/torch/gan_layers.hpp"
#include "stages/torch/networks.hpp"

namespace gp {

/// What the networks of a GAN are made of. The smallest maps are 8 x 8 everywhere.
struct GanConfig {
  enum class Blocks {
    kPlain,  ///< the DCGAN's: one convolution a level
    /// One residual block a level, after R3GAN (Huang et al. 2024, "The GAN is dead"): nothing on
    /// the way of the skip but the resampling and, where channels change, a 1x1 convolution; the
    /// last convolution of each block starts at 0. Unlike there, a level has one block, not two, of
    /// two 3x3 convolutions with one activation between, not 1x1, grouped 3x3, 1x1 (grouped ones
    /// are slow on CPUs), and the first of them resamples (the second in D): from the nearest
    /// pixels, and by means of 2x2. (The skip upsamples bilinearly, as there.) The smallest maps
    /// are 8x8, not 4x4, and the image passes a 3x3 convolution and tanh.
    kResidual
  };
  enum class Norm { kNone, kBatch, kSpectral };  ///< kSpectral: the discriminator's only
  enum class Growth {
    kNone,
    /// The generator's image is the sum of what all levels give, upsampled (Karras et al. 2020,
    /// StyleGAN2's output skips). The discriminator is what it is without.
    kSkip,
    /// Trained from small to large images (Karras et al. 2018, "Progressive Growing of GANs").
    kPhases
  };

  int resolution = 64;     ///< pixels a side in the end: a power of two, 16 to 512
  int latent = 128;        ///< length of z
  int channels = 32;       ///< of the generator at full size; doubled at each halving ...
  int channels_d = 32;     ///< of the discriminator's first layer; doubled at each halving ...
  int max_channels = 512;  ///< ... up to this
  Blocks blocks = Blocks::kPlain;
  Norm norm_g = Norm::kBatch;
  Norm norm_d = Norm::kSpectral;
  double dropout = 0;             ///< discriminator
  bool minibatch_stddev = false;  ///< discriminator; see append_minibatch_stddev
  int classes = 0;                ///< above 0: conditional
  Growth growth = Growth::kNone;
  int first_resolution = 8;  ///< of kPhases

  static constexpr int kMaxClasses = 100000;
  // In the order of the enumerations.
  static std::vector<std::string> block_names() { return {"plain", "residual"}; }
  static std::vector<std::string> norm_names() { return {"none", "batch", "spectral"}; }
  static std::vector<std::string> growth_names() { return {"none", "skip", "phases"}; }

  /// Halvings between the image and the 8 x 8 maps: 3 for 64.
  int levels() const;
  /// Channels at `halvings` below full size, for a network that starts with `base`.
  int channels_at(int base, int halvings) const;
};

// Constructors throw c10::Error for configurations that make no sense. All maps are [N,C,H,W],
// channels_last. Weights are 0 until init_gan_weights().

/// z -> dense to 8 x 8 -> a block for each doubling -> RGB, tanh.
///
/// Plain without growth it is the DCGAN: ReLU after dense, 3x3 convolution to RGB. Else dense is
/// linear and followed by a 3x3 convolution with norm and activation, so that 8 x 8 images are no
/// linear function of z; with growth each level has its 3x3 convolution to RGB. tanh comes last,
/// after skips are summed and levels blended. ReLU with batch norm, else LeakyReLU 0.2.
/// Conditional: z is followed by the label's row of a table, brought to mean square 1 (as in
/// StyleGAN2-ADA).
///
/// Batch norm: by the batch in training mode, else by running statistics.
class GanGeneratorImpl : public GeneratorNetwork {
 public:
  explicit GanGeneratorImpl(const GanConfig& config);
  /// [N,latent] -> [N,3,r,r] in [-1,1], float also under autocast. `labels`: int64 [N], used where
  /// there are classes.
  at::Tensor forward(const at::Tensor& z, const at::Tensor& labels = {});
  at::Tensor generate(const at::Tensor& z, const at::Tensor& labels) override {
    return forward(z, labels);
  }
  /// kPhases only; until then it is the full resolution.
  void set_growth(const GrowthPoint& point) override;
  void init(std::uint64_t seed);

 private:
  struct Block {
    UpConv conv{nullptr};
    BatchNorm norm{nullptr};
    Conv conv2{nullptr};
    GanConv skip{nullptr};
  };
  at::Tensor activate(const at::Tensor& x, BatchNorm& norm, const at::Tensor& bias);
  at::Tensor run(Block& block, const at::Tensor& x);

  GanConfig config_;
  GrowthPoint point_;
  double leak_;
  int dense_channels_;
  ClassTable table_{nullptr};
  Dense dense_{nullptr};
  Conv base_{nullptr};
  BatchNorm base_norm_{nullptr};
  std::vector<Block> blocks_;  ///< from small to large
  std::vector<Conv> to_rgb_;   ///< of 8 << i; empty below first_resolution and without growth
  Conv image_{nullptr};
  std::unordered_map<std::string, double> gains_;
};
TORCH_MODULE(GanGenerator);

/// RGB -> a block for each halving down to 8 x 8 -> [minibatch deviation] -> 3x3 convolution, norm,
/// activation, dropout -> dense to one logit.
///
/// Plain without kPhases it is the DCGAN: the first block's convolution takes the image, its output
/// is not batch-normed, channels(level) come out of a level. Else a 1x1 convolution makes
/// channels(0) of the image (followed by an activation where blocks are plain), and
/// channels(level + 1) come out of a level.
/// LeakyReLU 0.2 (the paper of spectral norm has 0.1). Dropout follows every activation of a block.
/// Conditional: the logit has the label's row of a table, times the last maps summed over space,
/// added (Miyato and Koyama 2018, "cGANs with Projection Discriminator").
class GanDiscriminatorImpl : public DiscriminatorNetwork {
 public:
  explicit GanDiscriminatorImpl(const GanConfig& config);
  /// [N,3,r,r] in [-1,1] -> logits [N], float also under autocast; above 0: real. `labels`: int64
  /// [N], used where there are classes. Without a key there is no dropout. `twice`: the result can
  /// be differentiated twice (for gradient penalties); the same values up to rounding, but slower.
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels = {},
                     const std::optional<DropoutKey>& dropout = {}, bool twice = false);
  at::Tensor judge(const at::Tensor& images, const at::Tensor& labels) override {
    return forward(images, labels);
  }
  /// kPhases only; until then it is the full resolution.
  void set_growth(const GrowthPoint& point) override;
  /// kSpectral: one step of power iteration for every layer. forward() never does that.
  void update_spectral();
  void init(std::uint64_t seed);

 private:
  struct Block {
    GanConv conv{nullptr};
    BatchNorm norm{nullptr};
    GanConv conv2{nullptr};
    GanConv skip{nullptr};
  };
  /// What a pass hands to its layers.
  struct Pass {
    const std::optional<DropoutKey>& dropout;
    bool twice;
  };
  at::Tensor convolve(Block& block, const at::Tensor& x, bool padded, bool pad_after,
                      const std::string& name, const Pass& pass);
  at::Tensor from_rgb(std::size_t level, const at::Tensor& images, bool pad, const Pass& pass);

  bool residual() const { return config_.blocks == GanConfig::Blocks::kResidual; }
  bool spectral() const { return config_.norm_d == GanConfig::Norm::kSpectral; }
  /// Calls `work(weight, spectral norm, name)` for every normed layer.
  template <class Work>
  void for_spectral(Work work);

  GanConfig config_;
  GrowthPoint point_;
  std::vector<GanConv> from_rgb_;  ///< of level i; empty where there is none
  std::vector<Block> blocks_;      ///< from large to small
  Block last_;
  Dense dense_{nullptr};
  SpectralNorm dense_spectral_{nullptr};
  ClassTable table_{nullptr};
  std::unordered_map<std::string, double> gains_;
};
TORCH_MODULE(GanDiscriminator);

/// Draws the weights on the CPU, purpose "weights.<G or D>.<parameter>": uniform, of a variance
/// that keeps the size of what passes, but for what bilinear skips smooth (He et al. 2015): gain^2
/// / inputs, the gain being that of the activation that follows, 1 where none does. The first
/// convolution of each of L residual blocks is divided by sqrt(L), the last is 0 (Fixup, Zhang et
/// al. 2019, with two layers a block), but where they are spectrally normed. Biases are 0. Spectral
/// norms start from a drawn u, ten iterations on.
void init_gan_weights(GanGenerator& generator, std::uint64_t seed);
void init_gan_weights(GanDiscriminator& discriminator, std::uint64_t seed);

}  // namespace gp
