#pragma once

#include <ATen/core/Tensor.h>

namespace gp {

/// The mean over images of the squared Euclidean norm of d logit / d image, a float scalar with its
/// graph: R1 of Mescheder et al., 2018, on reals, R2 on fakes. The factor gamma / 2 is the
/// caller's.
///
/// `logits` [N] must have been computed from `images` [N,...], which require a gradient, by
/// operations that can be differentiated twice. Where a logit depends on other images of the batch,
/// too (minibatch standard deviation), the gradient is that of the sum of all logits, as in
/// StyleGAN2. Gradients are squared and summed as floats for bf16 images, too (for double ones as
/// doubles).
at::Tensor gradient_penalty(const at::Tensor& logits, const at::Tensor& images);

}  // namespace gp
