#include "stages/torch/efficientnet_lite.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "stages/torch/weight_loader.hpp"

namespace gp {
namespace {

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

}  // namespace

EfficientNetLite0::EfficientNetLite0(const Safetensors& weights, const std::string& where) {
  WeightLoader loader(weights);
  const auto conv = [&](const std::string& name, const std::string& norm, at::IntArrayRef shape,
                        int stride, int groups, bool relu6) {
    const WeightLoader::Folded folded = loader.fold(name, norm, shape);
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
  loader.finish(where, "EfficientNet-Lite0", "Run tools/bootstrap to get the right file.");
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
