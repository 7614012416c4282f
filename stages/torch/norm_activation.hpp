#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "stages/torch/random_tensor.hpp"

namespace gp {

/// Batch norm's parameters and running statistics, float [C]; the statistics are updated.
struct BatchNormState {
  at::Tensor weight, bias, running_mean, running_var;
  double momentum = 0.1;  ///< share of the batch in the new running statistics
  double eps = 1e-5;
  /// The bias of the convolution that made the input, where it was not added there: it changes
  /// nothing but the running mean, and has no gradient. float [C]; undefined: none.
  at::Tensor input_bias = {};
};

struct Dropout {
  double rate = 0;
  RandomKey key;
};

/// What follows a convolution, in one operation: batch norm in training mode (where there is one),
/// leaky ReLU (`leak` 0: ReLU), dropout (where there is one), and on demand a row of zeros below
/// and a column to the right, for the padding of a convolution of stride 2.
///
/// `x`: [N,C,H,W]; any layout and type that torch has. Returns [N,C,H,W] or [N,C,H+1,W+1],
/// channels_last, of the same type. Differentiable once.
///
/// On the CPU for float and bf16 it is computed in two passes over `x` forward (one without batch
/// norm), and two over `x` and the gradient backward, in float; only `x` and two bytes a value for
/// dropout are kept. The same up to rounding as the chain of torch's operations, which does it
/// elsewhere, and where `plain` asks for it. Independent of the number of threads. Dropout takes
/// exactly what dropout_mask() takes.
at::Tensor norm_activation(const at::Tensor& x, const std::optional<BatchNormState>& norm,
                           double leak, const std::optional<Dropout>& dropout, bool pad,
                           bool plain = false);

}  // namespace gp
