#include "stages/torch/balance_monitor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "pipeline/rng.hpp"
#include "stages/torch/dcgan_trainer.hpp"
#include "stages/torch/diff_augment.hpp"
#include "stages/torch/gan_snapshot.hpp"
#include "stages/torch/gan_trainer.hpp"
#include "stages/torch/image_statistics.hpp"
#include "stages/torch/random_tensor.hpp"
#include "tests/stages/torch/toy_batches.hpp"

namespace gp {
namespace {

/// A training that is well: a D that is right about three of four.
BalanceSample healthy() {
  BalanceSample sample;
  sample.accuracy_real = 0.75;
  sample.accuracy_fake = 0.8;
  sample.sign_real = 0.5;
  sample.pair_accuracy = 0.85;
  sample.gradient_norm_d = 2;
  sample.gradient_norm_g = 1;
  sample.diversity = 0.8;
  sample.leak_colour = sample.leak_translation = sample.leak_cutout = 0.1;
  return sample;
}

BalanceSample with(const std::function<void(BalanceSample&)>& change) {
  BalanceSample sample = healthy();
  change(sample);
  return sample;
}

BalanceSettings augmenting() {
  BalanceSettings settings;
  settings.colour = settings.translation = settings.cutout = true;
  return settings;
}

/// Feeds `steps` times the same, from where it was.
class Feeder {
 public:
  explicit Feeder(BalanceSettings settings = {}, std::uint64_t step = 0)
      : monitor(std::move(settings)), step_(step) {}
  std::vector<BalanceFinding> feed(const BalanceSample& sample, int steps) {
    for (int i = 0; i < steps; ++i) monitor.add(++step_, sample);
    return monitor.take_findings();
  }
  BalanceMonitor monitor;

 private:
  std::uint64_t step_;
};

void expect_one(const std::vector<BalanceFinding>& findings, const std::string& kind, bool over) {
  ASSERT_EQ(findings.size(), 1U) << (findings.empty() ? "" : findings[0].text());
  EXPECT_EQ(findings[0].kind, kind);
  EXPECT_EQ(findings[0].over, over);
  EXPECT_EQ(findings[0].advice.empty(), over);
  EXPECT_FALSE(findings[0].evidence.empty());
}

const BalanceSample kSaturatedD = with([](BalanceSample& s) {
  s.accuracy_real = 0.99;
  s.accuracy_fake = 0.98;
  s.sign_real = 0.98;
});

TEST(BalanceMonitor, FindsNothingInAHealthyTraining) {
  Feeder feeder(augmenting());
  EXPECT_TRUE(feeder.feed(healthy(), 3000).empty());
  EXPECT_TRUE(feeder.monitor.active().empty());
}

TEST(BalanceMonitor, SaysNothingBeforeTheWarmUpEnds) {
  Feeder feeder;
  EXPECT_TRUE(feeder.feed(kSaturatedD, 499).empty());
  expect_one(feeder.feed(kSaturatedD, 1), "d_saturated", false);
}

TEST(BalanceMonitor, ReportsOnceUntilItIsOver) {
  Feeder feeder;
  EXPECT_TRUE(feeder.feed(healthy(), 1000).empty());
  std::vector<BalanceFinding> findings = feeder.feed(kSaturatedD, 2000);
  expect_one(findings, "d_saturated", false);
  EXPECT_GT(findings[0].value, 0.95);
  EXPECT_EQ(findings[0].threshold, 0.95);
  // The mean passes 0.95 after window * ln(0.2 / 0.03) steps for the accuracy that was at 0.75.
  EXPECT_NEAR(static_cast<double>(findings[0].step), 1000 + 200 * std::log(0.24 / 0.04), 60);
  EXPECT_EQ(feeder.monitor.active(), std::vector<std::string>{"d_saturated"});

  // Between the two thresholds nothing changes.
  const auto at = [](double accuracy) {
    return with([&](BalanceSample& s) { s.accuracy_real = s.accuracy_fake = accuracy; });
  };
  EXPECT_TRUE(feeder.feed(at(0.93), 2000).empty());
  EXPECT_TRUE(feeder.feed(at(0.97), 2000).empty());
  findings = feeder.feed(healthy(), 2000);
  expect_one(findings, "d_saturated", true);
  EXPECT_TRUE(feeder.monitor.active().empty());
  EXPECT_TRUE(feeder.feed(at(0.93), 2000).empty());
  expect_one(feeder.feed(at(0.97), 2000), "d_saturated", false);
}

TEST(BalanceMonitor, FindsADeadDByOneAnswerToAll) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  const BalanceSample same = with([](BalanceSample& s) {
    s.accuracy_real = 1;
    s.accuracy_fake = 0;
    s.sign_real = 0;
    s.pair_accuracy = 0.55;
  });
  const std::vector<BalanceFinding> findings = feeder.feed(same, 2000);
  expect_one(findings, "d_dead", false);
  EXPECT_NE(findings[0].evidence.find("almost all images real"), std::string::npos);
  expect_one(feeder.feed(healthy(), 2000), "d_dead", true);
}

TEST(BalanceMonitor, TakesADForAliveThatRanksRightBesideItsBorder) {
  Feeder feeder;
  const BalanceSample shifted = with([](BalanceSample& s) {
    s.accuracy_real = 1;
    s.accuracy_fake = 0;
    s.sign_real = 1;
    s.pair_accuracy = 0.9;
  });
  EXPECT_TRUE(feeder.feed(shifted, 3000).empty());
}

TEST(BalanceMonitor, FindsADeadDByItsGradient) {
  const BalanceSample tied = with([](BalanceSample& s) {
    s.accuracy_real = s.accuracy_fake = 0.5;
    s.sign_real = 0;
  });
  BalanceSample still = tied;
  still.gradient_norm_d = 0.02;
  Feeder feeder;
  EXPECT_TRUE(feeder.feed(healthy(), 1000).empty());
  EXPECT_TRUE(feeder.feed(tied, 2000).empty()) << "G may have won";
  // One explosion does not hide that the gradient has vanished.
  BalanceSample burst = still;
  burst.gradient_norm_d = 1e6;
  std::vector<BalanceFinding> findings = feeder.feed(still, 2000);
  expect_one(findings, "d_dead", false);
  expect_one(feeder.feed(burst, 1), "d_explodes", false);
  EXPECT_TRUE(feeder.feed(still, 100).empty());
}

TEST(BalanceMonitor, FindsAGradientThatExplodes) {
  const std::pair<const char*, double BalanceSample::*> norms[] = {
      {"d_explodes", &BalanceSample::gradient_norm_d},
      {"g_explodes", &BalanceSample::gradient_norm_g}};
  for (const auto& [kind, norm] : norms) {
    SCOPED_TRACE(kind);
    const auto times = [norm = norm](double factor) {
      return with([&](BalanceSample& s) { s.*norm *= factor; });
    };
    Feeder feeder;
    feeder.feed(healthy(), 400);
    EXPECT_TRUE(feeder.feed(times(1e6), 1).empty()) << "before the warm-up ends";
    EXPECT_TRUE(feeder.feed(healthy(), 2000).empty());
    EXPECT_TRUE(feeder.feed(times(80), 1).empty());
    // Steps without a gradient do not make the next one large.
    EXPECT_TRUE(feeder.feed(times(0), 50).empty());
    EXPECT_TRUE(feeder.feed(healthy(), 549).empty());
    const std::vector<BalanceFinding> findings = feeder.feed(times(1e5), 20);
    ASSERT_NO_FATAL_FAILURE(expect_one(findings, kind, false));
    EXPECT_EQ(findings[0].step, 3002U);
    EXPECT_NEAR(findings[0].value, 0.95e5, 0.1e5);
    EXPECT_EQ(feeder.monitor.active(), std::vector<std::string>{kind});
    EXPECT_TRUE(feeder.feed(healthy(), 199).empty());
    expect_one(feeder.feed(healthy(), 1), kind, true);
  }
}

TEST(BalanceMonitor, FindsACollapsedGFromRareMeasurements) {
  Feeder feeder;
  const BalanceSample unmeasured =
      with([](BalanceSample& s) { s.diversity = BalanceSample::kNone; });
  const auto feed = [&](double diversity, int steps) {
    std::vector<BalanceFinding> all;
    for (int i = 0; i < steps; ++i) {
      const BalanceSample sample =
          i % 20 == 0 ? with([&](BalanceSample& s) { s.diversity = diversity; }) : unmeasured;
      for (BalanceFinding& finding : feeder.feed(sample, 1)) all.push_back(std::move(finding));
    }
    return all;
  };
  EXPECT_TRUE(feed(0.9, 1000).empty());
  const std::vector<BalanceFinding> findings = feed(0.05, 2000);
  expect_one(findings, "g_collapsed", false);
  EXPECT_NE(findings[0].evidence.find("0.90"), std::string::npos) << findings[0].evidence;
  EXPECT_TRUE(feed(0.33, 2000).empty());
  expect_one(feed(0.6, 2000), "g_collapsed", true);
}

TEST(BalanceMonitor, FindsOverfittingOnHeldOutImages) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  feeder.monitor.add(HeldOutSample{0.9, 0.85, 0.8, 1000});
  EXPECT_TRUE(feeder.monitor.take_findings().empty());
  feeder.monitor.add(HeldOutSample{0.95, 0.4, 0.9, 2000});  // 0.55 / 0.85
  const std::vector<BalanceFinding> findings = feeder.monitor.take_findings();
  expect_one(findings, "d_overfits", false);
  EXPECT_NEAR(findings[0].value, 0.55 / 0.85, 1e-12);
  EXPECT_EQ(findings[0].step, 2000U);
  feeder.monitor.add(HeldOutSample{0.9, 0.85, 0.8, 3000});
  expect_one(feeder.monitor.take_findings(), "d_overfits", true);
  // A D that tells reals from fakes no better than by chance knows nothing by heart.
  feeder.monitor.add(HeldOutSample{0.4, 0.2, 0.6, 4000});
  EXPECT_TRUE(feeder.monitor.take_findings().empty());
}

TEST(BalanceMonitor, ComparesPairsWhereALogitOfZeroIsNoBorder) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  feeder.monitor.add(HeldOutSample{0.95, 0.9, 0, 1000, true});
  EXPECT_TRUE(feeder.monitor.take_findings().empty());
  feeder.monitor.add(HeldOutSample{0.95, 0.6, 0, 2000, true});
  const std::vector<BalanceFinding> findings = feeder.monitor.take_findings();
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "d_overfits", false));
  EXPECT_NEAR(findings[0].value, 0.35 / 0.45, 1e-12);
  EXPECT_NE(findings[0].evidence.find("60% of those of a held-out real"), std::string::npos);
}

TEST(BalanceMonitor, HearsEachEvaluationOnce) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  const HeldOutSample bad{0.95, 0.4, 0.9, 2000};
  feeder.monitor.add(bad);
  feeder.monitor.add(HeldOutSample{0.9, 0.85, 0.8, 3000});
  EXPECT_EQ(feeder.monitor.take_findings().size(), 2U);
  BalanceMonitor resumed({});
  resumed.read_json(feeder.monitor.json());
  for (BalanceMonitor* monitor : {&feeder.monitor, &resumed}) {
    monitor->add(bad);
    EXPECT_TRUE(monitor->take_findings().empty());
  }
}

const BalanceSample kKnowsByHeart = with([](BalanceSample& s) {
  s.accuracy_real = 0.93;
  s.sign_real = 0.86;
});

TEST(BalanceMonitor, FindsOverfittingByTheSignWhereNothingIsHeldOut) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  expect_one(feeder.feed(kKnowsByHeart, 2000), "d_overfits", false);
  expect_one(feeder.feed(healthy(), 2000), "d_overfits", true);

  Feeder worse;  // a D that then saturates has not stopped to overfit
  worse.feed(healthy(), 1000);
  expect_one(worse.feed(kKnowsByHeart, 2000), "d_overfits", false);
  expect_one(worse.feed(kSaturatedD, 2000), "d_saturated", false);

  Feeder always;  // strong from the start on: nothing says that it is by heart
  EXPECT_TRUE(always.feed(kKnowsByHeart, 3000).empty());

  Feeder held_out;  // held-out images know better
  held_out.feed(healthy(), 1000);
  held_out.monitor.add(HeldOutSample{0.9, 0.88, 0.8, 1000});
  EXPECT_TRUE(held_out.feed(kKnowsByHeart, 2000).empty());
}

TEST(BalanceMonitor, HoldsTheSignAgainstTheTargetOfAdaptiveAugmentation) {
  BalanceSettings settings = augmenting();
  settings.augment_target = 0.6;
  Feeder feeder(settings);
  const auto at = [](double sign) { return with([&](BalanceSample& s) { s.sign_real = sign; }); };
  EXPECT_TRUE(feeder.feed(at(0.66), 3000).empty());
  const auto with_p = [&](double p) {
    BalanceSample sample = at(0.75);
    sample.augment_p = p;
    return sample;
  };
  Feeder late = feeder;
  std::vector<BalanceFinding> findings = late.feed(with_p(0.1), 3000);
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "d_overfits", false));
  EXPECT_NE(findings[0].evidence.find("p has come to 0.10"), std::string::npos);
  EXPECT_EQ(findings[0].advice.find("augment_speed_kimg: 125 "), 0U);
  findings = feeder.feed(with_p(1), 3000);
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "d_overfits", false));
  EXPECT_EQ(findings[0].advice.find("augment_speed_kimg"), std::string::npos);
}

TEST(BalanceMonitor, FindsEachLeakOfAnAugmentationThatIsOn) {
  const std::pair<const char*, double BalanceSample::*> leaks[] = {
      {"colour", &BalanceSample::leak_colour},
      {"translation", &BalanceSample::leak_translation},
      {"cutout", &BalanceSample::leak_cutout}};
  for (const auto& [name, member] : leaks) {
    BalanceSample sample = healthy();
    sample.*member = 0.9;
    Feeder feeder(augmenting());
    feeder.feed(healthy(), 1000);
    const std::vector<BalanceFinding> findings = feeder.feed(sample, 2000);
    expect_one(findings, "augmentation_leaks", false);
    EXPECT_EQ(findings[0].evidence.find(name), 0U);
    EXPECT_NE(findings[0].advice.find("augment_" + std::string(name) + ": false"),
              std::string::npos);
    EXPECT_NE(findings[0].advice.find("augment_p: 0.8"), std::string::npos);
    expect_one(feeder.feed(healthy(), 2000), "augmentation_leaks", true);

    Feeder off;
    EXPECT_TRUE(off.feed(sample, 3000).empty());
  }
}

std::string advice_of(const BalanceSettings& settings, const BalanceSample& sample) {
  Feeder feeder(settings);
  const std::vector<BalanceFinding> findings = feeder.feed(sample, 1000);
  return findings.empty() ? "" : findings[0].advice;
}

TEST(BalanceMonitor, AdvisesByWhatIsSet) {
  BalanceSettings settings;
  EXPECT_NE(advice_of(settings, kSaturatedD).find("norm_d: spectral"), std::string::npos);
  settings.norm_d = "spectral";
  EXPECT_EQ(advice_of(settings, kSaturatedD).find("norm_d"), std::string::npos);
  settings.d_steps = 3;
  EXPECT_EQ(advice_of(settings, kSaturatedD).find("d_steps: 1"), 0U);
  settings.r1 = 1;
  EXPECT_NE(advice_of(settings, kSaturatedD).find("r1: 4 "), std::string::npos);

  // train.dcgan has none of these.
  settings = {};
  settings.stage = "train.dcgan";
  const BalanceSample collapsed = with([](BalanceSample& s) { s.diversity = 0; });
  for (const BalanceSample& sample : {kSaturatedD, collapsed}) {
    const std::string advice = advice_of(settings, sample);
    EXPECT_FALSE(advice.empty());
    for (const char* parameter : {"r1:", "norm_d", "loss:", "augment_"}) {
      EXPECT_EQ(advice.find(parameter), std::string::npos) << advice;
    }
  }
  settings.stage = "train.gan";
  EXPECT_EQ(advice_of(settings, collapsed).find("minibatch_stddev: true"), 0U);
  settings.minibatch_stddev = true;
  EXPECT_EQ(advice_of(settings, collapsed).find("minibatch_stddev"), std::string::npos);
}

TEST(BalanceMonitor, IgnoresWhatIsNotFinite) {
  Feeder feeder;
  feeder.feed(healthy(), 1000);
  BalanceSample bad = kSaturatedD;
  bad.accuracy_real = bad.gradient_norm_d = BalanceSample::kNone;
  bad.gradient_norm_g = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(feeder.feed(bad, 100).empty());
  const nlohmann::ordered_json means = feeder.monitor.means();
  EXPECT_NEAR(means.at("gradient_norm_g").get<double>(), 1, 1e-12);
  EXPECT_NEAR(means.at("gradient_norm_d").get<double>(), 2, 1e-12);
}

TEST(BalanceMonitor, GoesOnExactlyFromItsJson) {
  const auto sample = [](std::uint64_t step) {
    Rng rng(1, "samples", step);
    BalanceSample s = healthy();
    // Slow waves through every state, with noise.
    const double wave = 0.5 + 0.5 * std::sin(static_cast<double>(step) / 500);
    s.accuracy_real = std::min(1.0, 0.6 + 0.45 * wave);
    s.accuracy_fake = std::min(1.0, 0.7 + 0.35 * wave);
    s.sign_real = 2 * s.accuracy_real - 1;
    s.gradient_norm_d = std::exp(2.0 * rng.below(1000) / 1000);
    if (step % 1777 == 700) s.gradient_norm_d = 1e6;
    s.diversity = step % 20 == 0 ? wave : BalanceSample::kNone;
    s.leak_cutout = step % 20 == 0 ? 1 - wave : BalanceSample::kNone;
    return s;
  };
  BalanceMonitor whole(augmenting()), part(augmenting());
  std::string findings_whole, findings_part;
  for (std::uint64_t step = 1; step <= 8000; ++step) {
    whole.add(step, sample(step));
    part.add(step, sample(step));
    for (const BalanceFinding& finding : whole.take_findings()) findings_whole += finding.text();
    for (const BalanceFinding& finding : part.take_findings()) findings_part += finding.text();
    if (step % 777 == 0) {
      BalanceMonitor next(augmenting());
      next.read_json(nlohmann::ordered_json::parse(part.json().dump()));
      part = std::move(next);
    }
  }
  EXPECT_EQ(findings_whole, findings_part);
  EXPECT_NE(findings_whole.find("d_saturated is over"), std::string::npos);
  EXPECT_NE(findings_whole.find("d_explodes is over"), std::string::npos);
  EXPECT_EQ(whole.json().dump(), part.json().dump());

  nlohmann::ordered_json older = part.json();
  older.at("means").erase("pair_accuracy");
  older.at("active").erase("d_explodes");
  older.erase("burst_d_step");
  older.erase("held_out_step");
  older["held_out"] = true;
  BalanceMonitor from_older(augmenting());
  from_older.read_json(older);
  EXPECT_FALSE(from_older.means().contains("pair_accuracy"));
  EXPECT_TRUE(from_older.means().contains("diversity"));
  EXPECT_EQ(from_older.json().at("held_out_step"), 7999);
  EXPECT_EQ(from_older.json().at("burst_d_step"), 0);

  const std::string before = part.json().dump();
  EXPECT_THROW(part.read_json({{"step", 1}}), nlohmann::json::exception);
  EXPECT_EQ(part.json().dump(), before);
}

/// Short trainings of small networks: what a monitor may say sooner.
BalanceThresholds soon(std::uint64_t warm_up) {
  BalanceThresholds thresholds;
  thresholds.warm_up = warm_up;
  thresholds.window = 50;
  return thresholds;
}

/// What a monitor finds in a real training on pictures of 16 x 16.
std::vector<BalanceFinding> findings_of(const DcganConfig& config, const TrainerOptions& options,
                                        int steps) {
  constexpr int kBatch = 16;
  DcganTrainer trainer(config, options);
  BalanceMonitor monitor({}, soon(200));
  std::vector<BalanceFinding> all;
  for (int i = 0; i < steps; ++i) {
    const std::vector<std::uint8_t> pixels =
        toy_images(config.resolution, kBatch, static_cast<std::uint64_t>(i % 32) * kBatch);
    const at::Tensor batch = at::tensor(at::ArrayRef<std::uint8_t>(pixels), at::kByte)
                                 .view({kBatch, config.resolution, config.resolution, 3});
    const GanStep step = trainer.step(batch);
    monitor.add(trainer.steps(), balance_sample(step));
    for (BalanceFinding& finding : monitor.take_findings()) all.push_back(std::move(finding));
  }
  return all;
}

TEST(BalanceMonitorInTraining, FindsThatAMuchFasterDSaturates) {
  DcganConfig config;
  config.resolution = 16;
  config.latent = 8;
  config.channels = 2;
  config.channels_d = 16;
  config.dropout = 0;
  TrainerOptions options;
  options.learning_rate = 1e-6;
  options.learning_rate_d = 1e-3;
  const std::vector<BalanceFinding> findings = findings_of(config, options, 400);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].kind, "d_saturated");
  EXPECT_LE(findings[0].step, 250U);
}

TEST(BalanceMonitorInTraining, FindsNothingWhereBothLearn) {
  DcganConfig config;
  config.resolution = 16;
  config.latent = 8;
  config.channels = config.channels_d = 8;
  TrainerOptions options;
  options.learning_rate = 5e-4;
  options.learning_rate_d = 2e-4;
  const std::vector<BalanceFinding> findings = findings_of(config, options, 600);
  EXPECT_TRUE(findings.empty()) << findings[0].text();
}

/// Smooth random fields of 16 x 16 with noise, [-1,1]: none is like another, so that they can be
/// known by heart.
at::Tensor fields(int count, std::uint64_t number) {
  const at::Tensor coarse = normal_tensor({count, 3, 4, 4}, {1, "coarse", number}) * 0.3;
  const at::Tensor mean = normal_tensor({count, 3, 1, 1}, {1, "mean", number}) * 0.15;
  const at::Tensor fine = normal_tensor({count, 3, 16, 16}, {1, "fine", number}) * 0.08;
  return (at::upsample_bilinear2d(coarse, {16, 16}, false) + mean + fine + 0.15).clamp(-1, 1);
}

/// Two kinds of images, dark and bright, much further apart than those of a kind.
at::Tensor two_kinds(int count) {
  const at::Tensor kind = at::arange(count).remainder(2).view({count, 1, 1, 1}) * 1.7 - 0.85;
  const at::Tensor coarse = normal_tensor({count, 3, 4, 4}, {1, "coarse", 0}) * 0.1;
  return (at::upsample_bilinear2d(coarse, {16, 16}, false) + kind).clamp(-1, 1);
}

/// A training by the rule of train.gan.
struct GanTraining {
  GanConfig model;
  TrainerOptions options;
  GanObjective objective;
  at::Tensor images = fields(512, 1);
  at::Tensor held_out;  ///< where there are some, they are looked at each 100 steps

  GanTraining() {
    model.resolution = 16;
    model.latent = model.channels = model.channels_d = 8;
    model.norm_d = GanConfig::Norm::kNone;
    options.learning_rate = options.learning_rate_d = 1e-3;
    objective.loss = GanLoss::kBce;
  }
  BalanceSettings settings() const {
    BalanceSettings settings;
    settings.norm_d = GanConfig::norm_names().at(static_cast<std::size_t>(model.norm_d));
    settings.loss = gan_loss_names().at(static_cast<std::size_t>(objective.loss));
    settings.r1 = objective.r1;
    settings.minibatch_stddev = model.minibatch_stddev;
    settings.learning_rate = options.learning_rate;
    settings.learning_rate_d = options.learning_rate_d;
    settings.channels = model.channels;
    settings.channels_d = model.channels_d;
    return settings;
  }
};

/// As evaluate.quality measures it.
HeldOutSample evaluation_of(const AdversarialTrainer& trainer, const at::Tensor& train,
                            const at::Tensor& held_out) {
  GanSnapshot snapshot(trainer, 0, {});
  const auto called_real = [&](const std::uint8_t* images, std::int64_t count) {
    double sum = 0;
    for (const float logit : snapshot.discriminate(images, nullptr, static_cast<int>(count))) {
      sum += logit > 0 ? 1.0 : 0.0;
    }
    return sum / static_cast<double>(count);
  };
  const auto of = [&](const at::Tensor& pixels) {
    return called_real(pixels.const_data_ptr<std::uint8_t>(), pixels.size(0));
  };
  constexpr int kFakes = 512;
  const std::vector<std::uint8_t> fakes = snapshot.generate(3, 0, kFakes);
  return {of(train), of(held_out), 1 - called_real(fakes.data(), kFakes), trainer.steps()};
}

/// What the monitor finds in 300 steps.
std::vector<BalanceFinding> findings_of(const GanTraining& training) {
  constexpr std::int64_t kBatch = 16;
  const at::Tensor pixels = to_pixels(training.images);
  GanTrainer trainer(training.model, training.options, training.objective);
  BalanceMonitor monitor(training.settings(), soon(150));
  std::vector<BalanceFinding> all;
  const std::int64_t batches = pixels.size(0) / kBatch;
  at::Tensor order;
  for (std::int64_t i = 0; i < 300; ++i) {
    if (i % batches == 0) {
      const auto epoch = static_cast<std::uint64_t>(i / batches);
      order = normal_tensor({pixels.size(0)}, {9, "order", epoch}).argsort();
    }
    const GanStep step =
        trainer.step(pixels.index_select(0, order.narrow(0, i % batches * kBatch, kBatch)));
    monitor.add(trainer.steps(), balance_sample(step));
    if (training.held_out.defined() && trainer.steps() % 100 == 0) {
      monitor.add(evaluation_of(trainer, pixels, to_pixels(training.held_out)));
    }
    for (BalanceFinding& finding : monitor.take_findings()) all.push_back(std::move(finding));
  }
  return all;
}

TEST(BalanceMonitorInTraining, FindsThatDKnowsFewImagesByHeart) {
  GanTraining training;
  training.held_out = fields(512, 2);
  training.images = fields(32, 1);
  const std::vector<BalanceFinding> findings = findings_of(training);
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "d_overfits", false));
  EXPECT_EQ(findings[0].advice.find("augment_colour"), 0U);

  training.images = fields(512, 1);
  EXPECT_TRUE(findings_of(training).empty());
}

TEST(BalanceMonitorInTraining, FindsThatGradientsExplodeAsTheRateOfDRises) {
  GanTraining training;
  training.options.learning_rate = 3e-3;
  training.options.learning_rate_d = 0.5;
  training.options.schedule.warm_up = 1000;  // to a third of that in the end
  const std::vector<BalanceFinding> findings = findings_of(training);
  // Which of the two comes first is chance.
  EXPECT_TRUE(std::any_of(findings.begin(), findings.end(), [](const BalanceFinding& finding) {
    return !finding.over && (finding.kind == "d_explodes" || finding.kind == "g_explodes") &&
           finding.advice.find("(half)") != std::string::npos;
  }));
}

TEST(BalanceMonitorInTraining, FindsThatGDrawsOneOfTwoKinds) {
  GanTraining training;
  training.images = two_kinds(512);
  training.objective.r1 = 0.1;
  const std::vector<BalanceFinding> findings = findings_of(training);
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "g_collapsed", false));
  EXPECT_EQ(findings[0].advice.find("minibatch_stddev: true"), 0U);

  training.model.minibatch_stddev = true;  // as advised
  for (const BalanceFinding& finding : findings_of(training)) {
    EXPECT_NE(finding.kind, "g_collapsed") << finding.text();
  }
}

/// Gray images are given to D with other colours, and fakes as they are: G learns to draw those
/// colours, as it does where an augmentation leaks.
TEST(BalanceMonitorInTraining, FindsThatGDrawsTheTracesOfAugmentation) {
  constexpr int kBatch = 16, kFakes = 64;
  const at::Tensor gray = normal_tensor({512, 3, 16, 16}, {1, "gray", 0}) * 0.05 + 0.2;
  const auto leaks = [&](bool traces) {
    const GanTraining training;
    GanTrainer trainer(training.model, training.options, training.objective);
    BalanceSettings settings = training.settings();
    settings.colour = true;
    BalanceMonitor monitor(settings, soon(150));
    std::vector<BalanceFinding> all;
    for (int i = 0; i < 400; ++i) {
      const at::Tensor reals = gray.narrow(0, i % 32 * kBatch, kBatch);
      const at::Tensor augmented =
          augment(reals.contiguous(at::MemoryFormat::ChannelsLast), {true, false, false}, 1,
                  {5, "colour", static_cast<std::uint64_t>(i)});
      BalanceSample sample =
          balance_sample(trainer.step(to_pixels((traces ? augmented : reals).clamp(-1, 1))));
      if (i % 10 == 0) {
        const std::vector<std::uint8_t> drawn = GanSnapshot(trainer, 0, {}).generate(3, 0, kFakes);
        const at::Tensor fakes = to_signed(
            at::tensor(at::ArrayRef<std::uint8_t>(drawn), at::kByte).view({kFakes, 16, 16, 3}));
        sample.leak_colour =
            leaks_of(image_statistics(fakes), image_statistics(reals), image_statistics(augmented))
                .colour;
      }
      monitor.add(trainer.steps(), sample);
      for (BalanceFinding& finding : monitor.take_findings()) {
        if (finding.kind == "augmentation_leaks") all.push_back(std::move(finding));
      }
    }
    return all;
  };
  const std::vector<BalanceFinding> findings = leaks(true);
  ASSERT_FALSE(findings.empty());
  EXPECT_FALSE(findings[0].over);
  EXPECT_EQ(findings[0].evidence.find("colour"), 0U);
  EXPECT_TRUE(leaks(false).empty());
}

/// G is much faster than a D whose slope is bounded: D lags behind all that G does, and its answer
/// to all images is the same.
TEST(BalanceMonitorInTraining, FindsThatADMuchSlowerThanGIsDead) {
  GanTraining training;
  training.model.norm_g = GanConfig::Norm::kNone;
  training.model.norm_d = GanConfig::Norm::kSpectral;
  training.objective.loss = GanLoss::kHinge;
  training.options.learning_rate = 5e-3;
  const std::vector<BalanceFinding> findings = findings_of(training);
  ASSERT_NO_FATAL_FAILURE(expect_one(findings, "d_dead", false));
  EXPECT_EQ(findings[0].advice.find("learning_rate_d: 0.005, G's"), 0U);
}

}  // namespace
}  // namespace gp
