#include "stages/torch/gan_layers.hpp"

#include <torch/torch.h>

#include <algorithm>

namespace gp {
namespace {

constexpr double kTiny = 1e-12;  // under the length of a vector that is divided by it
constexpr int kFirstIterations = 10;

/// One row for each output. A view: convolutions' weights are channels_last.
at::Tensor matrix(const at::Tensor& weight) {
  return weight.dim() == 4 ? weight.permute({0, 2, 3, 1}).flatten(1) : weight;
}

/// Matrix products in float, whatever the networks run in.
c10::DispatchKeySet autocast_keys() { return c10::autocast_dispatch_keyset; }

/// The taps of a 3-kernel along `dim`, for the mean of two neighbouring outputs.
at::Tensor fold_mean(const at::Tensor& weight, std::int64_t dim) {
  const at::Tensor half = weight * 0.5;
  const at::Tensor w0 = half.select(dim, 0);
  const at::Tensor w1 = half.select(dim, 1);
  const at::Tensor w2 = half.select(dim, 2);
  return at::stack({w0, w0 + w1, w1 + w2, w2}, dim);
}

}  // namespace

SpectralNormImpl::SpectralNormImpl(const at::Tensor& weight)
    : u(register_buffer("u", at::zeros({weight.size(0)}))),
      v(register_buffer("v", at::zeros({weight.numel() / weight.size(0)}))) {}

at::Tensor SpectralNormImpl::sigma(const at::Tensor& weight) const {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(autocast_keys());
  // Copies: iterate() changes the buffers, and gradients of this pass may be taken after it.
  return at::dot(u.clone(), at::mv(matrix(weight), v.clone()));
}

at::Tensor SpectralNormImpl::forward(const at::Tensor& weight) { return weight / sigma(weight); }

void SpectralNormImpl::start(const at::Tensor& weight, const RandomKey& key) {
  const at::NoGradGuard no_grad;
  u.copy_(normal_tensor(u.sizes(), key));
  u.div_(u.norm());
  iterate(weight, kFirstIterations);
}

void SpectralNormImpl::iterate(const at::Tensor& weight, int count) {
  const at::NoGradGuard no_grad;
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(autocast_keys());
  const at::Tensor rows = matrix(weight);
  for (int i = 0; i < count; ++i) {
    const at::Tensor right = at::mv(rows.t(), u);
    v.copy_(right / (right.norm() + kTiny));
    const at::Tensor left = at::mv(rows, v);
    u.copy_(left / (left.norm() + kTiny));
  }
}

GanConvImpl::GanConvImpl(int in, int out, Kind kind, bool is_spectral) : kind_(kind) {
  const int size = kind == Kind::kPointwise ? 1 : 3;
  weight = register_parameter(
      "weight", at::zeros({out, in, size, size}).contiguous(at::MemoryFormat::ChannelsLast));
  bias = register_parameter("bias", at::zeros({out}));
  if (is_spectral) spectral = register_module("spectral", SpectralNorm(weight));
}

at::Tensor GanConvImpl::convolve(const at::Tensor& x, bool padded, bool add_bias) {
  const at::Tensor w = spectral ? spectral(weight) : weight;
  const at::Tensor b = add_bias ? bias : at::Tensor();
  switch (kind_) {
    case Kind::kPointwise:
      return at::conv2d(x, w, b);
    case Kind::kSame:
      return at::conv2d(x, w, b, {1, 1}, {1, 1});
    case Kind::kStride:
      return at::conv2d(padded ? x : at::constant_pad_nd(x, {0, 1, 0, 1}), w, b, {2, 2});
    case Kind::kMean:
      return at::conv2d(x, fold_mean(fold_mean(w, 2), 3), b, {2, 2}, {1, 1});
  }
  return {};
}

ClassTableImpl::ClassTableImpl(int classes, int width, bool is_spectral)
    : weight(register_parameter("weight", at::zeros({classes, width}))) {
  if (is_spectral) spectral = register_module("spectral", SpectralNorm(weight));
}

at::Tensor ClassTableImpl::forward(const at::Tensor& labels) {
  TORCH_CHECK(labels.defined() && labels.dim() == 1 && labels.scalar_type() == at::kLong,
              "a conditional network needs labels, int64 [N]; found ",
              labels.defined() ? labels.toString() : "none");
  const std::int64_t classes = weight.size(0);
  const at::Tensor wrong = labels.lt(0).logical_or(labels.ge(classes));
  if (wrong.any().item<bool>()) {
    TORCH_CHECK(false, "label ", labels.masked_select(wrong)[0].item<std::int64_t>(),
                " is outside [0, ", classes, "): the network has ", classes, " classes");
  }
  return (spectral ? spectral(weight) : weight).index_select(0, labels);
}

at::Tensor append_minibatch_stddev(const at::Tensor& x) {
  const std::int64_t images = x.size(0);
  std::int64_t group = std::min<std::int64_t>(images, 4);
  while (images % group != 0) --group;
  const at::Tensor values = widen(x).reshape({group, images / group, x.size(1), -1});
  const at::Tensor deviation =
      (values - values.mean(0, /*keepdim=*/true)).square().mean(0).add(1e-8).sqrt();
  const at::Tensor channel = deviation.mean({1, 2})
                                 .repeat({group})
                                 .view({images, 1, 1, 1})
                                 .expand({images, 1, x.size(2), x.size(3)});
  return at::cat({x, channel.to(x.scalar_type())}, 1).contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor widen(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

}  // namespace gp
