#pragma once

#include <memory>

#include "pipeline/stage.hpp"
#include "stages/torch/adversarial_trainer.hpp"
#include "stages/torch/checkpoint.hpp"

namespace gp {

/// A frozen generator and discriminator in evaluation mode (running batch norm statistics, no
/// dropout), in fp32 whatever the training's precision. Owns its copies. One thread.
///
/// Images are always of the model's full size: of networks that have not grown up yet, each pixel
/// is repeated, and what their discriminator sees is the mean over its pixels.
class GanSnapshot : public Snapshot {
 public:
  /// Of a training in progress: the moving average of G where there is one. `epoch` as in
  /// Snapshot::epoch(); `class_names`: of the data, looked at where the model is conditional.
  GanSnapshot(const AdversarialTrainer& trainer, std::uint32_t epoch,
              const std::vector<std::string>& class_names);
  /// Of a file; EMA tensors are taken where it holds them. `where` is for messages.
  GanSnapshot(const Checkpoint& checkpoint, at::Device device, const std::string& where);

  std::uint64_t step() const override { return step_; }
  std::uint32_t epoch() const override { return epoch_; }
  std::uint64_t images() const override { return images_; }
  ImageShape shape() const override { return {resolution_of(model_), resolution_of(model_)}; }
  std::vector<std::uint8_t> generate(std::uint64_t seed, std::uint64_t first, int count) override;
  std::vector<float> discriminate(const std::uint8_t* images, const std::int32_t* labels,
                                  int count) override;
  std::vector<std::string> class_names() const override { return class_names_; }
  std::vector<std::int32_t> labels(std::uint64_t seed, std::uint64_t first, int count) override;
  std::vector<std::uint8_t> generate_class(std::uint64_t seed, std::uint64_t first, int count,
                                           std::int32_t label) override;
  /// SHA-256 over names and bytes of G's and D's tensors.
  std::string digest() const override;

 private:
  /// With networks of unknown state.
  GanSnapshot(const ModelConfig& model, at::Device device,
              const std::vector<std::string>& class_names);
  void freeze(const GrowthPoint& growth);
  /// Images of the block, of the class `label`, or of drawn classes where it is negative.
  at::Tensor generate_block(std::uint64_t seed, std::uint64_t block, std::int32_t label);

  ModelConfig model_;
  GrowthPoint growth_;
  at::Device device_;
  std::shared_ptr<GeneratorNetwork> generator_;
  std::shared_ptr<DiscriminatorNetwork> discriminator_;
  std::vector<std::string> class_names_;
  at::Tensor class_counts_;  ///< int64 [classes]: how often training saw each
  std::uint64_t step_ = 0;
  std::uint32_t epoch_ = 0;
  std::uint64_t images_ = 0;
  /// The block computed last, because calls often end inside one.
  std::uint64_t block_seed_ = 0;
  std::uint64_t block_index_ = 0;
  std::int32_t block_label_ = -1;
  at::Tensor block_;
};

}  // namespace gp
