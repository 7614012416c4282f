#include "stages/torch/gan_snapshot.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

/// Images computed at once. CPU kernels round differently for different batch sizes, so every image
/// is always computed at the same place of the same block.
constexpr int kBlock = 32;

/// Which of `n` images stand where in a block. They are repeated where they do not fill it, and
/// none is put among the four that minibatch_stddev compares, a quarter of a block apart, a second
/// time while there are others.
std::array<int, kBlock> fill_block(int n) {
  std::array<int, kBlock> places{};
  for (int i = 0; i < kBlock; ++i) {
    const auto taken = [&](int image) {
      for (int j = i - kBlock / 4; j >= 0; j -= kBlock / 4) {
        if (places[j] == image) return true;
      }
      return false;
    };
    places[i] = i < n ? i : (i % (kBlock / 4) + i / (kBlock / 4)) % n;
    while (n >= 4 && taken(places[i])) places[i] = (places[i] + 1) % n;
  }
  return places;
}

}  // namespace

GanSnapshot::GanSnapshot(const ModelConfig& model, at::Device device,
                         const std::vector<std::string>& class_names)
    : model_(model),
      device_(device),
      generator_(make_generator(model)),
      discriminator_(make_discriminator(model)),
      class_counts_(at::zeros({classes_of(model)}, at::kLong)) {
  generator_->to(device);
  discriminator_->to(device);
  if (classes_of(model) > 0) class_names_ = class_names;
}

GanSnapshot::GanSnapshot(const AdversarialTrainer& trainer, std::uint32_t epoch,
                         const std::vector<std::string>& class_names)
    : GanSnapshot(trainer.model(), trainer.options().device, class_names) {
  step_ = trainer.steps();
  epoch_ = epoch;
  images_ = trainer.images();
  copy_state(trainer.best_generator(), *generator_);
  copy_state(trainer.discriminator(), *discriminator_);
  if (classes_of(model_) > 0) class_counts_.copy_(trainer.state().at(kClassCounts));
  freeze(trainer.growth());
}

GanSnapshot::GanSnapshot(const Checkpoint& checkpoint, at::Device device, const std::string& where)
    : GanSnapshot(checkpoint.info.model, device, checkpoint.info.class_names) {
  step_ = checkpoint.info.step;
  epoch_ = checkpoint.info.epochs_done;
  images_ = checkpoint.info.position.images;
  load_state(*generator_, checkpoint, checkpoint.info.average ? "EMA" : "G", where);
  load_state(*discriminator_, checkpoint, "D", where);
  if (classes_of(model_) > 0) load_state({{kClassCounts, class_counts_}}, checkpoint, where);
  freeze(checkpoint.info.growth);
}

void GanSnapshot::freeze(const GrowthPoint& growth) {
  growth_ = growth;
  if (growth.resolution > 0) {
    generator_->set_growth(growth);
    discriminator_->set_growth(growth);
  }
  generator_->eval();
  discriminator_->eval();
}

std::vector<std::int32_t> GanSnapshot::labels(std::uint64_t seed, std::uint64_t first, int count) {
  if (classes_of(model_) == 0) return Snapshot::labels(seed, first, count);
  // Before anything was seen, all classes are as likely.
  const at::Tensor counts =
      class_counts_.sum().item<std::int64_t>() > 0 ? class_counts_ : at::ones_like(class_counts_);
  const at::Tensor up_to = counts.cumsum(0).to(at::kDouble);
  const auto* const begin = up_to.const_data_ptr<double>();
  const auto* const end = begin + classes_of(model_);
  std::vector<std::int32_t> result;
  for (int i = 0; i < count; ++i) {
    at::Tensor drawn = at::empty({1}, at::kFloat);
    fill_uniform(drawn, {seed, "sample.label", first + static_cast<std::uint64_t>(i)}, 0, 1);
    const double at = static_cast<double>(drawn.item<float>()) * end[-1];
    result.push_back(
        static_cast<std::int32_t>(std::min(std::upper_bound(begin, end, at), end - 1) - begin));
  }
  return result;
}

at::Tensor GanSnapshot::generate_block(std::uint64_t seed, std::uint64_t block,
                                       std::int32_t label) {
  if (block_.defined() && block_seed_ == seed && block_index_ == block && block_label_ == label) {
    return block_;
  }
  std::vector<at::Tensor> latents;
  for (int i = 0; i < kBlock; ++i) {
    latents.push_back(normal_tensor({latent_of(model_)}, {seed, "sample", block * kBlock + i}));
  }
  at::Tensor classes;
  if (classes_of(model_) > 0) {
    std::vector<std::int32_t> drawn(kBlock, label);
    if (label < 0) drawn = labels(seed, block * kBlock, kBlock);
    classes = at::tensor(drawn, at::kInt).to(at::kLong).to(device_);
  }
  const at::NoGradGuard no_grad;
  at::Tensor images = generator_->generate(at::stack(latents).to(device_), classes);
  const int resolution = resolution_of(model_);
  if (images.size(2) != resolution) {
    images = at::upsample_nearest2d(images, {resolution, resolution});
  }
  block_ = to_pixels(images).cpu();
  block_seed_ = seed;
  block_index_ = block;
  block_label_ = label;
  return block_;
}

std::vector<std::uint8_t> GanSnapshot::generate(std::uint64_t seed, std::uint64_t first,
                                                int count) {
  return generate_class(seed, first, count, -1);
}

std::vector<std::uint8_t> GanSnapshot::generate_class(std::uint64_t seed, std::uint64_t first,
                                                      int count, std::int32_t label) {
  const std::size_t bytes = shape().bytes();
  std::vector<std::uint8_t> images(static_cast<std::size_t>(count) * bytes);
  for (int done = 0; done < count;) {
    const std::uint64_t at = first + static_cast<std::uint64_t>(done);
    const auto offset = static_cast<int>(at % kBlock);
    const int n = std::min(kBlock - offset, count - done);
    const at::Tensor block = generate_block(seed, at / kBlock, label);
    std::memcpy(images.data() + static_cast<std::size_t>(done) * bytes,
                block.const_data_ptr<std::uint8_t>() + static_cast<std::size_t>(offset) * bytes,
                static_cast<std::size_t>(n) * bytes);
    done += n;
  }
  return images;
}

std::vector<float> GanSnapshot::discriminate(const std::uint8_t* images, const std::int32_t* labels,
                                             int count) {
  const at::NoGradGuard no_grad;
  const std::size_t bytes = shape().bytes();
  const int resolution = resolution_of(model_);
  std::vector<float> logits(static_cast<std::size_t>(count));
  at::Tensor pixels = at::zeros({kBlock, resolution, resolution, kChannels}, at::kByte);
  const int n = std::min(kBlock, count);
  const std::array<int, kBlock> places = fill_block(n);
  for (int done = 0; done < count; done += kBlock) {
    const int first = std::min(done, count - n);  // the last block reaches back
    for (int i = 0; i < kBlock; ++i) {
      std::memcpy(pixels.data_ptr<std::uint8_t>() + static_cast<std::size_t>(i) * bytes,
                  images + static_cast<std::size_t>(first + places[i]) * bytes, bytes);
    }
    at::Tensor block = to_signed(pixels.to(device_));
    if (growth_.resolution > 0 && growth_.resolution < resolution) {
      const int factor = resolution / growth_.resolution;
      block = at::avg_pool2d(block, {factor, factor});
    }
    at::Tensor classes;
    if (classes_of(model_) > 0) {
      classes = at::zeros({kBlock}, at::kLong);
      for (int i = 0; i < kBlock; ++i) {
        const std::int32_t label = labels[first + places[i]];
        if (label < 0 || label >= classes_of(model_)) {
          throw DataError("an image to evaluate with has label " + std::to_string(label) +
                          ", and this model was trained on " + std::to_string(classes_of(model_)) +
                          " classes; reference and held-out data need those of the training");
        }
        classes[i] = label;
      }
      classes = classes.to(device_);
    }
    const at::Tensor result = discriminator_->judge(block, classes).cpu();
    std::copy_n(result.const_data_ptr<float>(), n, logits.begin() + first);
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
