#pragma once

#include <string>

#include "stages/torch/adversarial_trainer.hpp"
#include "stages/torch/dcgan.hpp"

namespace gp {

/// The DCGAN's update rule.
///
/// One step is one Adam update of D on reals, one on fakes, each with its own forward pass, then
/// one of G through a frozen D. The fakes of the D update serve the G update: G did not change
/// between, so this is what a second pass with the same z would give, except that G's running batch
/// norm statistics move once a step (DcganConfig::exact makes that pass, and so do batches that are
/// computed in parts).
class DcganTrainer : public AdversarialTrainer {
 public:
  DcganTrainer(const DcganConfig& config, const TrainerOptions& options);

  const Generator& generator() const { return generator_; }
  const Discriminator& discriminator() const { return discriminator_; }

 private:
  struct Pass {
    at::Tensor loss;
    at::Tensor logits;
  };
  DcganTrainer(const DcganConfig& config, const TrainerOptions& options, Generator generator,
               Discriminator discriminator);
  std::vector<at::Tensor> update(const at::Tensor& reals, const at::Tensor& labels) override;
  /// Forward through D and the loss against `target`.
  Pass discriminate(const at::Tensor& images, float target, const std::string& pass);
  /// Gradients of the mean loss over the images, computed part by part. Returns loss and logits.
  Pass train_discriminator(const at::Tensor& images, float target, const std::string& pass);
  at::Tensor generate(const at::Tensor& z);
  /// Gradients of G through the frozen D; `fakes` of `z`, with their graph, or none to make them
  /// again. Returns the loss.
  at::Tensor train_generator(const at::Tensor& z, const at::Tensor& fakes);

  DcganConfig config_;
  Generator generator_;
  Discriminator discriminator_;
};

}  // namespace gp
