#include "stages/torch/balance_monitor.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "stages/torch/format_text.hpp"

namespace gp {
namespace {

using nlohmann::ordered_json;

/// The first few of what may be tried, in the order of what to try first.
std::string first_of(const std::vector<std::string>& choices) {
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(choices.size(), kMost); ++i) {
    text.append(i == 0 ? "" : "; or ").append(choices[i]);
  }
  return text;
}

}  // namespace

const std::array<const char*, BalanceMonitor::kMeasures> BalanceMonitor::kMeasureNames{
    "accuracy_real",    "accuracy_fake",  "sign_real", "pair_accuracy",
    "log_gradient_d",   "log_gradient_g", "diversity", "leak_colour",
    "leak_translation", "leak_cutout",    "loss_g",    "augment_p"};
const std::array<const char*, BalanceMonitor::kStates> BalanceMonitor::kStateNames{
    "d_saturated", "d_dead",       "d_explodes",        "g_explodes",  "g_collapsed",
    "d_overfits",  "leaks_colour", "leaks_translation", "leaks_cutout"};

BalanceSample balance_sample(const GanStep& step) {
  BalanceSample sample;
  sample.accuracy_real = step.accuracy_real;
  sample.accuracy_fake = step.accuracy_fake;
  sample.loss_g = step.loss_g;
  const std::map<std::string, double BalanceSample::*> members{
      {"sign_real", &BalanceSample::sign_real},
      {"pair_accuracy", &BalanceSample::pair_accuracy},
      {"gradient_norm_d", &BalanceSample::gradient_norm_d},
      {"gradient_norm_g", &BalanceSample::gradient_norm_g},
      {"diversity", &BalanceSample::diversity},
      {"leak_colour", &BalanceSample::leak_colour},
      {"leak_translation", &BalanceSample::leak_translation},
      {"leak_cutout", &BalanceSample::leak_cutout},
      {"augment_p", &BalanceSample::augment_p}};
  for (const auto& [name, value] : step.extras) {
    const auto member = members.find(name);
    if (member != members.end()) sample.*(member->second) = value;
  }
  return sample;
}

std::string BalanceFinding::text() const {
  if (over) return kind + " is over: " + evidence;
  return kind + ": " + evidence + "; try " + advice;
}

ordered_json BalanceFinding::json() const {
  ordered_json json = {{"finding", kind},
                       {"over", over},
                       {"evidence", evidence},
                       {"value", value},
                       {"threshold", threshold}};
  if (!over) json["advice"] = advice;
  return json;
}

void BalanceMonitor::Mean::add(std::uint64_t at, double value, double window) {
  const double kept = at > step ? std::exp(-static_cast<double>(at - step) / window) : 1;
  sum = kept * sum + value;
  weight = kept * weight + 1;
  step = at;
  ++count;
}

BalanceMonitor::BalanceMonitor(BalanceSettings settings, const BalanceThresholds& thresholds)
    : settings_(std::move(settings)), thresholds_(thresholds) {}

void BalanceMonitor::add(std::uint64_t step, const BalanceSample& sample) {
  step_ = step;
  // Norms are averaged by their logarithms: one explosion would hide hundreds of vanished ones.
  constexpr double kLeastNorm = 1e-30;
  const std::array<double, kMeasures> values{sample.accuracy_real,
                                             sample.accuracy_fake,
                                             sample.sign_real,
                                             sample.pair_accuracy,
                                             std::log(std::max(sample.gradient_norm_d, kLeastNorm)),
                                             std::log(std::max(sample.gradient_norm_g, kLeastNorm)),
                                             sample.diversity,
                                             sample.leak_colour,
                                             sample.leak_translation,
                                             sample.leak_cutout,
                                             sample.loss_g,
                                             sample.augment_p};
  const double log_before_d = mean(kLogGradientD), log_before_g = mean(kLogGradientG);
  for (std::size_t i = 0; i < kMeasures; ++i) {
    if (std::isfinite(values[i])) means_[i].add(step, values[i], thresholds_.window);
  }
  if (step < thresholds_.warm_up) return;
  // Maxima of what was measured; a mean without values is NaN and compares false.
  if (!warm_) {
    warm_ = true;
    largest_gradient_d_ = largest_gradient_g_ = std::log(kLeastNorm);
    least_sign_ = 1;
    low_sign_step_ = step;
  }
  // Not the present mean: that of a hinge loss with steps of no gradient is next to nothing.
  check_explosion(kExplodesD, values[kLogGradientD], std::max(log_before_d, largest_gradient_d_));
  check_explosion(kExplodesG, values[kLogGradientG], std::max(log_before_g, largest_gradient_g_));
  if (mean(kLogGradientD) > largest_gradient_d_) largest_gradient_d_ = mean(kLogGradientD);
  if (mean(kLogGradientG) > largest_gradient_g_) largest_gradient_g_ = mean(kLogGradientG);
  if (mean(kDiversity) > largest_diversity_) largest_diversity_ = mean(kDiversity);
  if (mean(kSignReal) < least_sign_) least_sign_ = mean(kSignReal);
  check_discriminator();
  check_diversity();
  check_sign();
  check_leaks();
}

double BalanceMonitor::gradient_share(Measure measure, double largest) const {
  return std::exp(mean(measure) - largest);
}

void BalanceMonitor::change(State state, bool begins, bool over, double value, double begin,
                            double end, const std::string& evidence) {
  if (active_[state] ? !over : !begins) return;
  active_[state] = !active_[state];
  BalanceFinding finding;
  finding.kind = kind_of(state);
  finding.evidence = evidence;
  finding.value = value;
  finding.threshold = active_[state] ? begin : end;
  finding.step = step_;
  finding.over = !active_[state];
  if (active_[state]) finding.advice = advice(state);
  findings_.push_back(std::move(finding));
}

void BalanceMonitor::check_discriminator() {
  const double real = mean(kAccuracyReal), fake = mean(kAccuracyFake);
  if (means_[kAccuracyReal].count < thresholds_.least ||
      means_[kAccuracyFake].count < thresholds_.least) {
    return;
  }
  const double share_d = gradient_share(kLogGradientD, largest_gradient_d_);
  const double share_g = gradient_share(kLogGradientG, largest_gradient_g_);
  const std::string accuracies =
      format("D is right about %.1f%% of reals and %.1f%% of fakes (mean over about %.0f steps)",
             100 * real, 100 * fake, thresholds_.window);
  std::string gradients;
  if (std::isfinite(share_d)) {
    gradients += format("; D's gradient is %.3g, %.0f%% of its largest mean",
                        std::exp(mean(kLogGradientD)), 100 * share_d);
  }
  if (std::isfinite(share_g)) {
    gradients += format("; G's gradient is %.3g, %.0f%% of its largest mean",
                        std::exp(mean(kLogGradientG)), 100 * share_g);
  }
  if (means_[kLossG].count > 0) gradients += format("; G's loss is %.3g", mean(kLossG));

  const double lower = std::min(real, fake);
  change(kSaturated, lower > thresholds_.saturated, lower < thresholds_.saturated_over, lower,
         thresholds_.saturated, thresholds_.saturated_over, accuracies + gradients);

  // At 1/2 a healthy D may be, too, where G has won. It is dead where it says the same to all, not
  // only by a border that lies beside its answers, or no longer learns.
  const double from_half = std::abs((real + fake) / 2 - 0.5);
  const double side = std::abs(real - fake), pairs = mean(kPairAccuracy);
  const bool one_sided = side > thresholds_.one_sided && !(pairs > thresholds_.ranks);
  const bool still = share_d < thresholds_.gradient_left;
  change(kDead, from_half < thresholds_.dead && (one_sided || still),
         from_half > thresholds_.dead_over ||
             !((side > thresholds_.one_sided_over && !(pairs > thresholds_.ranks_over)) ||
               share_d < 2 * thresholds_.gradient_left),
         from_half, thresholds_.dead, thresholds_.dead_over,
         accuracies + gradients +
             (one_sided ? format("; it calls almost all images %s and ranks %.0f%% of pairs right",
                                 real > fake ? "real" : "fake", 100 * pairs)
                        : ""));
}

void BalanceMonitor::check_explosion(State state, double log_norm, double log_largest) {
  const double ratio = std::exp(log_norm - log_largest);
  if (!std::isfinite(ratio)) return;
  std::uint64_t& burst_step = state == kExplodesD ? burst_d_step_ : burst_g_step_;
  if (ratio > thresholds_.explodes_over) burst_step = step_;
  const bool calm = static_cast<double>(step_ - burst_step) >= thresholds_.window;
  change(state, ratio > thresholds_.explodes, calm, ratio, thresholds_.explodes,
         thresholds_.explodes_over,
         format("the norm of %s's gradient is %.3g, %.3g times its largest mean so far",
                state == kExplodesD ? "D" : "G", std::exp(log_norm), ratio));
}

void BalanceMonitor::check_diversity() {
  if (means_[kDiversity].count < thresholds_.least) return;
  const double diversity = mean(kDiversity);
  change(
      kCollapsed, diversity<thresholds_.collapsed, diversity> thresholds_.collapsed_over, diversity,
      thresholds_.collapsed, thresholds_.collapsed_over,
      format("a batch of fakes differs among itself %.2f times as much as one of reals (the most "
             "so far was %.2f)",
             diversity, largest_diversity_));
}

void BalanceMonitor::check_sign() {
  if (held_out_step_ > 0 || means_[kSignReal].count < thresholds_.least) return;
  const double sign = mean(kSignReal);
  const double target = settings_.augments() ? settings_.augment_target : 0;
  const bool high = target > 0
                        ? sign > target + thresholds_.above_target
                        : sign > thresholds_.sign && sign - least_sign_ > thresholds_.sign_rise;
  if (!high) low_sign_step_ = step_;
  // What saturates is not taken for what overfits, nor what is on its way to: without held-out
  // images both look alike at first.
  const bool begins =
      static_cast<double>(step_ - low_sign_step_) >= thresholds_.sign_windows * thresholds_.window;
  const double begin = target > 0 ? target + thresholds_.above_target : thresholds_.sign;
  const double end = target > 0 ? target + thresholds_.above_target / 2 : thresholds_.sign_over;
  change(
      kOverfits, begins && !active_[kSaturated], sign < end, sign, begin, end,
      format("the mean sign of D on training reals (ADA's r_t) is %.2f, at its least it was %.2f%s",
             sign, least_sign_,
             target > 0 ? format("; augment_target is %.2f, and p has come to %.2f", target,
                                 mean(kAugmentP))
                              .c_str()
                        : "; no evaluation of held-out images has told for sure"));
}

void BalanceMonitor::add(const HeldOutSample& sample) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (sample.step <= held_out_step_ || !finite(sample.accuracy_train) ||
      !finite(sample.accuracy_held_out) || !finite(sample.accuracy_fake)) {
    return;
  }
  step_ = std::max(step_, sample.step);
  held_out_step_ = sample.step;
  if (sample.step < thresholds_.warm_up) return;
  const double gap = sample.accuracy_train - sample.accuracy_held_out;
  // Of fakes; with pairs, what D would rank right if it could not tell a real from a fake.
  const double called_real = sample.pairs ? 0.5 : 1 - sample.accuracy_fake;
  // Where D calls no more of the training reals real than of the fakes, there is no distance to
  // measure by, and D knows nothing by heart.
  const double distance = sample.accuracy_train - called_real;
  const double share = distance > 0 ? std::min(gap / distance, 1.0) : 0;
  change(kOverfits, share > thresholds_.overfits && gap > thresholds_.least_gap,
         share < thresholds_.overfits_over || gap < thresholds_.least_gap / 2, share,
         thresholds_.overfits, thresholds_.overfits_over,
         (sample.pairs
              ? format("D ranks %.0f%% of pairs of a training real and a fake right, but %.0f%% of "
                       "those of a held-out real and a fake",
                       100 * sample.accuracy_train, 100 * sample.accuracy_held_out)
              : format("D calls %.0f%% of training reals real, but %.0f%% of held-out reals and "
                       "%.0f%% of fakes",
                       100 * sample.accuracy_train, 100 * sample.accuracy_held_out,
                       100 * called_real)) +
             format(": held-out reals lie %.0f%% of the way to the fakes (step %llu)", 100 * share,
                    static_cast<unsigned long long>(sample.step)));
}

void BalanceMonitor::check_leaks() {
  struct Leak {
    State state;
    Measure measure;
    bool used;
    const char* trace;
  };
  const std::array<Leak, 3> leaks{
      Leak{kColourLeaks, kLeakColour, settings_.colour,
           "colour: the brightness and saturation of fakes vary as those of augmented reals do"},
      Leak{kTranslationLeaks, kLeakTranslation, settings_.translation,
           "translation: fakes have gray strips along their borders"},
      Leak{kCutoutLeaks, kLeakCutout, settings_.cutout, "cutout: fakes have flat gray blocks"}};
  for (const Leak& leak : leaks) {
    if (!leak.used || means_[leak.measure].count < thresholds_.least) continue;
    const double value = mean(leak.measure);
    change(leak.state, value > thresholds_.leaks, value < thresholds_.leaks_over, value,
           thresholds_.leaks, thresholds_.leaks_over,
           format("%s; from reals (0) to augmented reals (1) they are at %.2f", leak.trace, value));
  }
}

std::string BalanceMonitor::kind_of(State state) const {
  return state >= kColourLeaks ? "augmentation_leaks" : kStateNames[state];
}

std::string BalanceMonitor::advice(State state) const {
  const BalanceSettings& set = settings_;
  const bool gan = set.stage != "train.dcgan";
  std::vector<std::string> choices;
  const auto choice = [&](bool possible, const std::string& text) {
    if (possible) choices.push_back(text);
  };
  constexpr std::uint64_t kAdvisedWarmUp = 1000;
  const std::string rise_longer = "warm_up: 1000, where it is early in the training";
  const std::string half_g = format("learning_rate: %.3g (half)", set.learning_rate / 2);
  const std::string half_d = format("learning_rate_d: %.3g (half)", set.learning_rate_d / 2);
  switch (state) {
    case kSaturated:
      choice(set.d_steps > 1, "d_steps: 1");
      choice(set.learning_rate_d > set.learning_rate,
             format("learning_rate_d: %.3g, G's", set.learning_rate));
      choice(gan && set.norm_d != "spectral" && set.r1 == 0,
             "r1: 1 with norm_d: none, or norm_d: spectral: both bound D's slope");
      choice(gan && set.r1 > 0, format("r1: %.3g (4 times)", 4 * set.r1));
      choice(gan && set.loss == "relativistic" && set.r1 > 0 && set.r2 == 0,
             format("r2: %.3g, as r1", set.r1));
      choice(gan && !set.augments(),
             "augment_colour, augment_translation and augment_cutout: true, which makes D's task "
             "harder");
      choice(set.label_smoothing == 0 && (set.loss == "bce" || set.loss == "least_squares"),
             "label_smoothing: 0.1");
      choice(set.learning_rate_d <= set.learning_rate, half_d);
      choice(set.channels_d > set.channels, format("channels_d: %d, as G", set.channels));
      choice(set.dropout < 0.25, "dropout: 0.25");
      break;
    case kDead:
      choice(gan && set.r1 > 0,
             format("r1: %.3g (a quarter): the penalty may hold D flat", set.r1 / 4));
      choice(gan && set.r2 > 0, format("r2: %.3g (a quarter)", set.r2 / 4));
      choice(gan && set.augments() && set.augment_target > 0.3,
             format("augment_target: %.2f, so that p is lower", set.augment_target / 2));
      choice(gan && set.augments() && set.augment_target == 0 && set.augment_p > 0.5,
             "augment_p: 0.5: D may see too little of the images");
      choice(set.learning_rate_d < set.learning_rate,
             format("learning_rate_d: %.3g, G's", set.learning_rate));
      choice(gan && set.norm_d == "none" && set.r1 == 0,
             "norm_d: spectral, which keeps D from running off");
      choice(set.dropout > 0.1, format("dropout: %.2g (half)", set.dropout / 2));
      choice(set.d_steps == 1, "d_steps: 2");
      choice(set.learning_rate_d >= set.learning_rate,
             half_d + ": too long steps may have killed its units");
      break;
    case kExplodesD:
      choice(gan && set.penalty_every > 1 && (set.r1 > 0 || set.r2 > 0),
             format("penalty_every: 1: now penalties come %d times as large", set.penalty_every));
      choice(gan && set.norm_d == "none" && set.r1 == 0,
             "r1: 1, or norm_d: spectral: both bound D's slope");
      choice(true, half_d);
      choice(set.warm_up < kAdvisedWarmUp, rise_longer);
      break;
    case kExplodesG:
      choice(active_[kExplodesD], "what d_explodes names first: D leads G");
      choice(true, half_g);
      choice(gan && set.norm_g == "none", "norm_g: batch");
      choice(set.warm_up < kAdvisedWarmUp, rise_longer);
      break;
    case kCollapsed:
      if (active_[kSaturated])
        choices.push_back("what d_saturated names first: G gets no gradient");
      if (active_[kDead]) choices.push_back("what d_dead names first: G is told nothing");
      choice(gan && !set.minibatch_stddev,
             "minibatch_stddev: true, which shows D how alike the fakes are");
      choice(gan && set.loss != "relativistic",
             std::string(set.r1 > 0 && set.r2 > 0
                             ? "loss: relativistic"
                             : "loss: relativistic with r1: 1, r2: 1 and norm_d: none") +
                 (set.label_smoothing > 0 ? " and label_smoothing: 0" : ""));
      choice(true, half_g);
      choice(set.beta1 > 0.5, "beta1: 0.5");
      choice(set.d_steps == 1, "d_steps: 2");
      choice(!gan, "stage train.gan with minibatch_stddev: true");
      break;
    case kOverfits:
      choice(gan && !set.augments(), "augment_colour: true and augment_translation: true");
      choice(gan && set.augments() && set.augment_target == 0 && set.augment_p < 0.8,
             format("augment_p: %.2g", std::min(0.8, 2 * set.augment_p)));
      choice(set.augments() && set.augment_target > 0 && mean(kAugmentP) < 0.9,
             format("augment_speed_kimg: %.3g (a quarter), so that p follows sooner",
                    set.augment_speed_kimg / 4));
      choice(gan && set.augments() && !(set.colour && set.translation && set.cutout),
             "all kinds of it: augment_colour, augment_translation, augment_cutout");
      choice(!gan, "more data by augment.flip and augment.affine before batch");
      choice(gan && set.r1 > 0, format("r1: %.3g (4 times)", 4 * set.r1));
      choice(gan && set.r1 == 0 && set.norm_d == "none", "r1: 1");
      choice(set.dropout < 0.5, format("dropout: %.2g", set.dropout < 0.25 ? 0.25 : 0.5));
      choice(gan, format("channels_d: %d (half)", std::max(1, set.channels_d / 2)));
      choice(!gan, "stage train.gan with augment_colour: true and augment_translation: true");
      choice(held_out_step_ == 0, "held_out of evaluate.quality, to be sure");
      break;
    case kColourLeaks:
    case kTranslationLeaks:
    case kCutoutLeaks: {
      const std::string name = state == kColourLeaks        ? "colour"
                               : state == kTranslationLeaks ? "translation"
                                                            : "cutout";
      choice(set.augment_target == 0 && set.augment_p > 0.8,
             "augment_p: 0.8 (Karras et al. 2020: below, augmentations seldom leak)");
      choice(set.augment_target == 0 && set.augment_p <= 0.8,
             format("augment_p: %.2g (half)", set.augment_p / 2));
      choice(set.augment_target > 0.3,
             format("augment_target: %.2f, so that p stays lower", set.augment_target / 2));
      choice(true, "augment_" + name + ": false");
      break;
    }
    case kStates:
      break;
  }
  return first_of(choices);
}

std::vector<BalanceFinding> BalanceMonitor::take_findings() { return std::exchange(findings_, {}); }

std::vector<std::string> BalanceMonitor::active() const {
  std::vector<std::string> kinds;
  for (std::size_t i = 0; i < kStates; ++i) {
    const std::string kind = kind_of(static_cast<State>(i));
    if (active_[i] && (kinds.empty() || kinds.back() != kind)) kinds.push_back(kind);
  }
  return kinds;
}

ordered_json BalanceMonitor::means() const {
  ordered_json json = ordered_json::object();
  const auto put = [&](const char* name, Measure measure, bool logarithm = false) {
    if (means_[measure].count == 0) return;
    json[name] = logarithm ? std::exp(mean(measure)) : mean(measure);
  };
  put("sign_real", kSignReal);
  put("pair_accuracy", kPairAccuracy);
  put("gradient_norm_d", kLogGradientD, true);
  put("gradient_norm_g", kLogGradientG, true);
  put("diversity", kDiversity);
  put("leak_colour", kLeakColour);
  put("leak_translation", kLeakTranslation);
  put("leak_cutout", kLeakCutout);
  return json;
}

ordered_json BalanceMonitor::json() const {
  ordered_json means = ordered_json::object();
  for (std::size_t i = 0; i < kMeasures; ++i) {
    const Mean& mean = means_[i];
    means[kMeasureNames[i]] = {
        {"sum", mean.sum}, {"weight", mean.weight}, {"step", mean.step}, {"count", mean.count}};
  }
  ordered_json active = ordered_json::object();
  for (std::size_t i = 0; i < kStates; ++i) active[kStateNames[i]] = active_[i];
  return {{"step", step_},
          {"means", means},
          {"active", active},
          {"warm", warm_},
          {"largest_gradient_d", largest_gradient_d_},
          {"largest_gradient_g", largest_gradient_g_},
          {"largest_diversity", largest_diversity_},
          {"least_sign", least_sign_},
          {"low_sign_step", low_sign_step_},
          {"burst_d_step", burst_d_step_},
          {"burst_g_step", burst_g_step_},
          {"held_out_step", held_out_step_}};
}

void BalanceMonitor::read_json(const ordered_json& json) {
  BalanceMonitor read(settings_, thresholds_);
  read.step_ = json.at("step").get<std::uint64_t>();
  const ordered_json& means = json.at("means");
  for (std::size_t i = 0; i < kMeasures; ++i) {
    if (!means.contains(kMeasureNames[i])) continue;  // a measure that is newer than the file
    const ordered_json& mean = means.at(kMeasureNames[i]);
    read.means_[i] = {mean.at("sum").get<double>(), mean.at("weight").get<double>(),
                      mean.at("step").get<std::uint64_t>(), mean.at("count").get<std::uint64_t>()};
  }
  for (std::size_t i = 0; i < kStates; ++i) {
    // What is newer than the file was not known then.
    read.active_[i] = json.at("active").value(kStateNames[i], false);
  }
  read.warm_ = json.at("warm").get<bool>();
  read.largest_gradient_d_ = json.at("largest_gradient_d").get<double>();
  read.largest_gradient_g_ = json.at("largest_gradient_g").get<double>();
  read.largest_diversity_ = json.at("largest_diversity").get<double>();
  read.least_sign_ = json.at("least_sign").get<double>();
  read.low_sign_step_ = json.at("low_sign_step").get<std::uint64_t>();
  read.burst_d_step_ = json.value("burst_d_step", std::uint64_t{0});
  read.burst_g_step_ = json.value("burst_g_step", std::uint64_t{0});
  if (json.contains("held_out_step")) {
    read.held_out_step_ = json.at("held_out_step").get<std::uint64_t>();
  } else if (json.at("held_out").get<bool>()) {  // of an older version: which step is not known
    read.held_out_step_ = std::max<std::uint64_t>(read.step_, 1) - 1;
  }
  *this = std::move(read);
}

}  // namespace gp
