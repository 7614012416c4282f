#include "stages/torch/gan_snapshot.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cstring>

#include "pipeline/files.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

/// Images computed at once. CPU kernels round differently for different batch sizes, so every image
/// is always computed at the same place of the same block.
constexpr int kBlock = 32;

}  // namespace

GanSnapshot::GanSnapshot(const GanTrainer& trainer, std::uint32_t epoch)
    : config_(trainer.config()),
      device_(trainer.options().device),
      generator_(config_),
      discriminator_(config_),
      step_(trainer.steps()),
      epoch_(epoch),
      images_(trainer.images()) {
  generator_->to(device_);
  discriminator_->to(device_);
  copy_state(*trainer.best_generator(), *generator_);
  copy_state(*trainer.discriminator(), *discriminator_);
  generator_->eval();
  discriminator_->eval();
}

GanSnapshot::GanSnapshot(const Checkpoint& checkpoint, at::Device device, const std::string& where)
    : config_(checkpoint.info.model),
      device_(device),
      generator_(config_),
      discriminator_(config_),
      step_(checkpoint.info.step),
      epoch_(checkpoint.info.position.epoch),
      images_(checkpoint.info.position.images) {
  load_state(*generator_, checkpoint, checkpoint.info.average ? "EMA" : "G", where);
  load_state(*discriminator_, checkpoint, "D", where);
  generator_->to(device_);
  discriminator_->to(device_);
  generator_->eval();
  discriminator_->eval();
}

at::Tensor GanSnapshot::generate_block(std::uint64_t seed, std::uint64_t block) {
  if (block_.defined() && block_seed_ == seed && block_index_ == block) return block_;
  std::vector<at::Tensor> latents;
  for (int i = 0; i < kBlock; ++i) {
    latents.push_back(normal_tensor({config_.latent}, {seed, "sample", block * kBlock + i}));
  }
  const at::NoGradGuard no_grad;
  block_ = to_pixels(generator_(at::stack(latents).to(device_))).cpu();
  block_seed_ = seed;
  block_index_ = block;
  return block_;
}

std::vector<std::uint8_t> GanSnapshot::generate(std::uint64_t seed, std::uint64_t first,
                                                int count) {
  const std::size_t bytes = shape().bytes();
  std::vector<std::uint8_t> images(static_cast<std::size_t>(count) * bytes);
  for (int done = 0; done < count;) {
    const std::uint64_t at = first + static_cast<std::uint64_t>(done);
    const auto offset = static_cast<int>(at % kBlock);
    const int n = std::min(kBlock - offset, count - done);
    const at::Tensor block = generate_block(seed, at / kBlock);
    std::memcpy(images.data() + static_cast<std::size_t>(done) * bytes,
                block.const_data_ptr<std::uint8_t>() + static_cast<std::size_t>(offset) * bytes,
                static_cast<std::size_t>(n) * bytes);
    done += n;
  }
  return images;
}

std::vector<float> GanSnapshot::discriminate(const std::uint8_t* images, int count) {
  const at::NoGradGuard no_grad;
  const std::size_t bytes = shape().bytes();
  std::vector<float> logits(static_cast<std::size_t>(count));
  at::Tensor pixels =
      at::zeros({kBlock, config_.resolution, config_.resolution, kChannels}, at::kByte);
  for (int done = 0; done < count; done += kBlock) {
    const int n = std::min(kBlock, count - done);
    std::memcpy(pixels.data_ptr<std::uint8_t>(), images + static_cast<std::size_t>(done) * bytes,
                static_cast<std::size_t>(n) * bytes);
    const at::Tensor block = discriminator_(to_signed(pixels.to(device_))).cpu();
    std::copy_n(block.const_data_ptr<float>(), n, logits.begin() + done);
  }
  return logits;
}

std::string GanSnapshot::digest() const {
  Sha256 hash;
  const auto add = [&](const std::string& prefix, const torch::nn::Module& network) {
    for (const auto& [name, tensor] : state_of(network)) {
      const at::Tensor values = tensor.detach().cpu().contiguous();
      hash.update(prefix + name);
      hash.update({static_cast<const std::uint8_t*>(values.const_data_ptr()), values.nbytes()});
    }
  };
  add("G.", *generator_);
  add("D.", *discriminator_);
  return hash.hex();
}

}  // namespace gp
