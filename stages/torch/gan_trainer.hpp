#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stages/torch/adaptive_augment.hpp"
#include "stages/torch/adversarial_trainer.hpp"
#include "stages/torch/diff_augment.hpp"
#include "stages/torch/gan_loss.hpp"
#include "stages/torch/gan_networks.hpp"

namespace gp {

/// How networks that grow do so (Karras et al. 2018): each resolution but the first begins with a
/// fade-in, after which it is trained on.
struct GrowthSchedule {
  std::uint64_t images = 0;  ///< trained at each resolution, fade-in included; the last goes on
  std::uint64_t fade_images = 0;  ///< of them, while the new layers come in; at most `images`

  /// The point for the next batch of `count` images, after `seen` ones. Fades in so that the first
  /// batch's share is above 0 and the last one's 1.
  GrowthPoint at(std::uint64_t seen, std::int64_t count, const GanConfig& model) const;
  /// Images seen before a resolution's first batch.
  std::uint64_t images_before(int resolution, const GanConfig& model) const;
};

struct GanObjective {
  GanLoss loss = GanLoss::kHinge;
  /// Gamma of the penalty on D's gradient at reals (Mescheder et al. 2018). While networks grow, it
  /// is taken by the pixels of the last resolution, as in StyleGAN (Karras et al. 2019): with k x k
  /// of them to one of the present image, 1 / k^2 of the penalty by its own.
  double r1 = 0;
  double r2 = 0;  ///< at fakes
  int penalty_every =
      1;  ///< steps between penalties, which are as much larger (Karras et al. 2020)
  AugmentPolicy augment{false, false, false};
  double augment_p = 1;
  double augment_target = 0;  ///< of ADA, which then moves p from 0; 0: augment_p stays
  double augment_speed_kimg = 500;
  GrowthSchedule growth;  ///< where the model is GanConfig::Growth::kPhases

  bool augments() const { return augment.colour || augment.translation || augment.cutout; }
};

/// The update rule of train.gan.
///
/// One step is `d_steps` Adam updates of D on the sum of its losses on reals and fakes, then one of
/// G through a frozen D. Fakes get the labels of the reals; those of D's last update serve the G
/// update, as in DcganTrainer. Augmentation is drawn anew for each pass, for reals and fakes alike,
/// also where G learns. Penalties are on the gradient by what D sees, augmented, and are computed
/// in fp32 at any precision, together with the loss of their pass.
class GanTrainer : public AdversarialTrainer {
 public:
  GanTrainer(const GanConfig& config, const TrainerOptions& options, const GanObjective& objective);

  const GanGenerator& generator() const { return generator_; }
  const GanDiscriminator& discriminator() const { return discriminator_; }
  int period() const override;
  /// The probability of each augmentation at present.
  double augment_p() const;

 private:
  GanTrainer(const GanConfig& config, const TrainerOptions& options, const GanObjective& objective,
             GanGenerator generator, GanDiscriminator discriminator);
  std::vector<at::Tensor> update(const at::Tensor& reals, const at::Tensor& labels) override;
  std::vector<std::string> extra_names() const override;
  std::uint64_t images_before_newest() const override;
  std::map<std::string, at::Tensor> own_state() const override;

  /// What an update of D measured.
  struct DUpdate {
    at::Tensor loss_real, loss_fake, logits_real, logits_fake, r1, r2, norm;
  };
  DUpdate train_discriminator(const at::Tensor& reals, const at::Tensor& fakes,
                              const at::Tensor& labels, std::size_t number);
  /// Gradients of G through the frozen D; `fakes` of `z` with their graph, or none to make them
  /// again, in parts. Returns the loss.
  at::Tensor train_generator(const at::Tensor& reals, const at::Tensor& z, const at::Tensor& fakes,
                             const at::Tensor& labels);
  bool grows() const { return config_.growth == GanConfig::Growth::kPhases; }
  at::Tensor generate(const at::Tensor& z, const at::Tensor& labels);
  at::Tensor augmented(const at::Tensor& images, const std::string& pass) const;
  at::Tensor discriminate(const at::Tensor& images, const at::Tensor& labels,
                          const std::string& pass, bool for_penalty);

  GanConfig config_;
  GanObjective objective_;
  GanGenerator generator_;
  GanDiscriminator discriminator_;
  std::unique_ptr<AdaptiveAugment> adaptive_;
  at::Tensor class_counts_;
};

}  // namespace gp
