#pragma once

#include <ATen/core/Tensor.h>

namespace gp {

/// A 3x3 convolution of stride 1 with bias and ReLU, for inference on a CPU, by minimal filtering.
///
/// F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016):
/// 36 multiplications where a direct convolution takes 144. The points are 0, +-sqrt(1/2),
/// +-sqrt(2) and infinity, which round less than the paper's 0, +-1, +-2 (Barabasz et al. 2020).
/// The result differs from a direct one's by rounding, a few 1e-6 of the largest value. One thread
/// for each call, several calls at once are fine; float32.
class WinogradConv {
 public:
  /// Channels are handled so many at a time; both counts of a weight are multiples of it.
  static constexpr int kLanes = 16;
  static bool takes(at::IntArrayRef weight_shape);

  /// `weight`: float [out,in,3,3], for which takes() holds; `bias`: float [out]; zeros around the
  /// image on each side: `padding`.
  WinogradConv(const at::Tensor& weight, const at::Tensor& bias, int padding);

  /// `input`: float [N,in,H,W], CPU. Returns [N,out,H+2p-2,W+2p-2], channels_last.
  at::Tensor operator()(const at::Tensor& input) const;

 private:
  at::Tensor weight_;  ///< [36,in,out], transformed
  at::Tensor bias_;
  int padding_;
};

}  // namespace gp
