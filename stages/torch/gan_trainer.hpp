#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "stages/torch/adam.hpp"
#include "stages/torch/dcgan.hpp"
#include "stages/torch/learning_rate.hpp"

namespace gp {

struct Checkpoint;

struct GanTrainerOptions {
  std::uint64_t seed = 0;
  double learning_rate = 2e-4;    ///< generator
  double learning_rate_d = 2e-4;  ///< discriminator
  double beta1 = 0.5;
  double beta2 = 0.999;
  double label_smoothing = 0;  ///< reals are trained towards 1 - this
  LearningRateSchedule schedule;
  int d_steps = 1;     ///< updates of D (a pair each) on each batch, each with fakes of its own
  int accumulate = 1;  ///< parts that a batch is computed in; gradients are those of their mean
  double ema = 0;      ///< decay of the generator's moving average; 0: none
  /// Images after which half of it is forgotten (Karras et al. 2020), instead of `ema`; 0: not so.
  double ema_half_life = 0;
  /// The half-life is at most this share of the images seen so far; 0: no such limit.
  double ema_ramp_up = 0.05;
  at::Device device = at::kCPU;
  bool bf16 = false;
  bool undoable = false;  ///< each step keeps a copy of the state before it, for undo()
};

/// What one step measured: the discriminator before its updates.
struct GanStep {
  float loss_d_real = 0;
  float loss_d_fake = 0;
  float loss_g = 0;
  float accuracy_real = 0;  ///< share of reals with a logit above 0
  float accuracy_fake = 0;  ///< share of fakes with a logit of 0 or less
  float gradient_norm_d_real = 0;
  float gradient_norm_d_fake = 0;
  float gradient_norm_g = 0;

  float loss_d() const { return (loss_d_real + loss_d_fake) / 2; }
  /// Whether all losses are finite, and the gradients of all three updates. (If not, those updates
  /// have made the weights useless, which the losses show only a step later.)
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
/// norm statistics move once a step (DcganConfig::exact makes that pass, and so do batches that are
/// computed in parts). All random numbers are functions of (seed, purpose, step).
class GanTrainer {
 public:
  GanTrainer(const DcganConfig& config, const GanTrainerOptions& options);
  ~GanTrainer();

  /// `pixels`: uint8 [N,H,W,3], on any device.
  GanStep step(const at::Tensor& pixels);

  std::uint64_t steps() const { return steps_; }    ///< done so far
  std::uint64_t images() const { return images_; }  ///< seen so far
  const DcganConfig& config() const { return config_; }
  const GanTrainerOptions& options() const { return options_; }

  const Generator& generator() const { return generator_; }
  const Discriminator& discriminator() const { return discriminator_; }
  bool has_average() const { return !average_.is_empty(); }
  /// The generator to make pictures with: the moving average where there is one.
  const Generator& best_generator() const { return average_ ? average_ : generator_; }

  /// All state by name: "G.*", "D.*", "EMA.*", "optimizer_G.*", "optimizer_D.*". Not copies.
  std::map<std::string, at::Tensor> state() const;
  /// Takes back the last step, exactly, but for steps() and images(), which it has used up. Needs
  /// GanTrainerOptions::undoable.
  void undo();
  /// Takes all of it from a checkpoint, but not how far it had come. Throws DataError that names
  /// the file and the first tensor that does not fit.
  void load_state(const Checkpoint& checkpoint);
  void set_progress(std::uint64_t steps, std::uint64_t images) {
    steps_ = steps;
    images_ = images;
  }

 private:
  struct Pass {
    at::Tensor loss;
    at::Tensor logits;
  };
  /// Forward through D and the loss against `target`.
  Pass discriminate(const at::Tensor& images, float target, const std::string& pass);
  /// Gradients of the mean loss over the images, computed part by part. Returns loss and logits.
  Pass train_discriminator(const at::Tensor& images, float target, const std::string& pass);
  at::Tensor generate(const at::Tensor& z);
  /// Gradients of G through the frozen D; `fakes` of `z`, with their graph, or none to make them
  /// again. Returns the loss.
  at::Tensor train_generator(const at::Tensor& z, const at::Tensor& fakes);
  /// `count`: images of the step.
  void update_average(std::int64_t count);
  void keep_state();

  DcganConfig config_;
  GanTrainerOptions options_;
  Generator generator_;
  Discriminator discriminator_;
  Generator average_{nullptr};
  std::unique_ptr<Adam> optimizer_g_;
  std::unique_ptr<Adam> optimizer_d_;
  std::unique_ptr<Checkpoint> before_;  ///< what undo() brings back
  std::uint64_t steps_ = 0;
  std::uint64_t images_ = 0;
};

}  // namespace gp
