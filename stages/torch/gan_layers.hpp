#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "stages/torch/dcgan.hpp"

namespace gp {

/// Divides a weight by its largest singular value (Miyato et al. 2018, "Spectral Normalization for
/// GANs"), which power iteration estimates: sigma = u' W v, with W the weight as one row for each
/// output. u and v are buffers and constants of the gradient, which flows through W alone.
class SpectralNormImpl : public torch::nn::Module {
 public:
  /// For weights of `weight`'s sizes. u and v are 0 until start().
  explicit SpectralNormImpl(const at::Tensor& weight);
  /// weight / sigma; a pure function of the weight and the buffers. Float, also under autocast.
  at::Tensor forward(const at::Tensor& weight);
  at::Tensor sigma(const at::Tensor& weight) const;
  /// Draws u and takes ten iterations.
  void start(const at::Tensor& weight, const RandomKey& key);
  void iterate(const at::Tensor& weight, int count = 1);

  at::Tensor u;  ///< [out], of length 1
  at::Tensor v;  ///< [the rest], of length 1; for convolutions in the order (height, width, in)
};
TORCH_MODULE(SpectralNorm);

/// A convolution of the discriminator, and every 1x1 one: with bias, optionally spectrally normed.
class GanConvImpl : public torch::nn::Module {
 public:
  enum class Kind {
    kPointwise,  ///< 1x1
    kSame,       ///< 3x3
    kStride,     ///< 3x3 at stride 2, padded below and to the right as `Conv`
    /// 3x3, then the mean of each 2x2 pixels; computed as one 4x4 convolution of stride 2, with 16
    /// instead of 36 products an output: equal, borders included.
    kMean,
  };
  GanConvImpl(int in, int out, Kind kind, bool spectral);
  at::Tensor forward(const at::Tensor& x) { return convolve(x, false, true); }
  /// `padded`: for kStride, whether x has the row and the column already.
  at::Tensor convolve(const at::Tensor& x, bool padded, bool add_bias);
  Kind kind() const { return kind_; }

  at::Tensor weight;  ///< [out,in,k,k]
  at::Tensor bias;
  SpectralNorm spectral{nullptr};

 private:
  Kind kind_;
};
TORCH_MODULE(GanConv);

/// One row for each class.
class ClassTableImpl : public torch::nn::Module {
 public:
  ClassTableImpl(int classes, int width, bool spectral = false);
  /// int64 [N] -> [N,width]. Labels outside [0, classes) throw c10::Error.
  at::Tensor forward(const at::Tensor& labels);

  at::Tensor weight;  ///< [classes,width]
  SpectralNorm spectral{nullptr};
};
TORCH_MODULE(ClassTable);

/// `x` [N,C,H,W] with one channel more, which says how much the images differ (Karras et al. 2018,
/// "Progressive Growing of GANs"): the standard deviation over a group of images, of each value,
/// averaged over all values. Image i is in group i mod (N / g), g the largest divisor of N up to 4.
/// Differentiable twice.
at::Tensor append_minibatch_stddev(const at::Tensor& x);

/// At least float: what autocast made smaller is widened.
at::Tensor widen(const at::Tensor& x);

}  // namespace gp
