#include "stages/torch/train_dcgan.hpp"

#include <torch/torch.h>

#include "stages/torch/dcgan_trainer.hpp"
#include "stages/torch/stages.hpp"

namespace gp {

TrainDcgan::TrainDcgan(Params params) : GanTrainStage("train.dcgan", std::move(params)) {}

ModelConfig TrainDcgan::model(const StreamInfo& stream) const {
  auto config = sizes<DcganConfig>(stream);
  config.exact = params().flag("exact");
  return config;
}

std::unique_ptr<AdversarialTrainer> TrainDcgan::make_trainer(const ModelConfig& model,
                                                             const TrainerOptions& options) const {
  return std::make_unique<DcganTrainer>(std::get<DcganConfig>(model), options);
}

StageInfo train_dcgan_info() {
  StageInfo info;
  info.name = "train.dcgan";
  info.doc = "Trains a DCGAN (Radford et al. 2016, layers as in Keras-GAN) on square RGB images";
  info.in = Kind::kBatch;
  info.out = Kind::kSnapshot;
  info.concurrency = Concurrency::kSerial;
  add_training_params(info.params, {});
  info.params.flag(
      "exact", false,
      "compute the step operation by operation, without the faster ways to the same result: "
      "to compare with, or to suspect");
  info.create = [](const Params& params) { return std::make_unique<TrainDcgan>(params); };
  return info;
}

}  // namespace gp
