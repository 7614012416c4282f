#include "stages/torch/dcgan_trainer.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "stages/torch/random_tensor.hpp"
#include "tests/stages/torch/toy_batches.hpp"

namespace gp {
namespace {

using nlohmann::json;
using State = std::map<std::string, at::Tensor>;

at::Tensor toy_pixels(int size, int count, std::uint64_t first = 0) {
  const std::vector<std::uint8_t> pixels = toy_images(size, count, first);
  return at::tensor(at::ArrayRef<std::uint8_t>(pixels), at::kByte).view({count, size, size, 3});
}

DcganConfig small_config() {
  DcganConfig config;
  config.resolution = 16;
  config.latent = 8;
  config.channels = config.channels_d = 8;
  return config;
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

// --- The step that tests/stages/torch/fixtures/make_keras_step.py takes with Keras.

class KerasStep : public testing::Test {
 protected:
  void SetUp() override {
    keras_ = json::parse(read_text(GP_SOURCE_DIR "/tests/stages/torch/fixtures/keras_step.json"));
    seed_ = keras_.at("seed").get<std::uint64_t>();
    batch_ = keras_.at("batch").get<int>();
  }

  /// The pixels of the fixture: the low bytes of a stream of random numbers.
  at::Tensor pixels() const {
    at::Tensor tensor = at::empty({batch_, 128, 128, 3}, at::kByte);
    Rng rng(seed_, "pixels", 0);
    for (int i = 0; i < tensor.numel(); ++i) {
      tensor.data_ptr<std::uint8_t>()[i] = static_cast<std::uint8_t>(rng.next_u32());
    }
    return tensor;
  }

  /// Compares a tensor with the fixture's digest of Keras's. `tolerance` is a share: of the norm
  /// for what is taken over all values, of ten times their root mean square for the first few.
  void expect_like_keras(const json& expected, const at::Tensor& tensor, double tolerance,
                         const std::string& name, bool compare_head = true) const {
    const at::Tensor values = tensor.detach().contiguous().to(at::kDouble).flatten();
    ASSERT_EQ(expected.at("shape").get<std::vector<std::int64_t>>(), tensor.sizes().vec()) << name;
    at::Tensor weights = at::empty(values.sizes());
    fill_uniform(weights, {seed_, "projection", 0}, -1, 1);
    const double norm = expected.at("norm").get<double>();
    const double root = std::sqrt(static_cast<double>(values.numel()));
    EXPECT_NEAR(values.norm().item<double>(), norm, tolerance * norm) << name;
    EXPECT_NEAR(values.dot(weights.to(at::kDouble)).item<double>(),
                expected.at("projection").get<double>(), tolerance * norm)
        << name;
    EXPECT_NEAR(values.sum().item<double>(), expected.at("sum").get<double>(),
                tolerance * norm * root)
        << name;
    if (!compare_head) return;
    const auto head = expected.at("head").get<std::vector<double>>();
    for (std::size_t i = 0; i < head.size(); ++i) {
      EXPECT_NEAR(values[static_cast<std::int64_t>(i)].item<double>(), head[i],
                  10 * tolerance * norm / root)
          << name << " " << i;
    }
  }

  json keras_;
  std::uint64_t seed_ = 0;
  int batch_ = 0;
};

/// Whether this is the bias of a convolution before batch norm, which takes it out again: its
/// gradient is 0 but for rounding, which Adam blows up.
bool meets_batch_norm(const std::string& network, const std::string& name) {
  return name.ends_with("_conv.bias") && (network == "G" || !name.ends_with("block0_conv.bias"));
}

TEST_F(KerasStep, ParameterCountsAgree) {
  const auto counts = [](const State& state) {
    std::map<std::string, std::int64_t> layers;
    for (const auto& [name, tensor] : state)
      layers[name.substr(0, name.find('.'))] += tensor.numel();
    return layers;
  };
  const auto expected = [&](const char* network) {
    return keras_.at(network).at("counts").get<std::map<std::string, std::int64_t>>();
  };
  EXPECT_EQ(counts(state_of(*Generator(DcganConfig{}))), expected("G"));
  EXPECT_EQ(counts(state_of(*Discriminator(DcganConfig{}))), expected("D"));
}

TEST_F(KerasStep, ForwardPassesAgree) {
  TrainerOptions options;
  options.seed = seed_;
  DcganTrainer trainer(DcganConfig{}, options);
  Generator generator = trainer.generator();
  Discriminator discriminator = trainer.discriminator();
  const at::Tensor z = normal_tensor({batch_, 64}, {seed_, "latent", 0});
  expect_like_keras(keras_.at("fakes"), generator(z), 1e-5, "fakes");
  const at::Tensor logits = discriminator(to_signed(pixels()), DropoutKey{seed_, 0, "real"});
  const auto expected = keras_.at("logits_real").get<std::vector<float>>();
  EXPECT_TRUE(at::allclose(logits, at::tensor(expected), 0, 2e-5)) << logits;
}

TEST_F(KerasStep, OneTrainingStepAgrees) {
  TrainerOptions options;
  options.seed = seed_;
  DcganTrainer trainer(DcganConfig{}, options);
  const State before = copy_of(trainer.state());
  const GanStep step = trainer.step(pixels());
  EXPECT_NEAR(step.loss_d_real, keras_.at("loss_real").get<double>(), 1e-5);
  EXPECT_NEAR(step.loss_d_fake, keras_.at("loss_fake").get<double>(), 1e-4);
  EXPECT_NEAR(step.loss_g, keras_.at("loss_generator").get<double>(), 1e-4);
  const auto share = [&](const char* logits, bool above) {
    const at::Tensor values = at::tensor(keras_.at(logits).get<std::vector<float>>());
    return (above ? values.gt(0) : values.le(0)).to(at::kFloat).mean().item<float>();
  };
  EXPECT_EQ(step.accuracy_real, share("logits_real", true));
  EXPECT_EQ(step.accuracy_fake, share("logits_fake", false));

  for (const std::string network : {"G", "D"}) {
    const State after = trainer.state();
    // Gradients. Rounding makes a few of G's ReLUs fall on the other side of zero.
    for (const auto& [name, expected] : keras_.at(network).at("adam").items()) {
      if (meets_batch_norm(network, name)) continue;
      expect_like_keras(expected, after.at("optimizer_" + network + "." + name),
                        network == "G" ? 5e-3 : 1e-4, network + " " + name);
    }
    for (const auto& [name, expected] : keras_.at(network).at("changes").items()) {
      const std::string key = network + "." + name;
      const at::Tensor change = after.at(key) - before.at(key);
      if (name.find("running") != std::string::npos) {
        expect_like_keras(expected, change, 1e-3, key);  // means hold the biases just spoken of
      } else if (meets_batch_norm(network, name)) {
        // Both within what Adam can do in one or two steps.
        EXPECT_LE(change.abs().max().item<double>(), 2.5e-4) << key;
      } else {
        // The learning rate times little more than the gradient's sign, which may be wrong where
        // the gradient is next to nothing: compared over all values only.
        expect_like_keras(expected, change, 0.1, key, /*compare_head=*/false);
      }
    }
  }

  // Evaluation mode: the running statistics in use.
  const at::NoGradGuard no_grad;
  Generator generator = trainer.generator();
  Discriminator discriminator = trainer.discriminator();
  generator->eval();
  discriminator->eval();
  const at::Tensor z = normal_tensor({batch_, 64}, {seed_, "latent", 0});
  expect_like_keras(keras_.at("fakes_after"), generator(z), 2e-3, "fakes_after");
  const auto expected = keras_.at("logits_after").get<std::vector<float>>();
  const at::Tensor logits = discriminator(to_signed(pixels()));
  EXPECT_TRUE(at::allclose(logits, at::tensor(expected), 0, 1e-3)) << logits;
}

// --- The trainer by itself.

TEST(DcganTrainer, LearnsAToySet) {
  TrainerOptions options;
  options.seed = 5;
  options.learning_rate = options.learning_rate_d = 2e-3;
  DcganConfig config = small_config();
  DcganTrainer trainer(config, options);
  const at::Tensor real_mean = to_signed(toy_pixels(16, 256)).mean({0, 2, 3});
  // How far the average colour of the fakes is from the reals', and of their upper from their lower
  // rows: the two things that make up this set.
  const auto errors = [&] {
    const at::NoGradGuard no_grad;
    Generator generator = trainer.generator();
    const at::Tensor fakes = generator(normal_tensor({64, config.latent}, {9, "test", 0}));
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
  EXPECT_GT(step_after, 0.5) << "the fakes should be red above and blue below";
  EXPECT_EQ(trainer.steps(), 150u);
  EXPECT_EQ(trainer.images(), 150u * 32);
}

TEST(DcganTrainer, IsAFunctionOfSeedAndData) {
  TrainerOptions options;
  options.seed = 1;
  DcganTrainer a(small_config(), options), b(small_config(), options);
  options.seed = 2;
  DcganTrainer c(small_config(), options);
  for (int i = 0; i < 3; ++i) {
    const GanStep step_a = a.step(toy_pixels(16, 8, 8 * i));
    const GanStep step_b = b.step(toy_pixels(16, 8, 8 * i));
    EXPECT_EQ(step_a.loss_d_real, step_b.loss_d_real);
    EXPECT_EQ(step_a.loss_d_fake, step_b.loss_d_fake);
    EXPECT_EQ(step_a.loss_g, step_b.loss_g);
    EXPECT_NE(c.step(toy_pixels(16, 8, 8 * i)).loss_g, step_a.loss_g);
  }
  expect_equal(a.state(), b.state());
}

TEST(DcganTrainer, LeavesTorchsOwnGeneratorAlone) {
  const at::Tensor before = at::globalContext().defaultGenerator(at::kCPU).get_state();
  DcganTrainer trainer(small_config(), {});
  trainer.step(toy_pixels(16, 8));
  EXPECT_TRUE(at::equal(at::globalContext().defaultGenerator(at::kCPU).get_state(), before));
}

TEST(DcganTrainer, KeepsAMovingAverageOfTheGenerator) {
  TrainerOptions options;
  options.ema = 0.5;
  DcganTrainer trainer(small_config(), options);
  State expected = copy_of(state_of(*trainer.generator()));
  for (int step = 0; step < 8; ++step) {
    trainer.step(toy_pixels(16, 8));
    const double decay = std::min(0.5, (1.0 + step) / (10.0 + step));
    for (const auto& [name, tensor] : state_of(*trainer.generator())) {
      expected[name] = expected[name] * decay + tensor.detach() * (1 - decay);
    }
  }
  const State average = state_of(trainer.best_generator());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::allclose(average.at(name), tensor, 1e-5, 1e-6)) << name;
    EXPECT_FALSE(average.at(name).requires_grad());
  }
  // It is measured, not trained with.
  DcganTrainer plain(small_config(), {});
  for (int step = 0; step < 8; ++step) plain.step(toy_pixels(16, 8));
  expect_equal(state_of(*plain.generator()), state_of(*trainer.generator()));
  EXPECT_EQ(plain.state().count("EMA.dense.weight"), 0u);
}

TEST(DcganTrainer, Bf16FollowsFp32) {
  TrainerOptions options;
  DcganTrainer full(small_config(), options);
  options.bf16 = true;
  DcganTrainer half(small_config(), options);
  for (int i = 0; i < 5; ++i) {
    const GanStep a = full.step(toy_pixels(16, 16, 16 * i));
    const GanStep b = half.step(toy_pixels(16, 16, 16 * i));
    EXPECT_NEAR(a.loss_d(), b.loss_d(), 0.1) << i;
    EXPECT_NEAR(a.loss_g, b.loss_g, 0.1) << i;
    EXPECT_NE(a.loss_d(), b.loss_d()) << "bf16 was not used";
  }
  for (const auto& [name, tensor] : half.state()) {
    EXPECT_NE(tensor.scalar_type(), at::kBFloat16) << name;
  }
}

TEST(DcganTrainer, FasterWaysGiveTheSameLossesAndGradients) {
  TrainerOptions options;
  options.learning_rate = options.learning_rate_d = 1e-9;  // Adam would make a step of any noise
  DcganConfig config = small_config();
  config.channels = config.channels_d = 16;
  config.dropout = 0.25;
  DcganTrainer fast(config, options);
  config.exact = true;
  DcganTrainer exact(config, options);
  const GanStep a = fast.step(toy_pixels(16, 16));
  const GanStep b = exact.step(toy_pixels(16, 16));
  EXPECT_NEAR(a.loss_d_real, b.loss_d_real, 2e-6);
  EXPECT_NEAR(a.loss_d_fake, b.loss_d_fake, 2e-6);
  EXPECT_NEAR(a.loss_g, b.loss_g, 2e-6);
  // Adam's averages are sums of the gradients after one step; running statistics have moved once.
  const State exact_state = exact.state();
  int compared = 0;
  for (const auto& [name, tensor] : fast.state()) {
    if (name.find("exp_avg.") == std::string::npos && name.find("running_") == std::string::npos) {
      continue;
    }
    const at::Tensor& expected = exact_state.at(name);
    // A bias before batch norm has no gradient but rounding: hence the 2e-6.
    const double scale = expected.abs().max().item<double>();
    EXPECT_LE((tensor - expected).abs().max().item<double>(), 2e-5 * scale + 2e-6) << name;
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

TEST(DcganTrainer, DMayTakeMoreSteps) {
  TrainerOptions options;
  options.d_steps = 3;
  DcganTrainer trainer(small_config(), options);
  DcganTrainer again(small_config(), options);
  options.d_steps = 1;
  DcganTrainer one(small_config(), options);
  const GanStep step = trainer.step(toy_pixels(16, 8));
  const GanStep first = one.step(toy_pixels(16, 8));
  // What is measured comes before the first update; G's then meets another D.
  EXPECT_EQ(step.loss_d_real, first.loss_d_real);
  EXPECT_EQ(step.loss_d_fake, first.loss_d_fake);
  EXPECT_NE(step.loss_g, first.loss_g);
  EXPECT_EQ(trainer.state().at("optimizer_D.steps").max().item<int>(), 6);
  EXPECT_EQ(trainer.state().at("optimizer_G.steps").max().item<int>(), 1);
  again.step(toy_pixels(16, 8));
  for (const auto& [name, tensor] : again.state()) {
    EXPECT_TRUE(at::equal(tensor, trainer.state().at(name))) << name;
  }
}

TEST(DcganTrainer, ABatchInPartsGivesTheGradientsOfTheirMean) {
  DcganConfig config = small_config();
  config.dropout = 0;
  TrainerOptions options;
  DcganTrainer whole(config, options);
  options.accumulate = 2;
  DcganTrainer parts(config, options);
  // Two halves that are alike: batch norm sees the same in each as in both.
  const at::Tensor half = toy_pixels(16, 8);
  const at::Tensor pixels = at::cat({half, half});
  const GanStep a = whole.step(pixels);
  const GanStep b = parts.step(pixels);
  EXPECT_NEAR(a.loss_d_real, b.loss_d_real, 1e-6);
  EXPECT_NEAR(a.gradient_norm_d_real, b.gradient_norm_d_real, 1e-5);
  EXPECT_EQ(a.accuracy_real, b.accuracy_real);
  EXPECT_NE(a.loss_g, b.loss_g);  // fakes differ between the halves, and so do their statistics
  EXPECT_EQ(parts.images(), 16U);

  options.accumulate = 3;  // of 8, 8 and 4 parts of a batch of 20
  DcganTrainer uneven(config, options);
  EXPECT_TRUE(uneven.step(toy_pixels(16, 20)).finite());
  EXPECT_EQ(uneven.state().at("optimizer_G.steps").max().item<int>(), 1);
}

TEST(DcganTrainer, FollowsItsSchedule) {
  TrainerOptions options;
  options.learning_rate = options.learning_rate_d = 2e-4;
  options.schedule.warm_up = 2;
  DcganTrainer rising(small_config(), options);
  options.learning_rate = options.learning_rate_d = 1e-4;
  options.schedule.warm_up = 0;
  DcganTrainer constant(small_config(), options);
  rising.step(toy_pixels(16, 8));
  constant.step(toy_pixels(16, 8));
  for (const auto& [name, tensor] : rising.state()) {
    EXPECT_TRUE(at::equal(tensor, constant.state().at(name))) << name;
  }
  rising.step(toy_pixels(16, 8));
  constant.step(toy_pixels(16, 8));
  EXPECT_FALSE(
      at::equal(rising.state().at("G.dense.weight"), constant.state().at("G.dense.weight")));
}

TEST(DcganTrainer, TheAverageMayHaveAHalfLifeInImages) {
  TrainerOptions options;
  options.ema_half_life = 16;
  options.ema_ramp_up = 0;
  DcganTrainer trainer(small_config(), options);
  const auto weight = [&](const char* prefix) {
    return trainer.state().at(std::string(prefix) + ".dense.weight").detach().clone();
  };
  const at::Tensor start = weight("EMA");
  trainer.step(toy_pixels(16, 16));
  EXPECT_TRUE(at::allclose(weight("EMA"), (start + weight("G")) / 2, 1e-6, 1e-8));

  // Nothing seen yet: the ramp makes the half-life 0.5 * 16 images after the first step.
  options.ema_half_life = 1e6;
  options.ema_ramp_up = 0.5;
  DcganTrainer ramped(small_config(), options);
  const at::Tensor before = ramped.state().at("EMA.dense.weight").detach().clone();
  ramped.step(toy_pixels(16, 16));
  const at::Tensor g = ramped.state().at("G.dense.weight");
  EXPECT_TRUE(
      at::allclose(ramped.state().at("EMA.dense.weight"), 0.25 * before + 0.75 * g, 1e-6, 1e-8));
}

TEST(DcganTrainer, SmoothedLabelsRaiseTheLossOfSureReals) {
  TrainerOptions options;
  DcganTrainer plain(small_config(), options);
  options.label_smoothing = 0.2;
  DcganTrainer smoothed(small_config(), options);
  // -(0.8 log p + 0.2 log(1 - p)) - (-log p) = 0.2 * logit, averaged over the batch.
  Discriminator discriminator = plain.discriminator();
  State before = copy_of(state_of(*discriminator));
  const double logit =
      discriminator(to_signed(toy_pixels(16, 8)), DropoutKey{0, 0, "real"}).mean().item<double>();
  for (const auto& buffer : discriminator->named_buffers()) {
    buffer.value().copy_(before.at(buffer.key()));
  }
  const GanStep a = plain.step(toy_pixels(16, 8));
  const GanStep b = smoothed.step(toy_pixels(16, 8));
  EXPECT_NEAR(b.loss_d_real - a.loss_d_real, 0.2 * logit, 1e-5);
}

// --- Steps that are taken back

TrainerOptions undoable_options() {
  TrainerOptions options;
  options.seed = 3;
  options.ema = 0.9;
  options.undoable = true;
  return options;
}

TEST(DcganTrainer, AStepThatIsNotFiniteIsSeenAndTakenBackExactly) {
  DcganTrainer trainer(small_config(), undoable_options());
  DcganTrainer without(small_config(), undoable_options());
  for (DcganTrainer* one : {&trainer, &without}) {
    EXPECT_TRUE(one->step(toy_pixels(16, 8)).finite());
  }
  const State before = copy_of(trainer.state());
  const at::Tensor poisoned = at::full({8, 16, 16, 3}, std::nan(""));
  EXPECT_FALSE(trainer.step(poisoned).finite());
  EXPECT_FALSE(at::equal(before.at("G.dense.weight"), trainer.state().at("G.dense.weight")));
  trainer.undo();
  expect_equal(before, trainer.state());
  EXPECT_EQ(trainer.steps(), 2U);
  EXPECT_EQ(trainer.images(), 16U);
  // It goes on as one that never had the batch, but for the number that it has used up.
  without.set_progress(2, 16);
  for (DcganTrainer* one : {&trainer, &without}) one->step(toy_pixels(16, 8, 8));
  expect_equal(trainer.state(), without.state());
}

TEST(DcganTrainer, GradientsThatAreNotFiniteAreSeenBeforeTheLossIs) {
  DcganTrainer trainer(small_config(), undoable_options());
  trainer.step(toy_pixels(16, 8));
  {  // The logits stay finite, but the last layer's inputs, its gradients, are too large.
    const at::NoGradGuard no_grad;
    trainer.state().at("D.dense.weight").mul_(1e-30);
    trainer.state().at("D.block1_norm.weight").mul_(1e37);
  }
  const GanStep step = trainer.step(toy_pixels(16, 8));
  EXPECT_TRUE(std::isfinite(step.loss_d_real));
  EXPECT_FALSE(std::isfinite(step.gradient_norm_d_real));
  EXPECT_FALSE(step.finite());
}

}  // namespace
}  // namespace gp
