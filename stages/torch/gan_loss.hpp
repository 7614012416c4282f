#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace gp {

/// What the two networks minimise, as functions of the discriminator's logits.
enum class GanLoss {
  kBce,           ///< cross entropy; G's is the non-saturating one (Goodfellow et al., 2014)
  kHinge,         ///< Lim and Ye, 2017; Miyato et al., 2018
  kLeastSquares,  ///< Mao et al., 2017: half the squared distance to 1 (real) and 0 (fake)
  kRelativistic,  ///< pairs of one real and one fake (Jolicoeur-Martineau, 2018; as in R3GAN, 2024)
};

/// The names of all of them, in the order of the enumeration.
std::vector<std::string> gan_loss_names();
/// The loss of that name; a ConfigError lists the names.
GanLoss gan_loss_of(const std::string& name);
/// Whether both networks' losses need the logits of reals and fakes together.
bool needs_pairs(GanLoss loss);

/// Scalars with their graph. Their sum is what the discriminator minimises.
struct DiscriminatorLoss {
  at::Tensor real, fake;
};
/// `real` and `fake` are logits, [N] each, means are over N. With label smoothing (cross entropy
/// and least squares only) reals are trained towards 1 minus it. The relativistic loss belongs to
/// pairs, so each of the two members is half of it.
DiscriminatorLoss discriminator_loss(GanLoss loss, const at::Tensor& real, const at::Tensor& fake,
                                     double label_smoothing = 0);

/// Of the logits of fakes, [N]; `real`, as many, is read by the relativistic loss only.
at::Tensor generator_loss(GanLoss loss, const at::Tensor& fake, const at::Tensor& real = {});

}  // namespace gp
