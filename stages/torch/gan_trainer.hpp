#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "stages/torch/adam.hpp"
#include "stages/torch/dcgan.hpp"

namespace gp {

struct GanTrainerOptions {
  std::uint64_t seed = 0;
  double learning_rate = 2e-4;    ///< generator
  double learning_rate_d = 2e-4;  ///< discriminator
  double beta1 = 0.5;
  double beta2 = 0.999;
  double label_smoothing = 0;  ///< reals are trained towards 1 - this
  double ema = 0;              ///< decay of the generator's moving average; 0: none
  at::Device device = at::kCPU;
  bool bf16 = false;
};

/// What one step measured: the discriminator before its updates.
struct GanStep {
  float loss_d_real = 0;
  float loss_d_fake = 0;
  float loss_g = 0;
  float accuracy_real = 0;  ///< share of reals with a logit above 0
  float accuracy_fake = 0;  ///< share of fakes with a logit of 0 or less

  float loss_d() const { return (loss_d_real + loss_d_fake) / 2; }
  bool finite() const;
};

/// Copies parameters and buffers between two networks of the same configuration.
void copy_state(const torch::nn::Module& from, torch::nn::Module& to);

/// Parameters and buffers by name. Not copies.
std::map<std::string, at::Tensor> state_of(const torch::nn::Module& network);

/// The DCGAN's networks, optimisers and update rule; no files and no loop. One thread.
///
/// One step is one Adam update of D on reals, one on fakes, each with its own forward pass, then
/// one of G through a frozen D. The fakes of the D update serve the G update: G did not change
/// between, so this is what a second pass with the same z would give, except that G's running batch
/// norm statistics move once a step (DcganConfig::exact makes that pass). All random numbers are functions of (seed, purpose, step).
class GanTrainer {
 public:
  GanTrainer(const DcganConfig& config, const GanTrainerOptions& options);

  /// `pixels`: uint8 [N,H,W,3], on any device.
  GanStep step(const at::Tensor& pixels);

  std::uint64_t steps() const { return steps_; }    ///< done so far
  std::uint64_t images() const { return images_; }  ///< seen so far
  const DcganConfig& config() const { return config_; }
  const GanTrainerOptions& options() const { return options_; }

  const Generator& generator() const { return generator_; }
  const Discriminator& discriminator() const { return discriminator_; }
  /// The generator to make pictures with: the moving average where there is one.
  const Generator& best_generator() const { return average_ ? average_ : generator_; }

  /// All state by name: "G.*", "D.*", "EMA.*", "optimizer_G.*", "optimizer_D.*". Not copies.
  std::map<std::string, at::Tensor> state() const;

 private:
  struct Pass {
    at::Tensor loss;
    at::Tensor logits;
  };
  /// Forward through D and the loss against `target`.
  Pass discriminate(const at::Tensor& images, float target, const std::string& pass);
  at::Tensor generate(const at::Tensor& z);
  void update_average();

  DcganConfig config_;
  GanTrainerOptions options_;
  Generator generator_;
  Discriminator discriminator_;
  Generator average_{nullptr};
  std::unique_ptr<Adam> optimizer_g_;
  std::unique_ptr<Adam> optimizer_d_;
  std::uint64_t steps_ = 0;
  std::uint64_t images_ = 0;
};

}  // namespace gp
