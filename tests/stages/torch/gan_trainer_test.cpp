#include "stages/torch/gan_trainer.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "stages/torch/checkpoint.hpp"
#include "stages/torch/random_tensor.hpp"
#include "tests/stages/torch/toy_batches.hpp"

namespace gp {
namespace {

using State = std::map<std::string, at::Tensor>;

constexpr int kBatch = 8;

at::Tensor toy_pixels(int size, int count, std::uint64_t first = 0) {
  const std::vector<std::uint8_t> pixels = toy_images(size, count, first);
  return at::tensor(at::ArrayRef<std::uint8_t>(pixels), at::kByte).view({count, size, size, 3});
}

GanConfig small_config() {
  GanConfig config;
  config.resolution = 16;
  config.latent = 8;
  config.channels = config.channels_d = 4;
  return config;
}

TrainerOptions some_options() {
  TrainerOptions options;
  options.seed = 7;
  options.learning_rate = 1e-3;
  options.learning_rate_d = 2e-3;
  return options;
}

State copy_of(const State& state) {
  State copy;
  for (const auto& [name, tensor] : state) copy[name] = tensor.detach().clone();
  return copy;
}

void expect_equal(const State& a, const State& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

double extra(const GanStep& step, const std::string& name) {
  for (const auto& [key, value] : step.extras) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no " << name;
  return 0;
}

// --- The step, written down once more with nothing but the networks and autograd.

struct ByHand {
  ByHand(const GanConfig& config, const TrainerOptions& o, const GanObjective& gan)
      : g(config), d(config), options(o), objective(gan), latent(config.latent) {
    init_gan_weights(g, options.seed);
    init_gan_weights(d, options.seed);
  }

  static at::Tensor d_loss(GanLoss loss, const at::Tensor& real, const at::Tensor& fake) {
    switch (loss) {
      case GanLoss::kBce:
        return -at::log_sigmoid(real).mean() - at::log_sigmoid(-fake).mean();
      case GanLoss::kHinge:
        return at::clamp_min(1 - real, 0).mean() + at::clamp_min(1 + fake, 0).mean();
      case GanLoss::kLeastSquares:
        return 0.5 * (real - 1).pow(2).mean() + 0.5 * fake.pow(2).mean();
      case GanLoss::kRelativistic:
        return -at::log_sigmoid(real - fake).mean();
    }
    return {};
  }
  static at::Tensor g_loss(GanLoss loss, const at::Tensor& real, const at::Tensor& fake) {
    switch (loss) {
      case GanLoss::kBce:
        return -at::log_sigmoid(fake).mean();
      case GanLoss::kHinge:
        return -fake.mean();
      case GanLoss::kLeastSquares:
        return 0.5 * (fake - 1).pow(2).mean();
      case GanLoss::kRelativistic:
        return -at::log_sigmoid(fake - real).mean();
    }
    return {};
  }

  struct Moments {
    State mean, square;
  };
  /// Keras's form of Adam.
  void adam(torch::nn::Module& network, const at::Tensor& loss, double rate, Moments& moments) {
    std::vector<at::Tensor> parameters = network.parameters();
    const auto gradients =
        torch::autograd::grad({loss}, parameters, {}, {}, false, /*allow_unused=*/true);
    const at::NoGradGuard no_grad;
    const double t = static_cast<double>(step + 1);
    const double alpha =
        rate * std::sqrt(1 - std::pow(options.beta2, t)) / (1 - std::pow(options.beta1, t));
    std::size_t i = 0;
    for (const auto& parameter : network.named_parameters()) {
      const at::Tensor& gradient = gradients[i++];
      ASSERT_TRUE(gradient.defined()) << parameter.key();
      at::Tensor& mean = moments.mean[parameter.key()];
      at::Tensor& square = moments.square[parameter.key()];
      if (!mean.defined()) mean = square = at::zeros_like(gradient);
      mean = options.beta1 * mean + (1 - options.beta1) * gradient;
      square = options.beta2 * square + (1 - options.beta2) * gradient * gradient;
      parameter.value().sub_(alpha * mean / (square.sqrt() + 1e-7));
    }
  }

  at::Tensor seen(const at::Tensor& images, const std::string& pass) const {
    return augment(images, objective.augment, objective.augment_p,
                   {options.seed, "augment." + pass, step});
  }
  at::Tensor logits(const at::Tensor& images, const at::Tensor& labels, const std::string& pass) {
    return d(images, labels, DropoutKey{options.seed, step, pass}, /*twice=*/true);
  }

  void train(const at::Tensor& pixels, const at::Tensor& labels) {
    const at::Tensor reals = pixels.to(at::kFloat).permute({0, 3, 1, 2}) / 127.5 - 1;
    const double n = static_cast<double>(reals.size(0));
    const at::Tensor z = normal_tensor({reals.size(0), latent}, {options.seed, "latent", step});

    d->update_spectral();
    const at::Tensor real = seen(reals, "real").detach().requires_grad_();
    const at::Tensor fake = seen(g(z, labels), "fake").detach().requires_grad_();
    const at::Tensor on_real = logits(real, labels, "real");
    const at::Tensor on_fake = logits(fake, labels, "fake");
    at::Tensor loss = d_loss(objective.loss, on_real, on_fake);
    loss_d = loss.item<double>();
    if (step % static_cast<std::uint64_t>(objective.penalty_every) == 0) {
      const at::Tensor at_real =
          torch::autograd::grad({on_real.sum()}, {real}, {}, true, true)[0].pow(2).sum() / n;
      const at::Tensor at_fake =
          torch::autograd::grad({on_fake.sum()}, {fake}, {}, true, true)[0].pow(2).sum() / n;
      r1 = at_real.item<double>();
      r2 = at_fake.item<double>();
      loss = loss +
             objective.penalty_every * (objective.r1 / 2 * at_real + objective.r2 / 2 * at_fake);
    }
    adam(*d, loss, options.learning_rate_d, moments_d);

    at::Tensor against;
    if (objective.loss == GanLoss::kRelativistic) {
      against = logits(seen(reals, "generator.real"), labels, "generator.real").detach();
    }
    const at::Tensor loss_of_g = g_loss(
        objective.loss, against, logits(seen(g(z, labels), "generator"), labels, "generator"));
    loss_g = loss_of_g.item<double>();
    adam(*g, loss_of_g, options.learning_rate, moments_g);
    ++step;
  }

  GanGenerator g;
  GanDiscriminator d;
  TrainerOptions options;
  GanObjective objective;
  int latent;
  std::uint64_t step = 0;
  Moments moments_g, moments_d;
  double loss_d = 0, loss_g = 0, r1 = 0, r2 = 0;
};

/// `tolerance`: a share of the largest value of each tensor.
void expect_close(const State& actual, const State& expected, const std::string& prefix,
                  double tolerance) {
  ASSERT_FALSE(expected.empty());
  for (const auto& [name, tensor] : expected) {
    const double scale = tensor.abs().max().item<double>();
    EXPECT_LE((actual.at(prefix + name) - tensor).abs().max().item<double>(),
              tolerance * scale + 1e-9)
        << prefix << name << " of size " << scale;
  }
}

class GanTrainerStep : public testing::TestWithParam<GanLoss> {};

TEST_P(GanTrainerStep, IsWhatAutogradGives) {
  GanConfig config = small_config();
  config.norm_g = GanConfig::Norm::kNone;  // elsewhere gradients are noise: biases before the norm
  config.classes = 3;
  config.dropout = 0.2;
  config.minibatch_stddev = true;
  GanObjective objective;
  objective.loss = GetParam();
  objective.r1 = 3;
  objective.r2 = 0.7;
  objective.penalty_every = 2;
  objective.augment = {true, true, true};
  objective.augment_p = 0.7;
  TrainerOptions options = some_options();
  GanTrainer trainer(config, options, objective);
  ByHand hand(config, options, objective);
  const State initial = copy_of(trainer.state());
  const at::Tensor labels = at::tensor({0, 2, 1, 1, 0, 2, 2, 0}, at::kLong);
  for (int i = 0; i < 3; ++i) {
    const at::Tensor pixels = toy_pixels(16, kBatch, 8 * i);
    const GanStep step = trainer.step(pixels, labels);
    hand.train(pixels, labels);
    EXPECT_NEAR(step.loss_d_real + step.loss_d_fake, hand.loss_d, 1e-5 * (1 + hand.loss_d)) << i;
    EXPECT_NEAR(step.loss_g, hand.loss_g, 1e-5 * (1 + std::abs(hand.loss_g))) << i;
    if (i % 2 == 0) {
      EXPECT_NEAR(extra(step, "r1"), hand.r1, 1e-4 * hand.r1);
      EXPECT_NEAR(extra(step, "r2"), hand.r2, 1e-4 * hand.r2);
    } else {
      EXPECT_TRUE(std::isnan(extra(step, "r1")) && std::isnan(extra(step, "r2")));
      EXPECT_TRUE(step.finite()) << "what was not measured is no trouble";
    }
    EXPECT_NEAR(extra(step, "augment_p"), 0.7, 1e-6);
    const State state = trainer.state();
    expect_close(state, hand.moments_d.mean, "optimizer_D.exp_avg.", 2e-3);
    expect_close(state, hand.moments_g.mean, "optimizer_G.exp_avg.", 2e-3);
    expect_close(state, hand.moments_d.square, "optimizer_D.exp_avg_sq.", 4e-3);
    expect_close(state, hand.moments_g.square, "optimizer_G.exp_avg_sq.", 4e-3);
    expect_close(state, state_of(*hand.d), "D.", 1e-3);
    expect_close(state, state_of(*hand.g), "G.", 1e-3);
  }
  // Everything has moved, spectral norms included.
  const State end = trainer.state();
  for (const auto& [name, tensor] : initial) {
    // But the sign of a row alone, and what is added to both logits of a pair.
    if (name == "D.dense_spectral.u") continue;
    if (GetParam() == GanLoss::kRelativistic && name.ends_with("dense.bias") &&
        name.find("G.") == std::string::npos) {
      continue;
    }
    EXPECT_FALSE(at::equal(tensor, end.at(name))) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, GanTrainerStep,
                         testing::Values(GanLoss::kBce, GanLoss::kHinge, GanLoss::kLeastSquares,
                                         GanLoss::kRelativistic),
                         [](const auto& of) {
                           return gan_loss_names()[static_cast<std::size_t>(of.param)];
                         });

class GanTrainerParts : public testing::TestWithParam<GanLoss> {};

TEST_P(GanTrainerParts, GiveTheGradientsOfTheWhole) {
  GanConfig config = small_config();
  config.norm_g = config.norm_d = GanConfig::Norm::kNone;
  config.classes = 2;
  GanObjective objective;
  objective.loss = GetParam();
  objective.r1 = objective.r2 = 0.5;
  TrainerOptions options = some_options();
  // Adam would make a step of any noise, and G would meet another D.
  options.learning_rate = options.learning_rate_d = 1e-9;
  GanTrainer whole(config, options, objective);
  options.accumulate = 2;
  GanTrainer halves(config, options, objective);
  options.accumulate = 3;  // of 3, 3 and 2 images
  GanTrainer thirds(config, options, objective);
  const at::Tensor pixels = toy_pixels(16, kBatch);
  const at::Tensor labels = at::tensor({0, 1, 1, 1, 0, 0, 1, 0}, at::kLong);
  const GanStep expected = whole.step(pixels, labels);
  const State gradients = whole.state();
  for (GanTrainer* parts : {&halves, &thirds}) {
    const GanStep step = parts->step(pixels, labels);
    EXPECT_NEAR(step.loss_d_real, expected.loss_d_real, 1e-5);
    EXPECT_NEAR(step.loss_d_fake, expected.loss_d_fake, 1e-5);
    EXPECT_NEAR(step.loss_g, expected.loss_g, 1e-5);
    EXPECT_EQ(step.accuracy_real, expected.accuracy_real);
    EXPECT_NEAR(extra(step, "r1"), extra(expected, "r1"), 1e-4 * extra(expected, "r1"));
    EXPECT_NEAR(step.gradient_norm_d_real, expected.gradient_norm_d_real,
                1e-4 * expected.gradient_norm_d_real);
    int compared = 0;
    for (const auto& [name, tensor] : parts->state()) {
      if (name.find("exp_avg.") == std::string::npos) continue;
      const double scale = gradients.at(name).abs().max().item<double>();
      EXPECT_LE((tensor - gradients.at(name)).abs().max().item<double>(), 1e-4 * scale + 1e-7)
          << name;
      ++compared;
    }
    EXPECT_EQ(compared, 14);
    EXPECT_EQ(parts->images(), 8U);
    EXPECT_EQ(parts->state().at("optimizer_G.steps").max().item<int>(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, GanTrainerParts,
                         testing::Values(GanLoss::kBce, GanLoss::kRelativistic),
                         [](const auto& of) {
                           return gan_loss_names()[static_cast<std::size_t>(of.param)];
                         });

TEST(GanTrainer, DMayTakeMoreSteps) {
  TrainerOptions options = some_options();
  GanTrainer one(small_config(), options, {});
  options.d_steps = 3;
  GanTrainer three(small_config(), options, {});
  const GanStep first = one.step(toy_pixels(16, kBatch));
  const GanStep step = three.step(toy_pixels(16, kBatch));
  // What is measured comes before the first update; G's then meets another D.
  EXPECT_EQ(step.loss_d_real, first.loss_d_real);
  EXPECT_EQ(step.loss_d_fake, first.loss_d_fake);
  EXPECT_NE(step.loss_g, first.loss_g);
  EXPECT_EQ(three.state().at("optimizer_D.steps").min().item<int>(), 3);
  EXPECT_EQ(three.state().at("optimizer_G.steps").max().item<int>(), 1);
  EXPECT_FALSE(at::equal(three.state().at("D.last_conv.spectral.u"),
                         one.state().at("D.last_conv.spectral.u")))
      << "one power iteration for each update";
}

TEST(GanTrainer, CountsTheClassesItSees) {
  GanConfig config = small_config();
  config.classes = 4;
  GanTrainer trainer(config, some_options(), {});
  trainer.step(toy_pixels(16, 4), at::tensor({0, 2, 2, 2}, at::kLong));
  trainer.step(toy_pixels(16, 3), at::tensor({3, 2, 0}, at::kLong));
  EXPECT_TRUE(at::equal(trainer.state().at(kClassCounts), at::tensor({2, 0, 4, 1}, at::kLong)));
}

TEST(GanTrainer, LabelsThatAreNoneAreRefusedBeforeAnythingChanges) {
  GanConfig config = small_config();
  config.classes = 4;
  GanTrainer trainer(config, some_options(), {});
  const State before = copy_of(trainer.state());
  for (const std::int64_t wrong : {-1, 4, 1 << 20}) {
    try {
      trainer.step(toy_pixels(16, 3), at::tensor({std::int64_t{0}, wrong, std::int64_t{1}}));
      FAIL() << wrong;
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      EXPECT_NE(text.find("label " + std::to_string(wrong)), std::string::npos) << text;
    }
  }
  EXPECT_THROW(trainer.step(toy_pixels(16, 3)), c10::Error);
  EXPECT_THROW(trainer.step(toy_pixels(16, 3), at::tensor({0, 1}, at::kLong)), c10::Error);
  expect_equal(before, trainer.state());
}

TEST(GanTrainer, AugmentationFollowsItsTarget) {
  GanConfig config = small_config();
  GanObjective objective;
  objective.augment = {true, false, false};
  objective.augment_target = 0.01;
  objective.augment_speed_kimg = 0.1;
  GanTrainer trainer(config, some_options(), objective);
  EXPECT_EQ(trainer.augment_p(), 0);
  {  // Sure that all is real.
    const at::NoGradGuard no_grad;
    trainer.state().at("D.dense.bias").fill_(100);
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(trainer.augment_p(), 0);
    const GanStep step = trainer.step(toy_pixels(16, kBatch));
    EXPECT_EQ(extra(step, "sign_real"), 1);
  }
  EXPECT_NEAR(trainer.augment_p(), 0.32, 1e-9);  // 4 batches of 8 at 100 images for all of it
  EXPECT_NEAR(trainer.state().at("trainer.augment.p").item<double>(), 0.32, 1e-9);
}

TEST(GanTrainer, PairsAreToldByTheLogitsOrderAlone) {
  const at::Tensor reals = at::tensor({1.f, 2.f, 3.f});
  const at::Tensor fakes = at::tensor({0.f, 2.f});
  EXPECT_FLOAT_EQ(pair_accuracy(reals, fakes).item<float>(), 4.5f / 6);
  EXPECT_FLOAT_EQ(pair_accuracy(reals - 100, fakes - 100).item<float>(), 4.5f / 6);
  EXPECT_FLOAT_EQ(pair_accuracy(fakes, reals).item<float>(), 1.5f / 6);
}

TEST(GanTrainer, AugmentationFollowsTheBorderOfItsLoss) {
  GanConfig config = small_config();
  config.norm_d = GanConfig::Norm::kNone;
  GanObjective objective;
  objective.augment = {true, false, false};
  objective.augment_target = 0.01;
  objective.augment_speed_kimg = 0.1;
  // Logits of 0.3: above 0, but nearer to least squares' label of fakes.
  objective.loss = GanLoss::kLeastSquares;
  TrainerOptions options = some_options();
  options.learning_rate_d = 1e-9;
  GanTrainer trainer(config, options, objective);
  {
    const at::NoGradGuard no_grad;
    trainer.state().at("D.dense.weight").fill_(0);
    trainer.state().at("D.dense.bias").fill_(0.3);
    trainer.state().at("trainer.augment.p").fill_(0.5);
  }
  for (int i = 0; i < 4; ++i) {
    const GanStep step = trainer.step(toy_pixels(16, kBatch));
    EXPECT_EQ(extra(step, "sign_real"), -1);
    if (i == 0) {
      EXPECT_EQ(extra(step, "pair_accuracy"), 0.5) << "all logits are the same";
    }
  }
  EXPECT_NEAR(trainer.augment_p(), 0.5 - 0.32, 1e-9);
}

TEST(GanTrainer, LeastSquaresBorderIsHalfWayBetweenItsTargets) {
  GanConfig config = small_config();
  config.norm_d = GanConfig::Norm::kNone;
  GanObjective objective;
  objective.loss = GanLoss::kLeastSquares;
  TrainerOptions options = some_options();
  options.label_smoothing = 0.5;  // reals are trained towards 0.5
  GanTrainer trainer(config, options, objective);
  {
    const at::NoGradGuard no_grad;
    trainer.state().at("D.dense.weight").fill_(0);
    trainer.state().at("D.dense.bias").fill_(0.4);
  }
  EXPECT_EQ(trainer.step(toy_pixels(16, kBatch)).accuracy_real, 1);
}

TEST(GanTrainer, LeaksAreMeasuredWhereMostImagesAreAugmented) {
  GanObjective objective;
  objective.augment = {true, false, false};
  for (const double p : {0.4, 0.9}) {
    objective.augment_p = p;
    GanTrainer trainer(small_config(), some_options(), objective);
    const GanStep step = trainer.step(toy_pixels(16, 64));
    EXPECT_EQ(std::isnan(extra(step, "leak_colour")), p < 0.5) << p;
  }
}

TEST(GanTrainer, RealsAreAsCoarseAsFakesWhileLayersFadeIn) {
  GanConfig config = small_config();
  config.growth = GanConfig::Growth::kPhases;
  GanObjective objective;
  objective.growth = {8000, 8000};
  const auto board = [](int contrast) {  // of the same mean in each 2 x 2
    at::Tensor pixels = at::empty({kBatch, 16, 16, 3}, at::kByte);
    for (int y = 0; y < 16; ++y) {
      for (int x = 0; x < 16; ++x) {
        pixels.select(1, y).select(1, x).fill_(100 + ((x + y) % 2 == 0 ? contrast : -contrast));
      }
    }
    return pixels;
  };
  GanTrainer trainer(config, some_options(), objective);
  trainer.set_progress(0, 8000 + 3992);
  const GanStep step = trainer.step(board(80));
  ASSERT_EQ(extra(step, "fade"), 0.5);

  GanDiscriminator d(config);
  init_gan_weights(d, some_options().seed);
  d->set_growth({16, 0.5});
  d->update_spectral();
  const auto loss_of = [&](const at::Tensor& pixels) {
    const at::Tensor logits = d(to_signed(pixels), at::Tensor(), std::nullopt, false);
    return at::clamp_min(1 - logits, 0).mean().item<float>();
  };
  EXPECT_NEAR(step.loss_d_real, loss_of(board(40)), 1e-5);
  EXPECT_GT(std::abs(step.loss_d_real - loss_of(board(80))), 1e-4);
}

TEST(GanTrainer, IsAFunctionOfSeedAndDataAndLeavesTorchsGeneratorAlone) {
  GanConfig config = small_config();
  config.dropout = 0.3;
  GanObjective objective;
  objective.augment = {true, true, true};
  objective.r1 = 1;
  const at::Tensor before = at::globalContext().defaultGenerator(at::kCPU).get_state();
  TrainerOptions options = some_options();
  GanTrainer a(config, options, objective), b(config, options, objective);
  options.seed = 8;
  GanTrainer other(config, options, objective);
  for (int i = 0; i < 3; ++i) {
    const GanStep step_a = a.step(toy_pixels(16, kBatch, 8 * i));
    const GanStep step_b = b.step(toy_pixels(16, kBatch, 8 * i));
    EXPECT_EQ(step_a.loss_d_real, step_b.loss_d_real);
    EXPECT_EQ(step_a.loss_g, step_b.loss_g);
    EXPECT_NE(other.step(toy_pixels(16, kBatch, 8 * i)).loss_g, step_a.loss_g);
  }
  expect_equal(a.state(), b.state());
  EXPECT_TRUE(at::equal(at::globalContext().defaultGenerator(at::kCPU).get_state(), before));
}

// --- State: taken back, and saved and loaded

struct Recipe {
  std::string name;
  GanConfig config;
  TrainerOptions options = some_options();
  GanObjective objective = {};
  bool labels = false;
};

std::vector<Recipe> recipes() {
  std::vector<Recipe> all;
  const auto add = [&](const char* name) -> Recipe& {
    all.push_back({name, small_config()});
    return all.back();
  };
  add("spectral").options.ema = 0.9;
  add("batch_norms_in_parts").config.norm_d = GanConfig::Norm::kBatch;
  all.back().options.accumulate = 2;
  add("adaptive").objective.augment = {true, true, true};
  all.back().objective.augment_target = 0.2;
  all.back().objective.augment_speed_kimg = 0.05;
  add("classes").config.classes = 3;
  all.back().labels = true;
  add("penalties").objective.r1 = 1;
  all.back().objective.r2 = 1;
  all.back().objective.penalty_every = 3;
  all.back().options.d_steps = 2;
  add("half_life").options.ema_half_life = 100;
  all.back().config.blocks = GanConfig::Blocks::kResidual;
  // 8 x 8 for 16 images, then 16 x 16, all in fades but for the last two batches.
  add("phases").config.resolution = 32;
  all.back().config.growth = GanConfig::Growth::kPhases;
  all.back().objective.growth = {16, 16};
  all.back().options.ema_half_life = 100;
  add("residual_phases").config.growth = GanConfig::Growth::kPhases;
  all.back().config.blocks = GanConfig::Blocks::kResidual;
  all.back().config.dropout = 0.2;
  all.back().config.minibatch_stddev = true;
  all.back().objective.growth = {16, 40};
  return all;
}

class GanTrainerState : public testing::TestWithParam<int> {
 protected:
  Recipe recipe() const { return recipes()[static_cast<std::size_t>(GetParam())]; }
  static GanStep step(GanTrainer& trainer, const Recipe& recipe) {
    int size = recipe.config.resolution;
    if (recipe.config.growth == GanConfig::Growth::kPhases) {
      size = recipe.objective.growth.at(trainer.images(), kBatch, recipe.config).resolution;
    }
    at::Tensor labels;
    if (recipe.labels) {
      labels = at::remainder(
          at::arange(kBatch, at::kLong) * 2 + static_cast<std::int64_t>(trainer.steps()), 3);
    }
    return trainer.step(toy_pixels(size, kBatch, trainer.images()), labels);
  }
};

TEST_P(GanTrainerState, AStepIsTakenBackExactly) {
  Recipe taken = recipe();
  taken.options.undoable = true;
  GanTrainer trainer(taken.config, taken.options, taken.objective);
  GanTrainer without(taken.config, taken.options, taken.objective);
  for (int i = 0; i < 5; ++i) {
    const State before = copy_of(trainer.state());
    const GrowthPoint growth = trainer.growth();
    EXPECT_TRUE(step(trainer, taken).finite());
    trainer.undo();
    expect_equal(before, trainer.state());
    if (i > 0) {
      EXPECT_EQ(trainer.growth(), growth);
    }
    EXPECT_EQ(trainer.steps(), 2U * i + 1);
    EXPECT_EQ(trainer.images(), kBatch * (2U * i + 1));
    // It goes on as one that never had the batch, but for the number that it has used up.
    without.set_progress(trainer.steps(), trainer.images());
    EXPECT_EQ(step(trainer, taken).loss_g, step(without, taken).loss_g);
    expect_equal(trainer.state(), without.state());
    EXPECT_FALSE(at::equal(before.at("D.dense.weight"), trainer.state().at("D.dense.weight")));
  }
}

TEST_P(GanTrainerState, GoesOnFromACheckpointAsIfNothingHadBeen) {
  const Recipe recipe = this->recipe();
  const std::filesystem::path root =
      std::filesystem::temp_directory_path() /
      ("gp_gan_state_" + recipe.name + "_" + std::to_string(::getpid()));
  std::filesystem::remove_all(root);
  GanTrainer whole(recipe.config, recipe.options, recipe.objective);
  for (const int more : {1, 2, 2, 2}) {
    Checkpoint checkpoint;
    checkpoint.tensors = copy_of(whole.state());
    checkpoint.info.model = whole.model();
    checkpoint.info.class_names.resize(static_cast<std::size_t>(classes_of(whole.model())));
    checkpoint.info.growth = whole.growth();
    checkpoint.info.step = whole.steps();
    checkpoint.info.average = whole.has_average();
    const std::uint64_t images = whole.images();
    const auto file = CheckpointFolder(root).save(checkpoint, 9);
    const Checkpoint loaded = load_checkpoint(file);
    EXPECT_EQ(loaded.info.growth, whole.growth());
    TrainerOptions other = recipe.options;
    GanTrainer resumed(std::get<GanConfig>(loaded.info.model), other, recipe.objective);
    {  // Nothing may be right by chance.
      const at::NoGradGuard no_grad;
      for (const auto& [name, tensor] : resumed.state()) {
        const_cast<at::Tensor&>(tensor).fill_(9);
      }
    }
    resumed.load_state(loaded);
    resumed.set_progress(loaded.info.step, images);
    expect_equal(resumed.state(), whole.state());
    for (int i = 0; i < more; ++i) {
      const GanStep a = step(whole, recipe);
      const GanStep b = step(resumed, recipe);
      EXPECT_EQ(a.loss_d_real, b.loss_d_real);
      EXPECT_EQ(a.loss_d_fake, b.loss_d_fake);
      EXPECT_EQ(a.loss_g, b.loss_g);
      EXPECT_EQ(whole.growth(), resumed.growth());
    }
    expect_equal(whole.state(), resumed.state());
  }
  std::filesystem::remove_all(root);
}

INSTANTIATE_TEST_SUITE_P(Recipes, GanTrainerState,
                         testing::Range(0, static_cast<int>(recipes().size())), [](const auto& of) {
                           return recipes()[static_cast<std::size_t>(of.param)].name;
                         });

TrainerOptions ramping_options() {
  TrainerOptions options = some_options();
  options.ema_half_life = 1e6;
  options.ema_ramp_up = 0.5;
  return options;
}

/// Of the average of `layer` a quarter is what it was: its first images took two half-lives.
void expect_quarter_kept(const GanTrainer& trainer, const std::string& layer,
                         const at::Tensor& before) {
  const State state = trainer.state();
  EXPECT_FALSE(at::equal(before, state.at("G." + layer)));
  EXPECT_TRUE(at::allclose(state.at("EMA." + layer), 0.25 * before + 0.75 * state.at("G." + layer),
                           1e-6, 1e-8));
}

TEST(GanTrainer, AHalfLifeRampsUpWithTheImages) {
  GanTrainer trainer(small_config(), ramping_options(), {});
  const at::Tensor before = trainer.state().at("EMA.dense.weight").detach().clone();
  trainer.step(toy_pixels(16, 16));
  expect_quarter_kept(trainer, "dense.weight", before);
}

// --- Growth

TEST(GrowthSchedule, KeepsStepWithPhasesOfTheDataAndTheirCarryOver) {
  GanConfig config = small_config();
  config.resolution = 64;
  config.growth = GanConfig::Growth::kPhases;
  for (const std::uint64_t images : {1, 7, 16, 100}) {
    for (const std::uint64_t fade : {std::uint64_t{0}, images / 2, images}) {
      for (const std::vector<std::int64_t>& batches :
           {std::vector<std::int64_t>{8, 8, 8, 8}, {16, 7, 3, 5}, {1, 1, 1, 1}, {150, 20, 8, 4}}) {
        const GrowthSchedule schedule{images, fade};
        // What the pipeline does: a phase ends with the first batch that fills it, what is above
        // counts for the next.
        std::uint64_t seen = 0, in_phase = 0;
        std::size_t phase = 0;
        for (int i = 0; i < 60; ++i) {
          for (; phase < 3 && in_phase >= images; ++phase) in_phase -= images;
          const GrowthPoint point = schedule.at(seen, batches[phase], config);
          ASSERT_EQ(point.resolution, 8 << phase) << images << " " << seen;
          const double share = phase == 0 || fade == 0
                                   ? 1
                                   : std::min(1.0, static_cast<double>(in_phase + batches[phase]) /
                                                       static_cast<double>(fade));
          ASSERT_EQ(point.fade, share) << images << " " << seen;
          ASSERT_GT(point.fade, 0);
          seen += static_cast<std::uint64_t>(batches[phase]);
          in_phase += static_cast<std::uint64_t>(batches[phase]);
        }
      }
    }
  }
}

TEST(GrowthSchedule, Borders) {
  GanConfig config = small_config();
  config.resolution = 32;
  config.growth = GanConfig::Growth::kPhases;
  const GrowthSchedule schedule{100, 50};
  EXPECT_EQ(schedule.at(0, 10, config), (GrowthPoint{8, 1}));
  EXPECT_EQ(schedule.at(99, 10, config), (GrowthPoint{8, 1}));
  EXPECT_EQ(schedule.at(100, 10, config), (GrowthPoint{16, 0.2}));
  EXPECT_EQ(schedule.at(139, 10, config), (GrowthPoint{16, 0.98}));
  EXPECT_EQ(schedule.at(140, 10, config), (GrowthPoint{16, 1}));
  EXPECT_EQ(schedule.at(199, 10, config), (GrowthPoint{16, 1}));
  EXPECT_EQ(schedule.at(209, 10, config), (GrowthPoint{32, 0.38}));
  EXPECT_EQ(schedule.at(1000000, 10, config), (GrowthPoint{32, 1}));
  config.first_resolution = 32;
  EXPECT_EQ(schedule.at(0, 10, config), (GrowthPoint{32, 1})) << "nothing to fade in from";
  EXPECT_EQ(schedule.at(150, 10, config), (GrowthPoint{32, 1}));
}

TEST(GanTrainer, TellsHowFarItHasGrown) {
  GanConfig config = small_config();
  config.growth = GanConfig::Growth::kPhases;
  GanObjective objective;
  objective.growth = {8, 16};
  GanTrainer trainer(config, some_options(), objective);
  const GanStep first = trainer.step(toy_pixels(8, kBatch));
  EXPECT_EQ(extra(first, "resolution"), 8);
  EXPECT_EQ(extra(first, "fade"), 1);
  // Layers of 16 x 16 have not been asked yet, and their bias correction starts when they are.
  const State state = trainer.state();
  EXPECT_EQ(state.at("optimizer_G.exp_avg.rgb16.weight").abs().max().item<double>(), 0);
  EXPECT_EQ(state.at("optimizer_G.steps").min().item<int>(), 0);
  const at::Tensor before = state.at("G.rgb16.weight").detach().clone();
  const GanStep second = trainer.step(toy_pixels(16, kBatch));
  EXPECT_EQ(extra(second, "resolution"), 16);
  EXPECT_EQ(extra(second, "fade"), 0.5);
  EXPECT_EQ(trainer.state().at("optimizer_G.steps").min().item<int>(), 1);
  EXPECT_EQ(trainer.state().at("optimizer_G.steps").max().item<int>(), 2);
  EXPECT_NEAR((trainer.state().at("G.rgb16.weight") - before).abs().max().item<double>(), 1e-3,
              2e-5);
  EXPECT_THROW(trainer.step(toy_pixels(8, kBatch)), c10::Error);
}

TEST(GanTrainer, AverageOfNewLayersRampsUpWithTheImagesSinceThen) {
  GanConfig config = small_config();
  config.growth = GanConfig::Growth::kPhases;
  GanObjective objective;
  objective.growth = {24, 24};
  GanTrainer trainer(config, ramping_options(), objective);
  for (int i = 0; i < 3; ++i) trainer.step(toy_pixels(8, 8));
  const at::Tensor before = trainer.state().at("EMA.rgb16.weight").detach().clone();
  trainer.step(toy_pixels(16, 8));
  expect_quarter_kept(trainer, "rgb16.weight", before);
}

TEST(GanTrainer, PenaltiesOfEarlyPhasesAreByPixelsOfTheLastResolution) {
  GanConfig config = small_config();
  config.resolution = 32;
  config.growth = GanConfig::Growth::kPhases;
  config.norm_d = GanConfig::Norm::kNone;
  GanObjective objective;
  objective.r1 = 1;
  objective.growth = {kBatch, 0};
  GanTrainer trainer(config, some_options(), objective);
  for (const int size : {8, 16, 32}) {
    const at::Tensor pixels = toy_pixels(size, kBatch);
    const int k = 32 / size;
    at::Tensor large =
        at::upsample_nearest2d(pixels.permute({0, 3, 1, 2}).to(at::kFloat) / 127.5 - 1, {32, 32});
    large.set_requires_grad(true);
    GanDiscriminator d = trainer.discriminator();  // the same, not a copy
    d->set_growth({size});
    const at::Tensor logits = d(at::avg_pool2d(large, {k, k}));
    const at::Tensor gradient = torch::autograd::grad({logits.sum()}, {large})[0];
    const double expected = gradient.square().sum({1, 2, 3}).mean().item<double>();
    const GanStep step = trainer.step(pixels);
    EXPECT_EQ(extra(step, "resolution"), size);
    EXPECT_NEAR(extra(step, "r1"), expected, 1e-4 * expected);
  }
}

TEST(GanTrainer, Bf16FollowsFp32) {
  TrainerOptions options = some_options();
  GanObjective objective;
  objective.r1 = 1;
  GanTrainer full(small_config(), options, objective);
  options.bf16 = true;
  GanTrainer half(small_config(), options, objective);
  for (int i = 0; i < 3; ++i) {
    const GanStep a = full.step(toy_pixels(16, 16, 16 * i));
    const GanStep b = half.step(toy_pixels(16, 16, 16 * i));
    EXPECT_NEAR(a.loss_d(), b.loss_d(), 0.1) << i;
    EXPECT_NEAR(a.loss_g, b.loss_g, 0.1) << i;
    EXPECT_NE(a.loss_g, b.loss_g) << "bf16 was not used";
    EXPECT_NEAR(extra(a, "r1"), extra(b, "r1"), 0.05 * extra(a, "r1") + 1e-3) << i;
  }
  for (const auto& [name, tensor] : half.state()) {
    EXPECT_NE(tensor.scalar_type(), at::kBFloat16) << name;
  }
}

TEST(GanTrainer, LearnsAToySet) {
  for (const bool pairs : {false, true}) {
    TrainerOptions options;
    options.seed = 5;
    options.beta1 = 0;
    options.learning_rate = 1e-3;
    options.learning_rate_d = 2e-3;
    options.ema_half_life = 500;
    GanConfig config = small_config();
    config.channels = config.channels_d = 8;
    GanObjective objective;
    objective.loss = GanLoss::kBce;
    if (pairs) {  // R3GAN's
      objective.loss = GanLoss::kRelativistic;
      objective.r1 = objective.r2 = 1;
      config.blocks = GanConfig::Blocks::kResidual;
      config.norm_g = config.norm_d = GanConfig::Norm::kNone;
    }
    GanTrainer trainer(config, options, objective);
    const at::Tensor real_mean = to_signed(toy_pixels(16, 256)).mean({0, 2, 3});
    // How far the average colour of the fakes is from the reals', and their upper from their lower
    // rows: the two things that make up this set.
    const auto errors = [&] {
      const at::NoGradGuard no_grad;
      const std::shared_ptr<GeneratorNetwork> generator = make_generator(config);
      copy_state(trainer.best_generator(), *generator);
      generator->eval();
      const at::Tensor fakes = generator->generate(normal_tensor({64, 8}, {9, "test", 0}), {});
      const double colour = (fakes.mean({0, 2, 3}) - real_mean).abs().mean().item<double>();
      const at::Tensor red = fakes.select(1, 0).mean({0, 2});
      return std::pair(colour, red.narrow(0, 0, 4).mean().item<double>() -
                                   red.narrow(0, 12, 4).mean().item<double>());
    };
    const auto [colour_before, step_before] = errors();
    for (std::uint64_t i = 0; i < 150; ++i) {
      ASSERT_TRUE(trainer.step(toy_pixels(16, 32, i % 8 * 32)).finite());
    }
    const auto [colour_after, step_after] = errors();
    EXPECT_LT(colour_after, colour_before / 2);
    EXPECT_LT(std::abs(step_before), 0.2);
    EXPECT_GT(step_after, 0.8) << "the fakes should be red above and blue below";
  }
}

}  // namespace
}  // namespace gp
