#include "stages/torch/gan_loss.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "pipeline/error.hpp"

namespace gp {
namespace {

/// -log of the probability that the pairs' first logit is the larger.
at::Tensor pair_loss(const at::Tensor& larger, const at::Tensor& smaller) {
  TORCH_CHECK(larger.defined() && smaller.defined(),
              "relativistic loss: the logits of reals and of fakes are needed");
  TORCH_CHECK(larger.sizes() == smaller.sizes(), "relativistic loss: as many reals as fakes, not ",
              larger.sizes(), " and ", smaller.sizes());
  return at::softplus(smaller - larger).mean();
}

}  // namespace

std::vector<std::string> gan_loss_names() {
  return {"bce", "hinge", "least_squares", "relativistic"};
}

GanLoss gan_loss_of(const std::string& name) {
  const std::vector<std::string> names = gan_loss_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string all;
    for (const std::string& each : names) all += (all.empty() ? "" : ", ") + each;
    throw ConfigError("GAN loss: found '" + name + "', expected one of " + all);
  }
  return static_cast<GanLoss>(found - names.begin());
}

bool needs_pairs(GanLoss loss) { return loss == GanLoss::kRelativistic; }

DiscriminatorLoss discriminator_loss(GanLoss loss, const at::Tensor& real, const at::Tensor& fake,
                                     double label_smoothing) {
  TORCH_CHECK(label_smoothing == 0 || loss == GanLoss::kBce || loss == GanLoss::kLeastSquares,
              "discriminator_loss: label smoothing has a meaning for bce and least_squares only");
  switch (loss) {
    case GanLoss::kBce:
      // Cross entropy to a target t is softplus(-x) + (1 - t) x.
      return {(at::softplus(-real) + label_smoothing * real).mean(), at::softplus(fake).mean()};
    case GanLoss::kHinge:
      return {at::relu(1 - real).mean(), at::relu(1 + fake).mean()};
    case GanLoss::kLeastSquares:
      return {(real - (1 - label_smoothing)).square().mean() / 2, fake.square().mean() / 2};
    case GanLoss::kRelativistic: {
      const at::Tensor half = pair_loss(real, fake) / 2;
      return {half, half};
    }
  }
  TORCH_CHECK(false, "discriminator_loss: unexpected loss");
}

at::Tensor generator_loss(GanLoss loss, const at::Tensor& fake, const at::Tensor& real) {
  switch (loss) {
    case GanLoss::kBce:
      return at::softplus(-fake).mean();
    case GanLoss::kHinge:
      return -fake.mean();
    case GanLoss::kLeastSquares:
      return (fake - 1).square().mean() / 2;
    case GanLoss::kRelativistic:
      return pair_loss(fake, real);
  }
  TORCH_CHECK(false, "generator_loss: unexpected loss");
}

}  // namespace gp
