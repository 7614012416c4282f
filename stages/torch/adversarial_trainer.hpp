#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stages/torch/adam.hpp"
#include "stages/torch/gan_step.hpp"
#include "stages/torch/learning_rate.hpp"
#include "stages/torch/model.hpp"

namespace gp {

struct Checkpoint;

/// In the state of a training with classes: int64 [classes], how often it has seen each.
inline constexpr char kClassCounts[] = "trainer.class_counts";

/// What all trainers take.
struct TrainerOptions {
  std::uint64_t seed = 0;
  double learning_rate = 2e-4;    ///< generator
  double learning_rate_d = 2e-4;  ///< discriminator
  double beta1 = 0.5;
  double beta2 = 0.999;
  double label_smoothing = 0;  ///< reals are trained towards 1 - this
  LearningRateSchedule schedule;
  int d_steps = 1;     ///< updates of D (pairs of them in a DCGAN) on each batch, with fresh fakes
  int accumulate = 1;  ///< parts that a batch is computed in; gradients are those of their mean
  double ema = 0;      ///< decay of the generator's moving average; 0: none
  /// Images after which half of it is forgotten (Karras et al. 2020), instead of `ema`; 0: not so.
  double ema_half_life = 0;
  /// The half-life is at most this share of the images seen since the newest layers joined; 0: no
  /// such limit.
  double ema_ramp_up = 0.05;
  at::Device device = at::kCPU;
  bool bf16 = false;
  bool undoable = false;  ///< each step keeps a copy of the state before it, for undo()
};

/// A generator and a discriminator, their optimisers and the generator's moving average: all that a
/// training has besides its update rule, which derived classes are. No files and no loop. One
/// thread. All random numbers are functions of (seed, purpose, step).
class AdversarialTrainer {
 public:
  virtual ~AdversarialTrainer();

  /// Trains on `pixels`, uint8 [N,H,W,3], and `labels`, int64 [N] on the CPU, or undefined
  /// for a model without classes.
  /// Returns what was measured as floats on the trainer's device, for measured(): reading them at
  /// once would wait for the device.
  at::Tensor start_step(const at::Tensor& pixels, const at::Tensor& labels);
  GanStep measured(const at::Tensor& values) const;
  GanStep step(const at::Tensor& pixels, const at::Tensor& labels = {}) {
    return measured(start_step(pixels, labels));
  }

  std::uint64_t steps() const { return steps_; }    ///< done so far
  std::uint64_t images() const { return images_; }  ///< seen so far
  const ModelConfig& model() const { return model_; }
  const TrainerOptions& options() const { return options_; }
  const GrowthPoint& growth() const { return growth_; }
  /// Steps after which their costs repeat: above 1 where some have more to do, as with penalties.
  virtual int period() const { return 1; }

  const GeneratorNetwork& generator() const { return *generator_; }
  const DiscriminatorNetwork& discriminator() const { return *discriminator_; }
  bool has_average() const { return average_ != nullptr; }
  /// The generator to make pictures with: the moving average where there is one.
  const GeneratorNetwork& best_generator() const { return average_ ? *average_ : *generator_; }

  /// All state by name: "G.*", "D.*", "EMA.*", "optimizer_G.*", "optimizer_D.*", "trainer.*" (what
  /// an update rule keeps besides). Not copies.
  std::map<std::string, at::Tensor> state() const;
  /// Takes back the last step, exactly, but for steps() and images(), which it has used up. Needs
  /// TrainerOptions::undoable.
  void undo();
  /// Takes all of it from a checkpoint, but not how far it had come. Throws DataError that names
  /// the file and the first tensor that does not fit.
  void load_state(const Checkpoint& checkpoint);
  void set_progress(std::uint64_t steps, std::uint64_t images) {
    steps_ = steps;
    images_ = images;
  }

 protected:
  /// The networks have their first weights.
  AdversarialTrainer(const ModelConfig& model, const TrainerOptions& options,
                     std::shared_ptr<GeneratorNetwork> generator,
                     std::shared_ptr<DiscriminatorNetwork> discriminator);

  /// One step's updates. `reals`: float [N,3,H,W] in [-1,1]. Returns loss of D on reals and on
  /// fakes, loss of G, D's accuracies on reals and fakes, norms of the gradients of D on reals and
  /// fakes and of G, the mean sign of D's logits of reals, pair_accuracy(), and those named by
  /// extra_names(), each of no dimension, on the device.
  virtual std::vector<at::Tensor> update(const at::Tensor& reals, const at::Tensor& labels) = 0;
  virtual std::vector<std::string> extra_names() const { return {}; }
  /// Images seen before the networks' newest layers were trained.
  virtual std::uint64_t images_before_newest() const { return 0; }
  /// What the update rule keeps besides networks and optimisers. Not copies.
  virtual std::map<std::string, at::Tensor> own_state() const { return {}; }

  /// Compares a step's images, [N,3,H,W]: how diverse fakes are, and where `augmented` (the reals
  /// as D saw them) is defined, how far augmentation has gone into them. Not in every step.
  void watch(const at::Tensor& reals, const at::Tensor& fakes, const at::Tensor& augmented);
  bool watches() const { return steps_ % kWatchEvery == 0; }

  double learning_rate_factor() const { return options_.schedule.factor(steps_); }
  Adam& optimizer_g() { return *optimizer_g_; }
  Adam& optimizer_d() { return *optimizer_d_; }
  /// For all three networks.
  void set_growth(const GrowthPoint& point);

 private:
  /// `count`: images of the step.
  void update_average(std::int64_t count);
  void keep_state();

  static constexpr std::uint64_t kWatchEvery = 20;
  /// What watch() measured in this step: diversity, and leaks of colour, translation and cutout.
  std::array<double, 4> watched_{};

  ModelConfig model_;
  TrainerOptions options_;
  GrowthPoint growth_;
  std::shared_ptr<GeneratorNetwork> generator_;
  std::shared_ptr<DiscriminatorNetwork> discriminator_;
  std::shared_ptr<GeneratorNetwork> average_;
  std::unique_ptr<Adam> optimizer_g_;
  std::unique_ptr<Adam> optimizer_d_;
  std::unique_ptr<Checkpoint> before_;  ///< what undo() brings back
  std::uint64_t steps_ = 0;
  std::uint64_t images_ = 0;
};

/// Whether the network's parameters get gradients.
void set_trainable(torch::nn::Module& network, bool trainable);

/// "real", "real.1", "real.2" ..: what random numbers are for.
std::string numbered(std::string name, std::size_t number);

/// Of D's logits [N] of reals and of fakes: the share of all pairs in which the real's is the
/// larger, equal ones counting half. No dimension, on the device: pair_share() of a step's few
/// logits, without waiting for them.
at::Tensor pair_accuracy(const at::Tensor& logits_real, const at::Tensor& logits_fake);

}  // namespace gp
