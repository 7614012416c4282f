#include "stages/torch/train_gan.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/gan_snapshot.hpp"
#include "stages/torch/random_tensor.hpp"
#include "stages/torch/stages.hpp"
#include "tests/stages/torch/toy_batches.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kBatch = 8;

std::int64_t whole(std::int64_t number) { return number; }

/// Batches of the size that the schedule asks for, from `start` on, as the pipeline's phases give
/// them.
class GrowingStream : public BatchStream {
 public:
  GrowingStream(std::vector<Phase> phases, int batches, int epochs, StreamPosition start = {})
      : phases_(std::move(phases)), batches_(batches), epochs_(epochs), start_(start) {}
  std::shared_ptr<const Batch> next() override {
    if (static_cast<int>(start_.epoch) == epochs_) return nullptr;
    std::uint64_t images = start_.images;
    std::size_t phase = 0;
    for (; phase + 1 < phases_.size() && images >= phases_[phase].images; ++phase) {
      images -= phases_[phase].images;
    }
    const int size = std::stoi(phases_[phase].overrides.at("image.resize.size"));
    const bool end = start_.next == static_cast<std::uint64_t>(batches_) * kBatch;
    auto batch = end ? std::make_shared<Batch>() : toy_batch(size, kBatch, start_.next);
    batch->shape = {size, size};
    batch->epoch = start_.epoch;
    batch->end_of_epoch = end;
    batch->counts.read = batch->counts.batched = start_.next + (end ? 0 : kBatch);
    if (end) {
      batch->next = start_.next;
      start_.next = 0;
      ++start_.epoch;
    } else {
      start_.next += kBatch;
      start_.images += kBatch;
      batch->next = start_.next;
    }
    return batch;
  }
  double seconds_waited() const override { return 0; }

 private:
  std::vector<Phase> phases_;
  int batches_, epochs_;
  StreamPosition start_;
};

class TrainGanTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        fs::temp_directory_path() /
        ("gp_gan_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
         "_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    log_.set_quiet(true);
    run_.name = "toy";
    run_.seed = 11;
    run_.device = "cpu";
    run_.precision = "fp32";
    run_.threads = 1;
    run_.config_yaml = "name: toy\n";
    values_ = {{"epochs", whole(3)},       {"latent", whole(8)}, {"channels", whole(4)},
               {"sample_every", whole(3)}, {"rows", whole(2)},   {"columns", whole(2)},
               {"save_every", whole(100)}};
  }
  void TearDown() override { fs::remove_all(root_); }

  Params params() const { return make_params(train_gan_info().params, values_); }
  std::string refusal() const {
    try {
      TrainGan stage(params());
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no ConfigError";
  }
  std::string refusal_of(const StreamInfo& stream) const {
    try {
      TrainGan(params()).check(stream);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no ConfigError";
  }
  void grow(int first, int last, double phase_kimg, double fade_kimg) {
    values_["growth"] = std::string("phases");
    values_["first_resolution"] = whole(first);
    values_["final_resolution"] = whole(last);
    values_["phase_kimg"] = phase_kimg;
    values_["fade_kimg"] = fade_kimg;
  }
  StreamInfo info(int size) const {
    return {{size, size}, kBatch, 3 * kBatch, class_names_, "digest"};
  }

  void train(const std::string& name, BatchStream& stream, int size, std::uint64_t max_steps = 0,
             const SavedTraining* resume = nullptr) {
    run_.directory = root_ / name;
    fs::create_directories(run_.directory);
    const StreamInfo stream_info = info(size);
    EndContext context{run_, stream_info, stream, log_, {}, max_steps, {}};
    context.resume = resume;
    TrainGan(params()).run(context);
  }
  Checkpoint end_of(const std::string& name) const { return load_checkpoint(root_ / name); }

  /// metrics.jsonl but for the times.
  std::vector<json> metrics(const std::string& name) const {
    std::vector<json> all;
    std::ifstream stream(root_ / name / "metrics.jsonl");
    for (std::string line; std::getline(stream, line);) {
      all.push_back(json::parse(line));
      all.back().erase("images_per_second");
      all.back().erase("waited");
    }
    return all;
  }

  fs::path root_;
  RunInfo run_;
  Log log_;
  std::map<std::string, Value> values_;
  std::vector<std::string> class_names_;
};

#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// --- What is refused

TEST_F(TrainGanTest, DefaultsAreAccepted) {
  EXPECT_EQ(refusal(), "no ConfigError");
  EXPECT_EQ(refusal_of(info(16)), "no ConfigError");
  EXPECT_TRUE(TrainGan(params()).schedule().empty());
}

TEST_F(TrainGanTest, SmoothedLabelsNeedALossWithLabels) {
  values_["label_smoothing"] = 0.1;
  for (const char* loss : {"hinge", "relativistic"}) {
    values_["loss"] = std::string(loss);
    EXPECT_MENTIONS(refusal(), std::string("train.gan: label_smoothing"));
    EXPECT_MENTIONS(refusal(), std::string("loss: ") + loss);
  }
  for (const char* loss : {"bce", "least_squares"}) {
    values_["loss"] = std::string(loss);
    EXPECT_EQ(refusal(), "no ConfigError") << loss;
  }
}

TEST_F(TrainGanTest, HowOftenToAugmentIsSaidOnceAndOfAnAugmentation) {
  for (const char* const name : {"augment_target", "augment_p"}) {
    values_[name] = 0.6;
    values_["augment_cutout"] = false;
    EXPECT_MENTIONS(refusal(), std::string("train.gan: ") + name + " says how often");
    values_["augment_cutout"] = true;
    EXPECT_EQ(refusal(), "no ConfigError");
    values_.erase(name);
  }
  values_["augment_target"] = values_["augment_p"] = 0.6;
  EXPECT_MENTIONS(refusal(), "train.gan: augment_target moves");
}

TEST_F(TrainGanTest, TwoAveragesAreOneTooMany) {
  values_["ema"] = 0.9;
  values_["ema_half_life_kimg"] = 1.0;
  EXPECT_MENTIONS(refusal(), "train.gan: ema and ema_half_life_kimg");
}

TEST_F(TrainGanTest, PhasesThatContradictEachOtherAreRefused) {
  values_["phase_batch"] = std::vector<double>{8, 4};
  EXPECT_MENTIONS(refusal(), "train.gan: phase_batch is of growth: phases");
  values_.erase("phase_batch");
  grow(8, 32, 1, 0.5);
  EXPECT_EQ(refusal(), "no ConfigError");
  values_["phase_batch"] = std::vector<double>{8, 4};
  EXPECT_MENTIONS(refusal(), "phase_batch has 2 numbers, and there are 3 phases");
  values_["phase_batch"] = std::vector<double>{8, 4.5, 2};
  EXPECT_MENTIONS(refusal(), "phase_batch: 4.5 is no number of images");
  values_["phase_batch"] = std::vector<double>{8, 4, 2};
  EXPECT_EQ(refusal(), "no ConfigError");
  values_["phase_batch"] = std::vector<double>{};
  grow(8, 32, 1, 1.5);
  EXPECT_MENTIONS(refusal(), "fade_kimg is longer than phase_kimg");
  grow(24, 32, 1, 0.5);
  EXPECT_MENTIONS(refusal(), "first_resolution = 24 is not a power of two");
  grow(64, 32, 1, 0.5);
  EXPECT_MENTIONS(refusal(), "first_resolution = 64 is not a power of two from 8 to final");
  grow(8, 48, 1, 0.5);
  EXPECT_MENTIONS(refusal(), "final_resolution = 48 is not a power of two");
}

TEST_F(TrainGanTest, ImagesMustSuit) {
  for (const ImageShape shape : {ImageShape{100, 100}, ImageShape{64, 32}, ImageShape{8, 8}}) {
    EXPECT_MENTIONS(refusal_of({shape, kBatch, 160, {}, ""}), "train.gan: the images are");
  }
  grow(8, 32, 1, 0.5);
  EXPECT_MENTIONS(refusal_of(info(64)), "final_resolution = 32, and the images are");
  EXPECT_EQ(refusal_of(info(32)), "no ConfigError");
}

TEST_F(TrainGanTest, RatesFallOverAllStepsAlsoWhereTheLastBatchIsKept) {
  values_["schedule"] = std::string("linear");
  values_["epochs"] = whole(2);
  const auto weights = [&](const std::string& name, std::uint64_t source_size, bool keep_last) {
    StreamInfo stream_info = info(16);
    stream_info.source_size = source_size;
    stream_info.keep_last = keep_last;
    run_.directory = root_ / name;
    fs::create_directories(run_.directory);
    VectorBatchStream stream(toy_stream(16, kBatch, 3, 2));
    EndContext context{run_, stream_info, stream, log_, {}, 0, {}};
    TrainGan(params()).run(context);
    return end_of(name).tensors.at("G.dense.weight");
  };
  const at::Tensor expected = weights("whole", 3 * kBatch, false);
  EXPECT_TRUE(at::equal(weights("kept", 2 * kBatch + 1, true), expected));
  EXPECT_FALSE(at::equal(weights("dropped", 2 * kBatch + 1, false), expected));
  EXPECT_TRUE(at::equal(weights("full", 3 * kBatch, true), expected));
}

TEST_F(TrainGanTest, DComparesAnImageWithOthersWhereABlockIsNotFull) {
  values_["minibatch_stddev"] = true;
  VectorBatchStream stream(toy_stream(16, kBatch, 3, 3));
  train("run", stream, 16);
  GanSnapshot snapshot(end_of("run"), at::kCPU, "test");
  const std::size_t bytes = snapshot.shape().bytes();
  for (const int count : {2, 4, 5, 8, 9, 16, 23, 32, 33, 40}) {
    const std::vector<std::uint8_t> images = snapshot.generate(5, 0, count);
    std::vector<std::uint8_t> copies;
    for (int i = 0; i < count; ++i) {
      copies.insert(copies.end(), images.begin(), images.begin() + bytes);
    }
    const std::vector<float> found = snapshot.discriminate(images.data(), nullptr, count);
    const std::vector<float> alone = snapshot.discriminate(copies.data(), nullptr, count);
    ASSERT_EQ(found.size(), static_cast<std::size_t>(count));
    EXPECT_NE(found[0], alone[0]) << count;
    // The last of them, copied: were it compared with itself alone, its answer would be this.
    copies.clear();
    for (int i = 0; i < count; ++i) copies.insert(copies.end(), images.end() - bytes, images.end());
    EXPECT_NE(found.back(), snapshot.discriminate(copies.data(), nullptr, count).back()) << count;
  }
}

TEST_F(TrainGanTest, ClassesMustBeThere) {
  values_["conditional"] = true;
  EXPECT_MENTIONS(refusal_of(info(16)), "conditional: true needs classes");
  StreamInfo stream = info(16);
  stream.class_names = {"a", "b"};
  EXPECT_EQ(refusal_of(stream), "no ConfigError");
}

/// toy_stream() of one epoch of three batches, labelled; `bad` gets a label that is none.
std::vector<std::shared_ptr<const Batch>> labelled_stream(int classes, int bad = -1) {
  std::vector<std::shared_ptr<const Batch>> all;
  int number = 0;
  for (const auto& given : toy_stream(16, kBatch, 3, 3)) {
    auto batch = std::make_shared<Batch>(*given);
    for (std::int32_t& label : batch->labels)
      label = number == bad ? -1 : number % classes, ++number;
    all.push_back(batch);
  }
  return all;
}

TEST_F(TrainGanTest, DrawsByClass) {
  values_["conditional"] = true;
  class_names_ = {"jet", "glider", "never seen"};
  VectorBatchStream stream(labelled_stream(2));
  train("run", stream, 16);
  EXPECT_TRUE(fs::exists(root_ / "run/samples/classes_000003.png"));
  const Checkpoint checkpoint = end_of("run");
  EXPECT_EQ(checkpoint.info.class_names, class_names_);
  EXPECT_TRUE(
      at::equal(checkpoint.tensors.at("trainer.class_counts"), at::tensor({36, 36, 0}, at::kLong)));

  GanSnapshot snapshot(checkpoint, at::kCPU, "test");
  EXPECT_EQ(snapshot.class_names(), class_names_);
  // Classes are drawn as often as they were seen, and images are those of their class.
  const std::vector<std::int32_t> labels = snapshot.labels(5, 0, 400);
  const auto jets = std::count(labels.begin(), labels.end(), 0);
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 2), 0);
  EXPECT_NEAR(static_cast<double>(jets), 200, 45);  // 4.5 standard deviations
  EXPECT_EQ(snapshot.labels(5, 7, 3), (std::vector<std::int32_t>{labels[7], labels[8], labels[9]}));
  const std::vector<std::uint8_t> images = snapshot.generate(5, 0, 40);
  const std::size_t bytes = snapshot.shape().bytes();
  for (const int i : {0, 1, 2, 33, 39}) {
    const auto at = static_cast<std::size_t>(i);
    const std::vector<std::uint8_t> same =
        snapshot.generate_class(5, static_cast<std::uint64_t>(i), 1, labels[at]);
    EXPECT_TRUE(std::equal(same.begin(), same.end(), images.begin() + at * bytes)) << i;
    const std::vector<std::uint8_t> other =
        snapshot.generate_class(5, static_cast<std::uint64_t>(i), 1, 1 - labels[at]);
    EXPECT_NE(same, other) << i;
  }
  const std::vector<std::int32_t> all_jets(40, 0), all_gliders(40, 1);
  EXPECT_NE(snapshot.discriminate(images.data(), all_jets.data(), 40),
            snapshot.discriminate(images.data(), all_gliders.data(), 40));
}

TEST_F(TrainGanTest, AnImageWithoutALabelIsNamed) {
  values_["conditional"] = true;
  class_names_ = {"jet", "glider"};
  VectorBatchStream stream(labelled_stream(2, 13));
  try {
    train("run", stream, 16);
    FAIL() << "no DataError";
  } catch (const DataError& error) {
    EXPECT_MENTIONS(std::string(error.what()), "train.gan: 'toy/13' has label -1");
    EXPECT_MENTIONS(std::string(error.what()), "from 0 to 1");
  }
}

// --- Phases

TEST_F(TrainGanTest, TheScheduleHasAPhaseForEachResolution) {
  grow(8, 64, 1.001, 0);  // times 1000 a little less than 1001
  values_["phase_batch"] = std::vector<double>{64, 32, 16, 4};
  values_["phase_size"] = std::string("source.synthetic.size");
  const std::vector<Phase> phases = TrainGan(params()).schedule();
  ASSERT_EQ(phases.size(), 4U);
  const char* const sizes[] = {"8", "16", "32", "64"};
  const char* const batches[] = {"64", "32", "16", "4"};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(phases[i].images, 1001U);
    EXPECT_EQ(phases[i].overrides,
              (std::map<std::string, std::string>{{"source.synthetic.size", sizes[i]},
                                                  {"batch.size", batches[i]}}));
  }
  values_["phase_batch"] = std::vector<double>{};
  EXPECT_EQ(TrainGan(params()).schedule()[0].overrides.size(), 1U);
}

TEST_F(TrainGanTest, RatesFallOnceTheNetworksHaveGrown) {
  grow(8, 16, 0.020, 0.020);  // 3 batches of 8 to fill 20 images, then 16 x 16
  const std::vector<Phase> phases = TrainGan(params()).schedule();
  for (const int steps_per_epoch : {0, 3}) {
    SCOPED_TRACE(steps_per_epoch);
    values_["steps_per_epoch"] = whole(steps_per_epoch);
    const auto weights = [&](const std::string& schedule, std::uint64_t steps) {
      values_["schedule"] = schedule;
      const std::string name =
          schedule + std::to_string(steps) + "_" + std::to_string(steps_per_epoch);
      GrowingStream stream(phases, 3, 3);
      train(name, stream, 16, steps);
      return end_of(name).tensors.at("G.dense.weight");
    };
    EXPECT_TRUE(at::equal(weights("linear", 4), weights("constant", 4)));
    EXPECT_FALSE(at::equal(weights("linear", 5), weights("constant", 5)));
  }
}

TEST_F(TrainGanTest, TellsWhenTheLastPhaseIsNotReached) {
  grow(8, 16, 0.024, 0.024);
  values_["epochs"] = whole(1);  // 3 batches: the first phase
  const std::vector<Phase> phases = TrainGan(params()).schedule();
  for (const char* const schedule : {"linear", "constant"}) {
    values_["schedule"] = std::string(schedule);
    GrowingStream stream(phases, 3, 1);
    testing::internal::CaptureStderr();
    log_.set_quiet(false);
    train(schedule, stream, 16);
    log_.set_quiet(true);
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_MENTIONS(told, "the images will not grow to 16x16");
    EXPECT_EQ(told.find("the learning rates will not fall") != std::string::npos,
              std::string(schedule) == "linear")
        << told;
  }
}

TEST_F(TrainGanTest, WritesWhatTheLastEvaluationFinds) {
  constexpr int kSteps = 500;  // what comes before is not judged
  values_["epochs"] = whole(1);
  const auto run = [&](const SavedTraining* resume) {
    std::vector<std::shared_ptr<const Batch>> batches;
    if (resume == nullptr) batches = toy_stream(16, kBatch, kSteps, 1);
    VectorBatchStream stream(std::move(batches));
    run_.directory = root_ / "run";
    fs::create_directories(run_.directory);
    EndContext context{run_, info(16), stream, log_, {}, 0, {}};
    context.epoch_done = [&](std::uint32_t, bool last, const auto& make) {
      EXPECT_TRUE(last);
      const json accuracy{{"real_train", 1}, {"real_held_out", 0.1}, {"fake", 0.9}};
      const json record{{"step", make()->step()}, {"accuracy", accuracy}};
      write_file(run_.directory / "evaluation.jsonl", record.dump() + "\n");
    };
    context.resume = resume;
    TrainGan(params()).run(context);
  };
  testing::internal::CaptureStderr();
  log_.set_quiet(false);
  run(nullptr);
  log_.set_quiet(true);
  EXPECT_MENTIONS(testing::internal::GetCapturedStderr(), "train.gan: d_overfits: D calls 100%");
  const std::vector<json> lines = metrics("run");
  ASSERT_EQ(lines.size(), kSteps + 1U);
  EXPECT_TRUE(lines[kSteps - 1].contains("loss_d"));
  EXPECT_EQ(lines[kSteps].size(), 2U);
  EXPECT_EQ(lines[kSteps].at("step"), kSteps);
  EXPECT_EQ(lines[kSteps].at("findings").at(0).at("finding"), "d_overfits");

  run(TrainGan(params()).load_training(root_ / "run", log_).get());
  EXPECT_EQ(metrics("run"), lines);  // once
}

TEST_F(TrainGanTest, GoesOnInsideAFadeAndAcrossAPhase) {
  grow(8, 32, 0.024, 0.024);  // 3 batches each: 8, 8, 8, 16, 16, 16, 32 ..
  values_["ema_half_life_kimg"] = 0.05;
  values_["augment_colour"] = true;
  values_["augment_target"] = 0.3;
  values_["augment_speed_kimg"] = 0.1;
  values_["r1"] = 1.0;
  values_["penalty_every"] = whole(2);
  values_["schedule"] = std::string("linear");
  const std::vector<Phase> phases = TrainGan(params()).schedule();
  GrowingStream all(phases, 3, 3);
  train("whole", all, 32);
  const Checkpoint expected = end_of("whole");
  EXPECT_EQ(expected.info.step, 9U);
  EXPECT_EQ(expected.info.growth, (GrowthPoint{32, 1}));
  const std::vector<json> lines = metrics("whole");
  ASSERT_EQ(lines.size(), 9U);
  EXPECT_EQ(lines[3].at("resolution"), 16);
  EXPECT_NEAR(lines[3].at("fade").get<double>(), 1.0 / 3, 1e-6);
  EXPECT_EQ(lines[6].at("resolution"), 32);
  EXPECT_TRUE(lines[0].contains("r1"));
  EXPECT_FALSE(lines[1].contains("r1")) << "not measured";

  for (const std::uint64_t stop : {3, 4, 6, 7}) {
    SCOPED_TRACE(stop);
    const std::string name = "parts" + std::to_string(stop);
    GrowingStream first(phases, 3, 3);
    train(name, first, 32, stop);
    const auto saved = TrainGan(params()).load_training(root_ / name, log_);
    ASSERT_TRUE(saved);
    EXPECT_EQ(saved->step, stop);
    EXPECT_EQ(saved->position.images, stop * kBatch);
    // Pictures of an early phase are of full size.
    const auto snapshot = TrainGan(params()).load_snapshot(run_, root_ / name);
    EXPECT_EQ(snapshot->shape(), (ImageShape{32, 32}));
    const auto pictures = snapshot->generate(5, 0, 3);
    EXPECT_EQ(pictures.size(), 3U * 32 * 32 * 3);
    EXPECT_EQ(snapshot->discriminate(pictures.data(), nullptr, 3).size(), 3U);
    if (stop == 3) {  // each pixel of 8 x 8 is 4 x 4 of them
      for (int y = 0; y < 32; ++y) {
        for (int x = 0; x < 32 * 3; ++x) {
          ASSERT_EQ(pictures[y * 96 + x], pictures[y / 4 * 4 * 96 + x / 12 * 12 + x % 3]);
        }
      }
    }
    GrowingStream rest(phases, 3, 3, saved->position);
    train(name, rest, 32, 0, saved.get());
    const Checkpoint end = end_of(name);
    ASSERT_EQ(end.tensors.size(), expected.tensors.size());
    for (const auto& [key, tensor] : expected.tensors) {
      EXPECT_TRUE(at::equal(tensor, end.tensors.at(key))) << key;
    }
    EXPECT_EQ(end.info.growth, expected.info.growth);
    EXPECT_EQ(metrics(name), lines);
  }
}

TEST_F(TrainGanTest, WhatAppliesToPhasesOnlyDoesNotSpoilACheckpoint) {
  values_["first_resolution"] = whole(64);
  auto batches = toy_stream(16, kBatch, 3, 3);
  VectorBatchStream stream(batches);
  train("run", stream, 16, 1);
  EXPECT_EQ(end_of("run").info.step, 1U);
}

TEST_F(TrainGanTest, AnOddStepCanBeLeftOutInAnyPhase) {
  grow(8, 16, 0.016, 0.016);
  for (const char* policy : {"skip", "rollback"}) {
    values_["on_nan"] = std::string(policy);
    values_["save_every"] = whole(1);
    Params exploding = params();
    exploding.set("learning_rate", 1e38);  // around the schema; of no use after a step
    exploding.set("learning_rate_d", 2e-4);
    run_.directory = root_ / policy;
    fs::create_directories(run_.directory);
    GrowingStream stream(TrainGan(params()).schedule(), 20, 1);
    const StreamInfo stream_info = info(16);
    EndContext context{run_, stream_info, stream, log_, {}, 0, {}};
    try {
      TrainGan(exploding).run(context);
      FAIL() << "it cannot come to its end";
    } catch (const RunError& error) {
      // Not a complaint about images of another size.
      EXPECT_MENTIONS(std::string(error.what()), "times in a row");
    }
  }
}

// --- Export

TEST_F(TrainGanTest, PythonDrawsTheSameImages) {
  const char* given = std::getenv("GP_TORCH_PYTHON");
  const std::string python = given != nullptr ? given : "python3";
  if (std::system((python + " -c 'import torch, safetensors' 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << python << " cannot import torch and safetensors (PyPI); set GP_TORCH_PYTHON to "
                 << "a Python that can";
  }
  std::string pairs;
  int number = 0;
  for (const auto blocks : {GanConfig::Blocks::kPlain, GanConfig::Blocks::kResidual}) {
    for (const auto growth :
         {GanConfig::Growth::kNone, GanConfig::Growth::kSkip, GanConfig::Growth::kPhases}) {
      for (const auto norm : {GanConfig::Norm::kNone, GanConfig::Norm::kBatch}) {
        GanConfig config;
        config.resolution = 32;
        config.latent = 6;
        config.channels = config.channels_d = 4;
        config.max_channels = 8;  // one block changes channels, one does not
        config.blocks = blocks;
        config.norm_g = norm;
        config.growth = growth;
        config.classes = (number + number / 2) % 2 == 0 ? 3 : 0;
        TrainerOptions options;
        options.learning_rate = 1e-2;
        options.ema = number % 3 == 0 ? 0.5 : 0;
        GanObjective objective;
        objective.growth = {8,
                            number == 5 || number == 10 ? 0U : 32U};  // a quarter faded in, or all
        GanTrainer trainer(config, options, objective);
        at::Tensor labels = at::remainder(at::arange(kBatch, at::kLong), 3);
        if (config.classes == 0) labels = at::Tensor();
        for (int step = 0; step < 3; ++step) {
          int size = 32;
          if (growth == GanConfig::Growth::kPhases) {
            size = objective.growth.at(trainer.images(), kBatch, config).resolution;
          }
          const auto bytes = toy_images(size, kBatch);
          const at::Tensor pixels = at::tensor(at::ArrayRef<std::uint8_t>(bytes), at::kByte)
                                        .view({kBatch, size, size, 3});
          trainer.step(pixels, labels);
        }
        Checkpoint checkpoint;
        for (const auto& [name, tensor] : trainer.state()) {
          checkpoint.tensors[name] = tensor.detach().clone();
        }
        checkpoint.info.model = config;
        checkpoint.info.growth = trainer.growth();
        checkpoint.info.step = 3;
        checkpoint.info.average = trainer.has_average();
        const fs::path folder = root_ / std::to_string(number++);
        const fs::path saved = CheckpointFolder(folder).save(checkpoint, 1);
        export_generator(checkpoint, folder / "generator.safetensors");

        GanGenerator generator(config);
        load_state(*generator, checkpoint, trainer.has_average() ? "EMA" : "G", "test");
        if (growth == GanConfig::Growth::kPhases) generator->set_growth(trainer.growth());
        generator->eval();
        const at::NoGradGuard no_grad;
        const at::Tensor z = normal_tensor({kBatch, 6}, {1, "test", 0});
        std::map<std::string, at::Tensor> expected{{"z", z},
                                                   {"images", generator(z, labels).contiguous()}};
        if (labels.defined()) expected["labels"] = labels;
        write_safetensors(folder / "expected.safetensors", {expected, {}});
        for (const fs::path& file : {saved, folder / "generator.safetensors"}) {
          pairs += " '" + (folder / "expected.safetensors").string() + "' '" + file.string() + "'";
        }
      }
    }
  }
  EXPECT_EQ(number, 12);
  const std::string script =
      "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
      "from safetensors.torch import load_file\n"
      "from load_generator import load_generator\n"
      "for expected, path in zip(sys.argv[2::2], sys.argv[3::2]):\n"
      "    expected = load_file(expected)\n"
      "    images = load_generator(path)(expected['z'], expected.get('labels'))\n"
      "    assert images.shape == expected['images'].shape, (path, images.shape)\n"
      "    error = (images - expected['images']).abs().max().item()\n"
      "    assert error <= 1e-5, (path, error)\n"
      "    assert images.std() > 1e-3, path\n";
  write_file(root_ / "compare.py", script);
  const std::string command =
      python + " '" + (root_ / "compare.py").string() + "' '" GP_SOURCE_DIR "/tools'" + pairs;
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

}  // namespace
}  // namespace gp
