#pragma once

#include <ATen/core/Tensor.h>

#include "stages/torch/random_tensor.hpp"

namespace gp {

/// What augment() may do to an image.
struct AugmentPolicy {
  bool colour = true;       ///< brightness, saturation and contrast
  bool translation = true;  ///< by whole pixels, up to an eighth of the side each way; zeros enter
  bool cutout = true;       ///< zeros in a rectangle of half the sides, centred anywhere
};

/// Differentiable augmentation of what a discriminator sees (DiffAugment; Zhao et al., 2020), each
/// of the five operations with probability p for each image: 1 is the paper's, less is for adaptive
/// augmentation.
///
/// Images are [N,3,H,W], float or bf16, in [-1,1] (the results may leave that range, as the
/// paper's do), channels_last; so is the result, which can be differentiated any number of times.
/// What happens to an image is a function of the key, its place in the batch and p; its random
/// numbers don't depend on p, so a larger p adds operations and leaves those of a smaller one.
///
/// On the CPU one fused pass; elsewhere, and with `plain`, the same in operations of torch's, with
/// the random numbers still drawn here.
at::Tensor augment(const at::Tensor& images, const AugmentPolicy& policy, double p,
                   const RandomKey& key, bool plain = false);

}  // namespace gp
