#pragma once

#include <memory>

#include "pipeline/stage.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/gan_trainer.hpp"

namespace gp {

/// A frozen generator and discriminator in evaluation mode (running batch norm statistics, no
/// dropout), in fp32 whatever the training's precision. Owns its copies. One thread.
class GanSnapshot : public Snapshot {
 public:
  /// Of a training in progress: the moving average of G where there is one. `epoch` as in
  /// Snapshot::epoch().
  GanSnapshot(const GanTrainer& trainer, std::uint32_t epoch);
  /// Of a file; EMA tensors are taken where it holds them. `where` is for messages.
  GanSnapshot(const Checkpoint& checkpoint, at::Device device, const std::string& where);

  std::uint64_t step() const override { return step_; }
  std::uint32_t epoch() const override { return epoch_; }
  std::uint64_t images() const override { return images_; }
  ImageShape shape() const override { return {config_.resolution, config_.resolution}; }
  std::vector<std::uint8_t> generate(std::uint64_t seed, std::uint64_t first, int count) override;
  std::vector<float> discriminate(const std::uint8_t* images, int count) override;
  /// SHA-256 over names and bytes of G's and D's tensors.
  std::string digest() const override;

 private:
  at::Tensor generate_block(std::uint64_t seed, std::uint64_t block);

  DcganConfig config_;
  at::Device device_;
  Generator generator_;
  Discriminator discriminator_;
  std::uint64_t step_ = 0;
  std::uint32_t epoch_ = 0;
  std::uint64_t images_ = 0;
  /// The block computed last, because calls often end inside one.
  std::uint64_t block_seed_ = 0;
  std::uint64_t block_index_ = 0;
  at::Tensor block_;
};

}  // namespace gp
