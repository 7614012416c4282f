#include "stages/torch/inception_v3.hpp"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include "stages/torch/weight_loader.hpp"

namespace gp {
namespace {

/// A convolution with its batch norm and ReLU, by its name within the block.
struct ConvSpec {
  const char* name;
  int out;
  int kernel_height = 1;
  int kernel_width = 1;
  int stride = 1;
  bool same = true;  ///< padded so that stride 1 keeps the size; else not padded
};

using FusedConv = at::Tensor(const at::Tensor& input, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias, at::IntArrayRef padding,
                             at::IntArrayRef stride, at::IntArrayRef dilation, std::int64_t groups,
                             std::string_view attribute,
                             c10::List<std::optional<at::Scalar>> scalars,
                             std::optional<std::string_view> algorithm);

/// oneDNN's convolution with ReLU, which libtorch has for its compiler and in no header. Empty
/// where this libtorch does not have it.
const std::optional<c10::TypedOperatorHandle<FusedConv>>& fused_conv() {
  static const auto found = []() -> std::optional<c10::TypedOperatorHandle<FusedConv>> {
    const auto schema =
        c10::Dispatcher::singleton().findSchema({"mkldnn::_convolution_pointwise", ""});
    if (!schema || !at::hasMKLDNN()) return std::nullopt;
    try {
      return schema->typed<FusedConv>();
    } catch (const c10::Error&) {  // it has other parameters
      return std::nullopt;
    }
  }();
  return found;
}

/// Below this many pixels a side, tiles are too few for the products to be worth it.
constexpr std::int64_t kWinogradFrom = 32;

}  // namespace

/// The network as a table. Channels that go into a block are those that come out of the last one.
struct InceptionV3::Network {
  struct BranchSpec {
    Pool pool = Pool::kNone;
    std::vector<ConvSpec> chain;
    std::vector<ConvSpec> split = {};
  };
  struct BlockSpec {
    const char* name;  ///< prefix of the convolutions' names, with its dot
    std::vector<BranchSpec> branches;
  };

  static BlockSpec a(const char* name, int pool_features) {
    return {name,
            {{Pool::kNone, {{"branch1x1", 64}}},
             {Pool::kNone, {{"branch5x5_1", 48}, {"branch5x5_2", 64, 5, 5}}},
             {Pool::kNone,
              {{"branch3x3dbl_1", 64}, {"branch3x3dbl_2", 96, 3, 3}, {"branch3x3dbl_3", 96, 3, 3}}},
             {Pool::kAverage, {{"branch_pool", pool_features}}}}};
  }
  static BlockSpec c(const char* name, int wide) {
    return {name,
            {{Pool::kNone, {{"branch1x1", 192}}},
             {Pool::kNone,
              {{"branch7x7_1", wide}, {"branch7x7_2", wide, 1, 7}, {"branch7x7_3", 192, 7, 1}}},
             {Pool::kNone,
              {{"branch7x7dbl_1", wide},
               {"branch7x7dbl_2", wide, 7, 1},
               {"branch7x7dbl_3", wide, 1, 7},
               {"branch7x7dbl_4", wide, 7, 1},
               {"branch7x7dbl_5", 192, 1, 7}}},
             {Pool::kAverage, {{"branch_pool", 192}}}}};
  }
  static BlockSpec e(const char* name, Pool pool) {
    return {name,
            {{Pool::kNone, {{"branch1x1", 320}}},
             {Pool::kNone,
              {{"branch3x3_1", 384}},
              {{"branch3x3_2a", 384, 1, 3}, {"branch3x3_2b", 384, 3, 1}}},
             {Pool::kNone,
              {{"branch3x3dbl_1", 448}, {"branch3x3dbl_2", 384, 3, 3}},
              {{"branch3x3dbl_3a", 384, 1, 3}, {"branch3x3dbl_3b", 384, 3, 1}}},
             {pool, {{"branch_pool", 192}}}}};
  }

  static std::vector<BlockSpec> blocks() {
    return {
        {"",
         {{Pool::kNone,
           {{"Conv2d_1a_3x3", 32, 3, 3, 2, false},
            {"Conv2d_2a_3x3", 32, 3, 3, 1, false},
            {"Conv2d_2b_3x3", 64, 3, 3}}}}},
        {"",
         {{Pool::kMaxStride2, {{"Conv2d_3b_1x1", 80}, {"Conv2d_4a_3x3", 192, 3, 3, 1, false}}}}},
        {"", {{Pool::kMaxStride2, {}}}},
        a("Mixed_5b.", 32),
        a("Mixed_5c.", 64),
        a("Mixed_5d.", 64),
        {"Mixed_6a.",
         {{Pool::kNone, {{"branch3x3", 384, 3, 3, 2, false}}},
          {Pool::kNone,
           {{"branch3x3dbl_1", 64},
            {"branch3x3dbl_2", 96, 3, 3},
            {"branch3x3dbl_3", 96, 3, 3, 2, false}}},
          {Pool::kMaxStride2, {}}}},
        c("Mixed_6b.", 128),
        c("Mixed_6c.", 160),
        c("Mixed_6d.", 160),
        c("Mixed_6e.", 192),
        {"Mixed_7a.",
         {{Pool::kNone, {{"branch3x3_1", 192}, {"branch3x3_2", 320, 3, 3, 2, false}}},
          {Pool::kNone,
           {{"branch7x7x3_1", 192},
            {"branch7x7x3_2", 192, 1, 7},
            {"branch7x7x3_3", 192, 7, 1},
            {"branch7x7x3_4", 192, 3, 3, 2, false}}},
          {Pool::kMaxStride2, {}}}},
        e("Mixed_7b.", Pool::kAverage),
        e("Mixed_7c.", Pool::kMax),
    };
  }
};

InceptionV3::InceptionV3(const Safetensors& weights, const std::string& where) {
  WeightLoader loader(weights);
  const auto load = [&](const std::string& prefix, const ConvSpec& spec, int in) {
    const std::string name = prefix + spec.name;
    const WeightLoader::Folded folded = loader.fold(
        name + ".conv", name + ".bn", {spec.out, in, spec.kernel_height, spec.kernel_width});
    Conv conv{folded.weight, folded.bias, {spec.stride, spec.stride}, {0, 0}, {}, {}};
    if (spec.same) conv.padding = {spec.kernel_height / 2, spec.kernel_width / 2};
    return conv;
  };

  int channels = 3;
  for (const Network::BlockSpec& block_spec : Network::blocks()) {
    Block block;
    int concatenated = 0;
    for (const Network::BranchSpec& branch_spec : block_spec.branches) {
      Branch branch;
      branch.pool = branch_spec.pool;
      int in = channels;
      for (const ConvSpec& spec : branch_spec.chain) {
        branch.chain.push_back(load(block_spec.name, spec, in));
        in = spec.out;
      }
      int out = branch_spec.split.empty() ? in : 0;
      for (const ConvSpec& spec : branch_spec.split) {
        branch.split.push_back(load(block_spec.name, spec, in));
        out += spec.out;
      }
      concatenated += out;
      block.push_back(std::move(branch));
    }
    channels = concatenated;
    blocks_.push_back(std::move(block));
  }
  fc_weight_ = loader.take("fc.weight", {kClasses, kFeatures});
  loader.take("fc.bias", {kClasses});  // part of the file, but of no metric
  loader.refuse_others();
  loader.finish(where, "FID's Inception-v3",
                "Expected pytorch-fid's pt_inception-2015-12-05-6726825d.pth, converted by "
                "tools/convert_weights.py.");
  prepare_for_cpu();
}

void InceptionV3::prepare_for_cpu() {
  std::vector<std::int64_t> block_input = {1, 3, kImageSize, kImageSize};
  for (Block& block : blocks_) {
    std::vector<std::int64_t> output;
    std::int64_t channels = 0;
    for (Branch& branch : block) {
      std::vector<std::int64_t> shape = block_input;
      if (branch.pool == Pool::kMaxStride2) {
        for (const int i : {2, 3}) shape[i] = (shape[i] - 3) / 2 + 1;
      }
      for (Conv& conv : branch.chain) prepare_for_cpu(conv, shape);
      if (branch.split.empty()) channels += shape[1];
      output = shape;
      for (Conv& conv : branch.split) {
        output = shape;
        prepare_for_cpu(conv, output);
        channels += output[1];
      }
    }
    block_input = output;
    block_input[1] = channels;
  }
}

void InceptionV3::prepare_for_cpu(Conv& conv, std::vector<std::int64_t>& shape) {
  const bool stride1 = conv.stride[0] == 1;
  if (stride1 && shape[2] >= kWinogradFrom && WinogradConv::takes(conv.weight.sizes())) {
    conv.winograd.emplace(conv.weight, conv.bias, static_cast<int>(conv.padding[0]));
  } else if (fused_conv()) {
    conv.packed = at::mkldnn_reorder_conv2d_weight(conv.weight.contiguous().to_mkldnn(),
                                                   conv.padding, conv.stride, {1, 1},
                                                   /*groups=*/1, at::OptionalIntArrayRef(shape));
  }
  shape[1] = conv.weight.size(0);
  for (const int i : {2, 3}) {
    shape[i] = (shape[i] + 2 * conv.padding[i - 2] - conv.weight.size(i)) / conv.stride[i - 2] + 1;
  }
}

void InceptionV3::to(at::Device device) {
  for (Block& block : blocks_) {
    for (Branch& branch : block) {
      for (std::vector<Conv>* convs : {&branch.chain, &branch.split}) {
        for (Conv& conv : *convs) {
          conv.weight = conv.weight.to(device);
          conv.bias = conv.bias.to(device);
          conv.packed.reset();
          conv.winograd.reset();
        }
      }
    }
  }
  fc_weight_ = fc_weight_.to(device);
  if (device.is_cpu()) prepare_for_cpu();
}

at::Tensor InceptionV3::run(const Conv& conv, const at::Tensor& input) {
  if (conv.winograd) return (*conv.winograd)(input);
  if (conv.packed.defined()) {
    return fused_conv()->call(input, conv.packed, conv.bias, conv.padding, conv.stride, {1, 1},
                              /*groups=*/1, "relu", c10::List<std::optional<at::Scalar>>(), "");
  }
  // at::_convolution rather than at::conv2d: fp32 and one fixed algorithm are part of the protocol,
  // on a GPU too, whatever the process has chosen for training.
  return at::_convolution(input, conv.weight, conv.bias, conv.stride, conv.padding, {1, 1},
                          /*transposed=*/false, /*output_padding=*/{0, 0}, /*groups=*/1,
                          /*benchmark=*/false, /*deterministic=*/true, /*cudnn_enabled=*/true,
                          /*allow_tf32=*/false)
      .relu_();
}

at::Tensor InceptionV3::run(const Branch& branch, const at::Tensor& input) {
  at::Tensor x = input;
  switch (branch.pool) {
    case Pool::kNone:
      break;
    case Pool::kAverage:
      x = at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false,
                         /*count_include_pad=*/false);
      break;
    case Pool::kMax:
      x = at::max_pool2d(x, {3, 3}, {1, 1}, {1, 1});
      break;
    case Pool::kMaxStride2:
      x = at::max_pool2d(x, {3, 3}, {2, 2});
      break;
  }
  for (const Conv& conv : branch.chain) x = run(conv, x);
  if (branch.split.empty()) return x;
  std::vector<at::Tensor> parts;
  for (const Conv& conv : branch.split) parts.push_back(run(conv, x));
  return at::cat(parts, 1);
}

at::Tensor InceptionV3::features(const at::Tensor& images) const {
  const at::NoGradGuard no_grad;
  at::Tensor x = images.contiguous(at::MemoryFormat::ChannelsLast);
  for (const Block& block : blocks_) {
    std::vector<at::Tensor> parts;
    for (const Branch& branch : block) parts.push_back(run(branch, x));
    x = parts.size() == 1 ? parts[0] : at::cat(parts, 1);
  }
  return x.mean({2, 3});
}

at::Tensor InceptionV3::unbiased_logits(const at::Tensor& features) const {
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard no_tf32;
  return at::linear(features, fc_weight_);
}

}  // namespace gp
