#include "stages/torch/efficientnet_lite.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "pipeline/error.hpp"

namespace gp {
namespace {

constexpr double kBatchNormEpsilon = 1e-3;

/// The stages of the network. Only the first block of a stage has its stride and changes the
/// number of channels.
struct StageSpec {
  int repeats;
  int kernel;
  int stride;
  int expand;
  int in;
  int out;
};
constexpr int kStemChannels = 32;
constexpr StageSpec kStages[] = {
    {1, 3, 1, 1, kStemChannels, 16},
    {2, 3, 2, 6, 16, 24},
    {2, 5, 2, 6, 24, 40},
    {3, 3, 2, 6, 40, 80},
    {3, 5, 1, 6, 80, 112},
    {4, 5, 2, 6, 112, 192},
    {1, 3, 1, 6, 192, 320},
};
constexpr int kLastChannels = 320;

/// Takes tensors out of the file by name and checks them.
class Loader {
 public:
  Loader(const Safetensors& weights, const std::string& where) : weights_(weights), where_(where) {}

  at::Tensor take(const std::string& name, at::IntArrayRef shape) const {
    const auto it = weights_.tensors.find(name);
    if (it == weights_.tensors.end()) fail(name, "is missing");
    const at::Tensor& tensor = it->second;
    if (tensor.scalar_type() != at::kFloat || tensor.sizes() != shape) {
      fail(name, "is " + std::string(c10::toString(tensor.scalar_type())) + " " +
                     c10::str(tensor.sizes()) + ", expected Float " + c10::str(shape));
    }
    if (!at::isfinite(tensor).all().item<bool>()) fail(name, "holds NaN or infinity");
    return tensor;
  }

  struct Folded {
    at::Tensor weight;
    at::Tensor bias;
  };
  /// Convolution and the batch norm after it as one convolution; folded in float64.
  Folded fold(const std::string& conv, const std::string& norm, at::IntArrayRef shape) const {
    const at::IntArrayRef channels = shape.slice(0, 1);
    const at::Tensor weight = take(conv + ".weight", shape).to(at::kDouble);
    const at::Tensor gamma = take(norm + ".weight", channels).to(at::kDouble);
    const at::Tensor beta = take(norm + ".bias", channels).to(at::kDouble);
    const at::Tensor mean = take(norm + ".running_mean", channels).to(at::kDouble);
    const at::Tensor variance = take(norm + ".running_var", channels).to(at::kDouble);
    if (variance.lt(0).any().item<bool>()) fail(norm + ".running_var", "holds negative values");
    const at::Tensor scale = gamma / (variance + kBatchNormEpsilon).sqrt();
    return {(weight * scale.view({-1, 1, 1, 1}))
                .to(at::kFloat)
                .contiguous(at::MemoryFormat::ChannelsLast),
            (beta - mean * scale).to(at::kFloat)};
  }

 private:
  [[noreturn]] void fail(const std::string& tensor, const std::string& what) const {
    throw DataError(where_ + ": not the weights of EfficientNet-Lite0: tensor '" + tensor + "' " +
                    what + "; run tools/bootstrap to get the right file");
  }
  const Safetensors& weights_;
  const std::string& where_;
};

}  // namespace

EfficientNetLite0::EfficientNetLite0(const Safetensors& weights, const std::string& where) {
  const Loader loader(weights, where);
  const auto conv = [&](const std::string& name, const std::string& norm, at::IntArrayRef shape,
                        int stride, int groups, bool relu6) {
    const Loader::Folded folded = loader.fold(name, norm, shape);
    return Conv{folded.weight, folded.bias, stride, groups, relu6};
  };

  stem_ = conv("_conv_stem", "_bn0", {kStemChannels, 3, 3, 3}, 2, 1, true);
  int index = 0;
  for (const StageSpec& stage : kStages) {
    for (int i = 0; i < stage.repeats; ++i) {
      const std::string prefix = "_blocks." + std::to_string(index++) + ".";
      const int in = i == 0 ? stage.in : stage.out;
      const int stride = i == 0 ? stage.stride : 1;
      const int wide = in * stage.expand;
      Block block;
      if (stage.expand != 1) {
        block.convs.push_back(
            conv(prefix + "_expand_conv", prefix + "_bn0", {wide, in, 1, 1}, 1, 1, true));
      }
      block.convs.push_back(conv(prefix + "_depthwise_conv", prefix + "_bn1",
                                 {wide, 1, stage.kernel, stage.kernel}, stride, wide, true));
      block.convs.push_back(
          conv(prefix + "_project_conv", prefix + "_bn2", {stage.out, wide, 1, 1}, 1, 1, false));
      block.skip = stride == 1 && in == stage.out;
      blocks_.push_back(std::move(block));
    }
  }
  head_ = conv("_conv_head", "_bn1", {kFeatures, kLastChannels, 1, 1}, 1, 1, true);
  fc_weight_ = loader.take("_fc.weight", {kClasses, kFeatures});
  fc_bias_ = loader.take("_fc.bias", {kClasses});
}

void EfficientNetLite0::to(at::Device device) {
  const auto move = [device](Conv& conv) {
    conv.weight = conv.weight.to(device);
    conv.bias = conv.bias.to(device);
  };
  move(stem_);
  for (Block& block : blocks_) std::for_each(block.convs.begin(), block.convs.end(), move);
  move(head_);
  fc_weight_ = fc_weight_.to(device);
  fc_bias_ = fc_bias_.to(device);
}

at::Tensor EfficientNetLite0::run(const Conv& conv, const at::Tensor& input) {
  // TensorFlow's "same" padding. At stride 2 and even sizes it pads one pixel more at the bottom
  // and right than at the top and left, which a convolution's own padding cannot say.
  const std::int64_t kernel = conv.weight.size(2);
  at::Tensor x = input;
  std::int64_t padding = (kernel - 1) / 2;
  if (conv.stride == 2) {
    const std::int64_t before = (kernel - 2) / 2;
    const std::int64_t after = kernel - 2 - before;
    x = at::constant_pad_nd(x, {before, after, before, after});
    padding = 0;
  }
  // at::_convolution rather than at::conv2d: fp32 and one fixed algorithm are part of the protocol,
  // on a GPU too, whatever the process has chosen for training.
  x = at::_convolution(x, conv.weight, conv.bias, {conv.stride, conv.stride}, {padding, padding},
                       {1, 1}, /*transposed=*/false, /*output_padding=*/{0, 0}, conv.groups,
                       /*benchmark=*/false, /*deterministic=*/true, /*cudnn_enabled=*/true,
                       /*allow_tf32=*/false);
  return conv.relu6 ? at::hardtanh_(x, 0, 6) : x;
}

at::Tensor EfficientNetLite0::features(const at::Tensor& images) const {
  const at::NoGradGuard no_grad;
  at::Tensor x = run(stem_, images.contiguous(at::MemoryFormat::ChannelsLast));
  for (const Block& block : blocks_) {
    const at::Tensor input = x;
    for (const Conv& conv : block.convs) x = run(conv, x);
    if (block.skip) x.add_(input);
  }
  return run(head_, x).mean({2, 3});
}

at::Tensor EfficientNetLite0::logits(const at::Tensor& features) const {
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard no_tf32;
  return at::linear(features, fc_weight_, fc_bias_);
}

}  // namespace gp
