#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "stages/torch/safetensors.hpp"
#include "stages/torch/winograd_conv.hpp"

namespace gp {

/// Inception-v3 as FID is defined over it, for inference: features of 299 x 299 images.
///
/// The network of pytorch-fid (https://github.com/mseitzer/pytorch-fid, pytorch_fid/inception.py),
/// which is TensorFlow's inception-2015-12-05: 1008 classes, average pools that leave the padding
/// out of the count, and one max pool where the paper has an average (Mixed_7c). Tensor names are
/// those of pytorch-fid's state dict. Batch norm (running statistics, eps 1e-3) is folded into the
/// convolutions when it is loaded. fp32, channels_last. Safe to use from several threads at once.
///
/// On a CPU convolutions are oneDNN's with ReLU fused and weights laid out for one image at a time,
/// or WinogradConv.
class InceptionV3 {
 public:
  static constexpr int kImageSize = 299;
  static constexpr int kFeatures = 2048;
  static constexpr int kClasses = 1008;

  /// Throws DataError naming `where` and the tensors that are missing, of another shape, not finite
  /// or none of the network's (`num_batches_tracked` may be there or not).
  InceptionV3(const Safetensors& weights, const std::string& where);

  void to(at::Device device);
  at::Device device() const { return fc_weight_.device(); }

  /// `images`: float [N,3,299,299] on device(), in [-1, 1]. Returns the global average pool
  /// [N,2048], float, on device().
  at::Tensor features(const at::Tensor& images) const;
  /// Class scores before softmax and without the bias [N,1008] of such features, on device():
  /// what an Inception score is taken from.
  at::Tensor unbiased_logits(const at::Tensor& features) const;

 private:
  enum class Pool { kNone, kAverage, kMax, kMaxStride2 };
  struct Conv {
    at::Tensor weight;  ///< with batch norm folded in
    at::Tensor bias;
    std::vector<std::int64_t> stride;
    std::vector<std::int64_t> padding;
    at::Tensor packed;  ///< the weight as oneDNN wants it, for a CPU; undefined elsewhere
    std::optional<WinogradConv> winograd;  ///< where that is faster on a CPU; instead of `packed`
  };
  /// Pool, then one convolution after the other, then `split`: side by side, concatenated.
  struct Branch {
    Pool pool = Pool::kNone;
    std::vector<Conv> chain;
    std::vector<Conv> split;
  };
  using Block = std::vector<Branch>;  ///< side by side on one input, concatenated
  struct Network;

  void prepare_for_cpu();
  static void prepare_for_cpu(Conv& conv, std::vector<std::int64_t>& shape);
  static at::Tensor run(const Conv& conv, const at::Tensor& input);
  static at::Tensor run(const Branch& branch, const at::Tensor& input);

  std::vector<Block> blocks_;
  at::Tensor fc_weight_;
};

}  // namespace gp
