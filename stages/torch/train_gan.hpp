#pragma once

#include <memory>
#include <vector>

#include "stages/torch/gan_trainer.hpp"
#include "stages/torch/train_stage.hpp"

namespace gp {

/// `train.gan`: trains a GAN of which networks, loss, penalties and augmentation are chosen in the
/// YAML. Its parameters are documented in its schema.
class TrainGan : public GanTrainStage {
 public:
  /// Throws ConfigError where parameters contradict each other.
  explicit TrainGan(Params params);

  std::vector<Phase> schedule() const override;

 private:
  ModelConfig model(const StreamInfo& stream) const override;
  std::unique_ptr<AdversarialTrainer> make_trainer(const ModelConfig& model,
                                                   const TrainerOptions& options) const override;
  std::uint64_t images_until_grown() const override;
  bool grows_in_phases() const { return params().text("growth") == "phases"; }
};

}  // namespace gp
