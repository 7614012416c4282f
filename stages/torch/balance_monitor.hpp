#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "stages/torch/gan_step.hpp"

namespace gp {

/// What one training step (or the mean over some) says about the balance of D and G. What is NaN
/// was not measured.
struct BalanceSample {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  /// Shares of reals and fakes that D, in training mode and on augmented images, is right about.
  /// The border is a logit of 0; that half way between the two targets with least squares. With the
  /// relativistic loss, where only differences of logits mean something, both are the share of
  /// pairs in which the real's logit is the larger.
  double accuracy_real = kNone, accuracy_fake = kNone;
  /// Mean of the sign of D(real) against that border: r_t of ADA (Karras et al. 2020, sec. 3.1).
  /// (-1..1; with relativistic: of D(real) - D(fake).)
  double sign_real = kNone;
  /// Share of all pairs of a real and a fake in which the real's logit is the larger, equal ones
  /// counting half: 0.5 where D cannot tell one from the other, wherever the border is.
  double pair_accuracy = kNone;
  double gradient_norm_d = kNone, gradient_norm_g = kNone;
  /// diversity_of() in image_statistics.hpp: 1 where fakes are as diverse as reals.
  double diversity = kNone;
  /// leaks_of() in image_statistics.hpp: 0 where fakes are like reals, 1 like augmented reals.
  double leak_colour = kNone, leak_translation = kNone, leak_cutout = kNone;
  double loss_g = kNone;
  double augment_p = kNone;  ///< share of images that each augmentation is applied to
};

/// What a trainer measured in a step, as the monitor takes it.
BalanceSample balance_sample(const GanStep& step);

/// D in evaluation mode, on images that are not augmented and fakes of the averaged G: from a
/// record of evaluate.quality.
struct HeldOutSample {
  double accuracy_train = 0;     ///< "real_train"
  double accuracy_held_out = 0;  ///< "real_held_out"
  double accuracy_fake = 0;      ///< "fake"
  std::uint64_t step = 0;
  /// Where a logit of 0 is no border: the first two are "pair_accuracy" and
  /// "pair_accuracy_held_out" instead, shares of pairs with a fake that D ranks right; the third
  /// is unused.
  bool pairs = false;
};

/// What the run has set: advice does not name what is set already.
struct BalanceSettings {
  std::string stage = "train.gan";  ///< or "train.dcgan"
  std::string loss = "bce";
  std::string norm_d = "batch";  ///< "batch", "spectral" or "none"
  std::string norm_g = "batch";  ///< "batch" or "none"
  double r1 = 0, r2 = 0;
  int penalty_every = 1;
  bool colour = false, translation = false, cutout = false;  ///< of `augment`
  double augment_p = 1;       ///< share of images that each is applied to, where it is fixed
  double augment_target = 0;  ///< of ADA, which moves p; 0: p is fixed
  double augment_speed_kimg = 500;
  double learning_rate = 2e-4, learning_rate_d = 2e-4;
  double beta1 = 0.5;
  std::uint64_t warm_up = 0;  ///< steps
  bool minibatch_stddev = false;
  double dropout = 0;
  int d_steps = 1;
  double label_smoothing = 0;
  int channels = 32, channels_d = 32;

  bool augments() const { return colour || translation || cutout; }
};

/// When BalanceMonitor speaks. Where a paper has a number it is that one; the others are ours.
struct BalanceThresholds {
  /// Steps (not images: D and G answer each other once an update) after which a value counts 1/e.
  /// With 200, means of accuracies over batches of 32 are exact to 0.5 points, and a finding comes
  /// a few hundred steps after its cause.
  double window = 200;
  /// No finding in that many first steps: a fresh D always wins, and a fresh G draws one gray
  /// image.
  std::uint64_t warm_up = 500;
  /// Measurements that a mean needs, where not every step has one.
  std::uint64_t least = 5;

  double saturated = 0.95, saturated_over = 0.90;  ///< the smaller of D's two accuracies
  double dead = 0.05, dead_over = 0.10;            ///< |mean of both accuracies - 1/2|, ...
  double one_sided = 0.90, one_sided_over = 0.80;  ///< ... and their difference, while pairs ...
  double ranks = 0.75, ranks_over = 0.80;  ///< ... of a real and a fake are no better told, or ...
  double gradient_left = 0.05;  ///< ... D's gradient as a share of its largest mean (over: twice)
  /// The norm of a gradient in one step, as a multiple of its largest (geometric) mean before.
  /// (After the warm-up of trainings that went well D's came to 12 and G's to 53; of two that grew
  /// at too high a rate, D's came to 2,000 and 8,000.)
  double explodes = 100, explodes_over = 10;
  double collapsed = 0.25, collapsed_over = 0.40;  ///< diversity
  /// Of the distance from D's answers on training reals to those on fakes, how much held-out reals
  /// have gone: ADA's r_v, with accuracies for logits. Above 1/2 D takes them for fakes.
  double overfits = 0.5, overfits_over = 0.3;
  double least_gap = 0.1;  ///< and the two accuracies of reals differ by this at least
  /// r_t where there is no held-out set. ADA holds it at 0.6 with augmentation; without, a plain
  /// DCGAN's D often lies above that. So: this high, and risen by that from its lowest mean.
  double sign = 0.8, sign_over = 0.7, sign_rise = 0.2;
  double above_target = 0.1;  ///< with ADA instead: how far above its target
  double sign_windows = 5;    ///< either for so many windows
  double leaks = 0.5, leaks_over = 0.3;
};

/// A state of a training that has begun, or is over.
struct BalanceFinding {
  /// "d_saturated", "d_dead", "d_explodes", "g_explodes", "g_collapsed", "d_overfits",
  /// "augmentation_leaks"
  std::string kind;
  std::string evidence;  ///< what was measured, against what
  std::string advice;  ///< which YAML parameters of the stage to change, and to what; none if over
  double value = 0;    ///< the measure that decided, ...
  double threshold = 0;  ///< ... and where it begins or, for `over`, ends
  std::uint64_t step = 0;
  bool over = false;

  /// A line for the log.
  std::string text() const;
  /// For metrics.jsonl.
  nlohmann::ordered_json json() const;
};

/// Says in words when a GAN's training loses its balance: D saturates (always right, G learns
/// nothing from it), D is dead (tells nothing apart), the gradient of one of them explodes, G
/// collapses (makes the same few pictures), D overfits (knows the training reals by heart), or
/// augmentation leaks (G draws its traces).
///
/// A finding is reported when it begins, and again only after it was over, which lies a step
/// further on (hysteresis) and is told too. D's first two states exclude each other: they are at
/// opposite ends of its accuracy. Pure function of what it was fed; one thread.
class BalanceMonitor {
 public:
  explicit BalanceMonitor(BalanceSettings settings, const BalanceThresholds& thresholds = {});

  /// `step`: steps done, rising.
  void add(std::uint64_t step, const BalanceSample& sample);
  /// Nothing where the same step or a later one was given before.
  void add(const HeldOutSample& sample);
  /// What has begun or ended since the last call. (Not part of json(): take them before.)
  std::vector<BalanceFinding> take_findings();
  /// Kinds that have begun and are not over, each once.
  std::vector<std::string> active() const;
  /// The means at present, for metrics.jsonl: "sign_real", "gradient_norm_d", "gradient_norm_g",
  /// "diversity", "leak_*"; those without a measurement are left out.
  nlohmann::ordered_json means() const;

  /// All state but settings and thresholds, exactly: a monitor that was given json() goes on as
  /// this one. read_json() throws nlohmann's exceptions and changes nothing then.
  nlohmann::ordered_json json() const;
  void read_json(const nlohmann::ordered_json& json);

 private:
  /// Exponentially weighted, by steps: a value `window` steps ago counts 1/e.
  struct Mean {
    double sum = 0, weight = 0;
    std::uint64_t step = 0, count = 0;

    void add(std::uint64_t at, double value, double window);
    double value() const { return sum / weight; }  ///< NaN without values
  };
  enum Measure : std::size_t {
    kAccuracyReal,
    kAccuracyFake,
    kSignReal,
    kPairAccuracy,
    kLogGradientD,
    kLogGradientG,
    kDiversity,
    kLeakColour,
    kLeakTranslation,
    kLeakCutout,
    kLossG,
    kAugmentP,
    kMeasures
  };
  /// What can be the case on its own; the leaks are of one kind.
  enum State : std::size_t {
    kSaturated,
    kDead,
    kExplodesD,
    kExplodesG,
    kCollapsed,
    kOverfits,
    kColourLeaks,
    kTranslationLeaks,
    kCutoutLeaks,
    kStates
  };
  static const std::array<const char*, kMeasures> kMeasureNames;
  static const std::array<const char*, kStates> kStateNames;

  double mean(Measure measure) const { return means_[measure].value(); }
  double gradient_share(Measure measure, double largest) const;
  /// Notes that a state begins or is over, where that is news. `value` as in BalanceFinding.
  void change(State state, bool begins, bool over, double value, double begin, double end,
              const std::string& evidence);
  void check_discriminator();
  /// `log_norm`: of this step's gradient, `log_largest`: its largest mean before.
  void check_explosion(State state, double log_norm, double log_largest);
  void check_diversity();
  void check_sign();
  void check_leaks();
  std::string kind_of(State state) const;
  std::string advice(State state) const;

  BalanceSettings settings_;
  BalanceThresholds thresholds_;
  std::uint64_t step_ = 0;
  std::array<Mean, kMeasures> means_{};
  std::array<bool, kStates> active_{};
  // Extremes of the means since the warm-up, if that is over.
  bool warm_ = false;
  double largest_gradient_d_ = 0, largest_gradient_g_ = 0;  ///< logarithms
  double largest_diversity_ = 0;
  double least_sign_ = 0;
  std::uint64_t low_sign_step_ = 0;                    ///< the last one at which r_t was not high
  std::uint64_t burst_d_step_ = 0, burst_g_step_ = 0;  ///< .. at which a gradient was large
  /// Of the last HeldOutSample; above 0, r_t no longer decides.
  std::uint64_t held_out_step_ = 0;
  std::vector<BalanceFinding> findings_;
};

}  // namespace gp
