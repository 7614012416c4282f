#include "stages/torch/gan_networks.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "stages/torch/norm_activation.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

using Blocks = GanConfig::Blocks;
using Norm = GanConfig::Norm;
using Growth = GanConfig::Growth;
using Kind = GanConvImpl::Kind;

constexpr int kSmallestMap = 8;
constexpr double kLeak = 0.2;

/// Of an activation, for init_gan_weights: 1 / the root of the mean square it leaves of unit
/// normals.
double gain_of(double leak) { return std::sqrt(2 / (1 + leak * leak)); }

int doublings(int large, int small) {
  return std::countr_zero(static_cast<unsigned>(large / small));
}

bool is_size(int resolution, int low, int high) {
  return resolution >= low && resolution <= high &&
         std::has_single_bit(static_cast<unsigned>(resolution));
}

void check(const GanConfig& config) {
  TORCH_CHECK(is_size(config.resolution, 16, 512), "GAN: resolution ", config.resolution,
              " is not a power of two from 16 to 512");
  TORCH_CHECK(config.growth != Growth::kPhases ||
                  is_size(config.first_resolution, kSmallestMap, config.resolution),
              "GAN: first_resolution ", config.first_resolution,
              " is not a power of two from 8 to ", config.resolution);
}

void check(const GrowthPoint& point, const GanConfig& config) {
  TORCH_CHECK(config.growth == Growth::kPhases, "GAN: set_growth needs Growth::kPhases");
  TORCH_CHECK(is_size(point.resolution, config.first_resolution, config.resolution),
              "GAN: cannot grow to resolution ", point.resolution, ": not a power of two from ",
              config.first_resolution, " to ", config.resolution);
  TORCH_CHECK(point.fade > 0 && point.fade <= 1, "GAN: fade ", point.fade, " is outside (0, 1]");
  TORCH_CHECK(point.fade == 1 || point.resolution > config.first_resolution, "GAN: fade ",
              point.fade, " at ", point.resolution,
              ", where there is no smaller level; 1 expected");
}

at::Tensor upsample_nearest(const at::Tensor& x) {
  return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
}

at::Tensor upsample_bilinear(const at::Tensor& x) {
  return at::upsample_bilinear2d(x, {2 * x.size(2), 2 * x.size(3)}, /*align_corners=*/false);
}

/// `gains`: by the parameter's name; all weights but vectors have one.
void draw_weights(torch::nn::Module& network, const std::string& name, std::uint64_t seed,
                  const std::unordered_map<std::string, double>& gains) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : network.named_parameters()) {
    at::Tensor weight = parameter.value();
    if (weight.dim() < 2) continue;
    const double inputs = static_cast<double>(weight.numel() / weight.size(0));
    const auto limit = static_cast<float>(gains.at(parameter.key()) * std::sqrt(3 / inputs));
    at::Tensor drawn = at::empty(weight.sizes(), at::kFloat);
    fill_uniform(drawn, {seed, "weights." + name + "." + parameter.key(), 0}, -limit, limit);
    weight.copy_(drawn);
  }
}

}  // namespace

int GanConfig::levels() const { return doublings(resolution, kSmallestMap); }

int GanConfig::channels_at(int base, int halvings) const {
  return std::min(base << halvings, max_channels);
}

GanGeneratorImpl::GanGeneratorImpl(const GanConfig& config)
    : config_(config),
      point_{config.resolution},
      leak_(config.norm_g == Norm::kBatch ? 0 : kLeak),
      dense_channels_(config.channels_at(config.channels, config.levels())) {
  check(config);
  TORCH_CHECK(config.norm_g != Norm::kSpectral,
              "GAN: spectral norm is the discriminator's; found it for the generator");
  const bool batch_norm = config.norm_g == Norm::kBatch;
  const bool residual = config.blocks == Blocks::kResidual;
  const bool grows = config.growth != Growth::kNone;
  const double gain = gain_of(leak_);
  if (config.classes > 0) {
    table_ = register_module("embedding", ClassTable(config.classes, config.latent));
    gains_["embedding.weight"] = std::sqrt(config.latent);  // unit variance
  }
  dense_ = register_module("dense", Dense(config.latent * (table_ ? 2 : 1),
                                          dense_channels_ * kSmallestMap * kSmallestMap));
  gains_["dense.weight"] = residual || grows ? 1 : gain;
  if (residual || grows) {
    base_ = register_module("base_conv", Conv(dense_channels_, dense_channels_, 1));
    if (batch_norm) base_norm_ = register_module("base_norm", BatchNorm(dense_channels_));
    gains_["base_conv.weight"] = gain;
  }
  const int levels = config.levels();
  int in = dense_channels_;
  for (int i = 0; i <= levels; ++i) {
    const int out = config.channels_at(config.channels, levels - std::max(i, 1));
    if (i > 0) {
      const std::string name = "block" + std::to_string(i - 1);
      Block block;
      block.conv = register_module(name + "_conv", UpConv(in, out));
      gains_[name + "_conv.weight"] = residual ? gain / std::sqrt(levels) : gain;
      if (batch_norm) block.norm = register_module(name + "_norm", BatchNorm(out));
      if (residual) {
        block.conv2 = register_module(name + "_conv2", Conv(out, out, 1));
        gains_[name + "_conv2.weight"] = 0;
        if (in != out) {
          block.skip = register_module(name + "_skip", GanConv(in, out, Kind::kPointwise, false));
          gains_[name + "_skip.weight"] = 1;
        }
      }
      blocks_.push_back(block);
      in = out;
    }
    if (!grows) continue;
    const int size = kSmallestMap << i;
    to_rgb_.emplace_back(nullptr);
    if (config.growth == Growth::kPhases && size < config.first_resolution) continue;
    const std::string name = "rgb" + std::to_string(size);
    to_rgb_.back() = register_module(name, Conv(in, 3, 1));
    // Skips add up.
    gains_[name + ".weight"] = config.growth == Growth::kSkip ? 1 / std::sqrt(levels + 1) : 1;
  }
  if (!grows) {
    image_ = register_module("image", Conv(in, 3, 1));
    gains_["image.weight"] = 1;
  }
}

void GanGeneratorImpl::set_growth(const GrowthPoint& point) {
  check(point, config_);
  point_ = point;
}

/// Of a convolution's output without its bias, which is `bias`.
at::Tensor GanGeneratorImpl::activate(const at::Tensor& x, BatchNorm& norm,
                                      const at::Tensor& bias) {
  return norm_activation(x, norm->state(bias), leak_, {}, /*pad=*/false);
}

at::Tensor GanGeneratorImpl::run(Block& block, const at::Tensor& x) {
  at::Tensor y;
  if (block.norm && is_training()) {
    // See GeneratorImpl: the bias would be taken away again.
    y = activate(block.conv->convolve(x, /*add_bias=*/false), block.norm, block.conv->bias);
  } else {
    y = block.conv(x);
    if (block.norm) y = block.norm(y);
    y = norm_activation(y, {}, leak_, {}, /*pad=*/false);
  }
  if (!block.conv2) return y;
  // The 1x1 convolution before the upsampling: the same, with a quarter of the work.
  return block.conv2(y) + upsample_bilinear(block.skip ? block.skip(x) : x);
}

at::Tensor GanGeneratorImpl::forward(const at::Tensor& z, const at::Tensor& labels) {
  at::Tensor input = z;
  if (table_) {
    const at::Tensor row = table_(labels);
    input = at::cat({z, row * at::rsqrt(row.square().mean(1, /*keepdim=*/true) + 1e-8)}, 1);
  }
  at::Tensor x = dense_(input);
  if (!base_) x = leak_ == 0 ? at::relu(x) : at::leaky_relu(x, leak_);
  x = x.view({z.size(0), kSmallestMap, kSmallestMap, dense_channels_}).permute({0, 3, 1, 2});
  if (base_) {
    if (base_norm_ && is_training()) {
      x = activate(base_->convolve(x, /*padded=*/false, /*add_bias=*/false), base_norm_,
                   base_->bias);
    } else {
      x = base_(x);
      if (base_norm_) x = base_norm_(x);
      x = norm_activation(x, {}, leak_, {}, /*pad=*/false);
    }
  }
  const auto count = static_cast<std::size_t>(doublings(point_.resolution, kSmallestMap));
  at::Tensor image;
  if (config_.growth == Growth::kSkip) image = widen(to_rgb_[0](x));
  for (std::size_t i = 0; i < count; ++i) {
    if (i + 1 == count && point_.fade < 1) image = upsample_nearest(widen(to_rgb_[i](x)));
    x = run(blocks_[i], x);
    if (config_.growth == Growth::kSkip) {
      // Bilinear, as there.
      image = upsample_bilinear(image) + widen(to_rgb_[i + 1](x));
    }
  }
  if (config_.growth == Growth::kPhases) {
    const at::Tensor newest = widen(to_rgb_[count](x));
    image = point_.fade < 1 ? at::lerp(image, newest, point_.fade) : newest;
  } else if (image_) {
    image = widen(image_(x));
  }
  return at::tanh(image).contiguous(at::MemoryFormat::ChannelsLast);
}

void GanGeneratorImpl::init(std::uint64_t seed) { draw_weights(*this, "G", seed, gains_); }

GanDiscriminatorImpl::GanDiscriminatorImpl(const GanConfig& config)
    : config_(config), point_{config.resolution} {
  check(config);
  const int levels = config.levels();
  const bool wide = residual() || config.growth == Growth::kPhases;
  const double gain = gain_of(kLeak);
  const auto channels = [&](int level) {
    return config.channels_at(config.channels_d, std::min(level, levels));
  };
  if (wide) {
    for (int level = 0; level <= levels; ++level) {
      const int size = config.resolution >> level;
      from_rgb_.emplace_back(nullptr);
      if (level > 0 && (config.growth != Growth::kPhases || size < config.first_resolution))
        continue;
      const std::string name = "rgb" + std::to_string(size);
      from_rgb_.back() =
          register_module(name, GanConv(3, channels(level), Kind::kPointwise, spectral()));
      gains_[name + ".weight"] = residual() ? 1 : gain;
    }
  }
  const bool batch_norm = config.norm_d == Norm::kBatch;
  int in = wide ? channels(0) : 3;
  for (int level = 0; level < levels; ++level) {
    const std::string name = "block" + std::to_string(level);
    const int out = channels(wide ? level + 1 : level);
    Block block;
    if (residual()) {
      block.conv = register_module(name + "_conv", GanConv(in, in, Kind::kSame, spectral()));
      gains_[name + "_conv.weight"] = spectral() ? gain : gain / std::sqrt(levels);
      if (batch_norm) block.norm = register_module(name + "_norm", BatchNorm(in));
      block.conv2 = register_module(name + "_conv2", GanConv(in, out, Kind::kMean, spectral()));
      gains_[name + "_conv2.weight"] = spectral() ? 1 : 0;
      if (in != out) {
        block.skip =
            register_module(name + "_skip", GanConv(in, out, Kind::kPointwise, spectral()));
        gains_[name + "_skip.weight"] = 1;
      }
    } else {
      block.conv = register_module(name + "_conv", GanConv(in, out, Kind::kStride, spectral()));
      gains_[name + "_conv.weight"] = gain;
      if (batch_norm && (wide || level > 0))
        block.norm = register_module(name + "_norm", BatchNorm(out));
    }
    blocks_.push_back(block);
    in = out;
  }
  const int out = channels(levels);
  last_.conv = register_module(
      "last_conv", GanConv(in + (config.minibatch_stddev ? 1 : 0), out, Kind::kSame, spectral()));
  gains_["last_conv.weight"] = gain;
  if (batch_norm) last_.norm = register_module("last_norm", BatchNorm(out));
  dense_ = register_module("dense", Dense(out * kSmallestMap * kSmallestMap, 1));
  gains_["dense.weight"] = 1;
  if (spectral()) dense_spectral_ = register_module("dense_spectral", SpectralNorm(dense_->weight));
  if (config.classes > 0) {
    table_ = register_module("embedding", ClassTable(config.classes, out, spectral()));
    // As if it met the mean over space, not the sum.
    gains_["embedding.weight"] = spectral() ? 1 : 1.0 / (kSmallestMap * kSmallestMap);
  }
}

void GanDiscriminatorImpl::set_growth(const GrowthPoint& point) {
  check(point, config_);
  point_ = point;
}

/// The first convolution of a block and what follows it.
at::Tensor GanDiscriminatorImpl::convolve(Block& block, const at::Tensor& x, bool padded,
                                          bool pad_after, const std::string& name,
                                          const Pass& pass) {
  at::Tensor y;
  std::optional<BatchNormState> norm;
  if (block.norm && is_training()) {
    y = block.conv->convolve(x, padded, /*add_bias=*/false);
    norm = block.norm->state(block.conv->bias);
  } else {
    y = block.conv->convolve(x, padded, /*add_bias=*/true);
    if (block.norm) y = block.norm(y);
  }
  std::optional<Dropout> dropped;
  if (pass.dropout && config_.dropout > 0) {
    const DropoutKey& key = *pass.dropout;
    dropped = Dropout{config_.dropout, {key.seed, "dropout." + key.pass + "." + name, key.step}};
  }
  return norm_activation(y, norm, kLeak, dropped, pad_after, /*plain=*/pass.twice);
}

at::Tensor GanDiscriminatorImpl::from_rgb(std::size_t level, const at::Tensor& images, bool pad,
                                          const Pass& pass) {
  const at::Tensor x = from_rgb_[level](images);
  return residual() ? x : norm_activation(x, {}, kLeak, {}, pad, /*plain=*/pass.twice);
}

at::Tensor GanDiscriminatorImpl::forward(const at::Tensor& images, const at::Tensor& labels,
                                         const std::optional<DropoutKey>& dropout, bool twice) {
  TORCH_CHECK(images.dim() == 4 && images.size(1) == 3 && images.size(2) == point_.resolution &&
                  images.size(3) == point_.resolution,
              "GAN: the discriminator takes images [N,3,", point_.resolution, ",",
              point_.resolution, "]; found ", images.sizes());
  const Pass pass{dropout, twice};
  const auto first = static_cast<std::size_t>(doublings(config_.resolution, point_.resolution));
  const bool fades = point_.fade < 1;
  // Convolutions of stride 2 take padding from the activation before.
  const auto pads = [&](std::size_t next) { return !residual() && next < blocks_.size(); };
  at::Tensor x = images;
  bool padded = false;
  if (!from_rgb_.empty()) {
    padded = pads(first);
    x = from_rgb(first, images, padded, pass);
  }
  for (std::size_t i = first; i < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    const bool fades_here = fades && i == first;
    const bool pad_after = pads(i + 1) && !fades_here;
    at::Tensor y = convolve(block, x, padded, pad_after, "block" + std::to_string(i), pass);
    if (block.conv2) {
      const at::Tensor small = at::avg_pool2d(x, {2, 2});
      y = block.conv2(y) + (block.skip ? block.skip(small) : small);
    }
    if (fades_here) {
      const at::Tensor old = from_rgb(i + 1, at::avg_pool2d(images, {2, 2}), /*pad=*/false, pass);
      y = at::lerp(old, y, point_.fade);
    }
    x = y;
    padded = pad_after;
  }
  if (config_.minibatch_stddev) x = append_minibatch_stddev(x);
  x = widen(convolve(last_, x, /*padded=*/false, /*pad_after=*/false, "last", pass));
  // In float: bf16 would leave a logit three digits.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const at::Tensor weight = dense_spectral_ ? dense_spectral_(dense_->weight) : dense_->weight;
  at::Tensor logits =
      at::linear(x.permute({0, 2, 3, 1}).flatten(1), weight, dense_->bias).squeeze(1);
  if (table_) logits = logits + (table_(labels) * x.sum({2, 3})).sum(1);
  return logits;
}

template <class Work>
void GanDiscriminatorImpl::for_spectral(Work work) {
  for (const auto& child : named_children()) {
    if (const auto conv = std::dynamic_pointer_cast<GanConvImpl>(child.value())) {
      work(conv->weight, conv->spectral, child.key());
    } else if (const auto table = std::dynamic_pointer_cast<ClassTableImpl>(child.value())) {
      work(table->weight, table->spectral, child.key());
    }
  }
  work(dense_->weight, dense_spectral_, std::string("dense"));
}

void GanDiscriminatorImpl::update_spectral() {
  if (!spectral()) return;
  for_spectral([](const at::Tensor& weight, SpectralNorm& norm, const std::string& /*name*/) {
    norm->iterate(weight);
  });
}

void GanDiscriminatorImpl::init(std::uint64_t seed) {
  draw_weights(*this, "D", seed, gains_);
  if (!spectral()) return;
  for_spectral([&](const at::Tensor& weight, SpectralNorm& norm, const std::string& name) {
    norm->start(weight, {seed, "spectral.D." + name, 0});
  });
}

void init_gan_weights(GanGenerator& generator, std::uint64_t seed) { generator->init(seed); }

void init_gan_weights(GanDiscriminator& discriminator, std::uint64_t seed) {
  discriminator->init(seed);
}

}  // namespace gp
