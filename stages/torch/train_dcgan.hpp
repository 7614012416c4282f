#pragma once

#include <memory>

#include "stages/torch/train_stage.hpp"

namespace gp {

/// `train.dcgan`: trains a DCGAN on the batches of a stream. Its parameters are documented in its
/// schema.
class TrainDcgan : public GanTrainStage {
 public:
  explicit TrainDcgan(Params params);

 private:
  ModelConfig model(const StreamInfo& stream) const override;
  std::unique_ptr<AdversarialTrainer> make_trainer(const ModelConfig& model,
                                                   const TrainerOptions& options) const override;
};

}  // namespace gp
