#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "stages/torch/safetensors.hpp"

namespace gp {

/// EfficientNet-Lite0 for inference: features and class scores of 224 x 224 images.
///
/// The network of Google's EfficientNet-Lite (https://github.com/tensorflow/tpu, models/official/
/// efficientnet/lite) with the tensor names of the PyPI package efficientnet-lite-pytorch. Batch
/// norm (running statistics, eps 1e-3) is folded into the convolutions when it is loaded. fp32,
/// channels_last. Safe to use from several threads at once.
class EfficientNetLite0 {
 public:
  static constexpr int kImageSize = 224;
  static constexpr int kFeatures = 1280;
  static constexpr int kClasses = 1000;  ///< ImageNet 2012; 404 is "airliner"

  /// Takes the weights as they are in the package; further tensors are ignored. Throws DataError
  /// naming `where` and the tensors that are missing, of another shape, or not finite.
  EfficientNetLite0(const Safetensors& weights, const std::string& where);

  void to(at::Device device);
  at::Device device() const { return fc_weight_.device(); }

  /// `images`: float [N,3,224,224] on device(), (x - 127) / 128 of 0..255. Returns the globally
  /// average-pooled features [N,1280], float, on device().
  at::Tensor features(const at::Tensor& images) const;
  /// Class scores (before softmax) [N,1000] of such features.
  at::Tensor logits(const at::Tensor& features) const;

 private:
  struct Conv {
    at::Tensor weight;  ///< with batch norm folded in
    at::Tensor bias;
    int stride = 1;
    int groups = 1;
    bool relu6 = true;
  };
  /// One inverted bottleneck: expand (but in the first), depthwise, project.
  struct Block {
    std::vector<Conv> convs;
    bool skip = false;  ///< the input is added to the output
  };

  static at::Tensor run(const Conv& conv, const at::Tensor& input);

  Conv stem_;
  std::vector<Block> blocks_;
  Conv head_;
  at::Tensor fc_weight_;
  at::Tensor fc_bias_;
};

}  // namespace gp
