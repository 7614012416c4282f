#pragma once

#include <memory>
#include <string>

#include "pipeline/stage.hpp"
#include "stages/torch/adversarial_trainer.hpp"

namespace gp {

/// What the stages train.* share: everything but the networks and the update rule.
class GanTrainStage : public TrainStage {
 public:
  void check(const StreamInfo& stream) const override { model(stream); }
  void run(EndContext& context) override;
  std::uint32_t epochs() const override;
  double measure_rate(const RunInfo& run, const StreamInfo& stream) override;
  StepProfile profile(const RunInfo& run, const StreamInfo& stream, double seconds) override;
  /// Of any model, whatever this stage would train.
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo& run,
                                          const std::filesystem::path& checkpoint) override;
  void export_generator(const std::filesystem::path& checkpoint,
                        const std::filesystem::path& file) override;
  std::unique_ptr<SavedTraining> load_training(const std::filesystem::path& run_directory,
                                               Log& log) override;

 protected:
  /// `name`: the stage's. Throws ConfigError where parameters that `add_training_params` declares
  /// contradict each other.
  GanTrainStage(std::string name, Params params);

  /// The networks for the stream's images. Throws ConfigError where there are none.
  virtual ModelConfig model(const StreamInfo& stream) const = 0;
  virtual std::unique_ptr<AdversarialTrainer> make_trainer(const ModelConfig& model,
                                                           const TrainerOptions& options) const = 0;

  /// Images after which the networks have their full size and the fade is over, where they grow:
  /// what a step costs is measured from there.
  virtual std::uint64_t images_until_grown() const { return 0; }

  /// A model's configuration with the sizes, which all have. Throws ConfigError for images that are
  /// not squares of a power of two.
  template <class Config>
  Config sizes(const StreamInfo& stream) const {
    Config config;
    config.resolution = square_size(stream.shape);
    config.latent = static_cast<int>(params_.integer("latent"));
    config.channels = static_cast<int>(params_.integer("channels"));
    config.channels_d = params_.has("channels_d") ? static_cast<int>(params_.integer("channels_d"))
                                                  : config.channels;
    config.max_channels = static_cast<int>(params_.integer("max_channels"));
    config.dropout = params_.real("dropout");
    return config;
  }
  const Params& params() const { return params_; }
  const std::string& name() const { return name_; }

 private:
  int square_size(const ImageShape& shape) const;
  std::unique_ptr<AdversarialTrainer> make_trainer(const RunInfo& run,
                                                   const StreamInfo& stream) const;
  std::unique_ptr<AdversarialTrainer> make_grown_trainer(const RunInfo& run,
                                                         const StreamInfo& stream) const;

  std::string name_;
  Params params_;
};

/// Declares what all of them take: optimisers, sizes, averages, what is written when. `defaults`
/// differ between stages.
struct TrainingDefaults {
  double learning_rate = 2e-4;
  double beta1 = 0.5;
  double beta2 = 0.999;
  int latent = 64;
  double dropout = 0.25;
};
void add_training_params(ParamSchema& schema, const TrainingDefaults& defaults);

}  // namespace gp
