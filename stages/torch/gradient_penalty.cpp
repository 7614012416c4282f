#include "stages/torch/gradient_penalty.hpp"

#include <torch/torch.h>

namespace gp {

at::Tensor gradient_penalty(const at::Tensor& logits, const at::Tensor& images) {
  TORCH_CHECK(images.requires_grad(),
              "gradient_penalty: the images need requires_grad before the discriminator's pass");
  TORCH_CHECK(logits.numel() == images.size(0), "gradient_penalty: found ", logits.numel(),
              " logits of ", images.size(0), " images, expected one each");
  const at::ScalarType type = images.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor gradient =
      torch::autograd::grad({logits.to(type).sum()}, {images}, {}, /*retain_graph=*/true,
                            /*create_graph=*/true)[0];
  return gradient.to(type).square().sum() / static_cast<double>(images.size(0));
}

}  // namespace gp
