#include "stages/torch/train_dcgan.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/compute_device.hpp"
#include "stages/torch/dcgan_trainer.hpp"
#include "stages/torch/stages.hpp"
#include "stages/torch/training_loop.hpp"
#include "stages/torch/training_record.hpp"
#include "tests/stages/torch/toy_batches.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSize = 16;
constexpr int kBatch = 8;

/// Batches that end with an error.
class FailingStream : public VectorBatchStream {
 public:
  using VectorBatchStream::VectorBatchStream;
  std::shared_ptr<const Batch> next() override {
    auto batch = VectorBatchStream::next();
    if (!batch) throw DataError("too many bad files");
    return batch;
  }
};

/// One small training from batches in memory; the run directory goes with it.
class TrainDcganTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        fs::temp_directory_path() /
        ("gp_train_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
         "_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    log_.set_quiet(true);
    run_.name = "toy";
    run_.seed = 11;
    run_.device = "cpu";
    run_.precision = "fp32";
    run_.threads = 1;
    run_.config_yaml = "name: toy\n";
    values_ = {{"epochs", std::int64_t{3}},    {"latent", std::int64_t{8}},
               {"channels", std::int64_t{4}},  {"rows", std::int64_t{2}},
               {"columns", std::int64_t{3}},   {"sample_every", std::int64_t{2}},
               {"save_every", std::int64_t{6}}};
  }
  void TearDown() override { fs::remove_all(root_); }

  struct EpochCall {
    std::uint32_t epochs_done;
    bool last;
    bool operator==(const EpochCall&) const = default;
  };
  using Use = std::function<void(Snapshot&)>;

  /// Trains into root_/name ("" writes nothing) and returns the epoch_done calls.
  std::vector<EpochCall> train(const std::string& name,
                               std::vector<std::shared_ptr<const Batch>> batches,
                               std::uint64_t max_steps = 0, const Use& use = {},
                               std::stop_token stop = {}) {
    VectorBatchStream stream(std::move(batches));
    return train_from(name, stream, max_steps, use, stop);
  }
  std::vector<EpochCall> train_from(const std::string& name, BatchStream& stream,
                                    std::uint64_t max_steps = 0, const Use& use = {},
                                    std::stop_token stop = {}) {
    run_.directory = name.empty() ? fs::path() : root_ / name;
    if (!name.empty()) fs::create_directories(run_.directory);
    std::unique_ptr<Stage> stage = train_dcgan_info().create(params());
    std::vector<EpochCall> calls;
    StreamInfo info{{kSize, kSize}, kBatch, 24, {}, "data-digest"};
    EndContext context{run_,
                       info,
                       stream,
                       log_,
                       stop,
                       max_steps,
                       [&](std::uint32_t done, bool last, const auto& make) {
                         calls.push_back({done, last});
                         if (use) use(*make());
                       }};
    dynamic_cast<TrainStage&>(*stage).run(context);
    return calls;
  }
  /// Trains with a learning rate that no loss survives, into root_/run, and returns the error.
  std::string explode(const std::string& policy) {
    values_["on_nan"] = policy;
    Params exploding = params();
    // The schema forbids it; this gets around the schema. The generator is of no use after a step.
    exploding.set("learning_rate", 1e38);
    exploding.set("learning_rate_d", 2e-4);
    run_.directory = root_ / "run";
    fs::create_directories(run_.directory);
    log_.open(run_.directory / "log.txt");
    VectorBatchStream stream(toy_stream(kSize, kBatch, 20, 1));
    StreamInfo info{{kSize, kSize}, kBatch, 160, {}, ""};
    EndContext context{run_, info, stream, log_, {}, 0, {}};
    try {
      TrainDcgan(exploding).run(context);
    } catch (const RunError& error) {
      return error.what();
    }
    return "no RunError";
  }
  Params params() const { return make_params(train_dcgan_info().params, values_); }

  std::vector<json> lines(const fs::path& file) const {
    std::vector<json> all;
    std::ifstream stream(root_ / file);
    for (std::string line; std::getline(stream, line);) all.push_back(json::parse(line));
    return all;
  }

  fs::path root_;
  RunInfo run_;
  Log log_;
  std::map<std::string, Value> values_;
};

TEST_F(TrainDcganTest, LeavesAWholeRunDirectory) {
  const auto calls = train("run", toy_stream(kSize, kBatch, 3, 3));
  EXPECT_EQ(calls, (std::vector<EpochCall>{{1, false}, {2, false}, {3, true}}));
  for (const char* file :
       {"samples/reals.png", "samples/fakes_000002.png", "samples/fakes_000003.png",
        "checkpoints/index.json", "checkpoints/step-00000006.safetensors",
        "checkpoints/step-00000009.safetensors", "plots/loss.png", "plots/acc.png"}) {
    EXPECT_TRUE(fs::exists(root_ / "run" / file)) << file;
  }
  EXPECT_FALSE(fs::exists(root_ / "run/samples/fakes_000001.png"));
  EXPECT_FALSE(fs::exists(root_ / "run/rejects.jsonl"));
  const Checkpoint checkpoint = load_checkpoint(root_ / "run");
  EXPECT_EQ(checkpoint.info.step, 9u);
  EXPECT_EQ(checkpoint.info.position.epoch, 3u);
  EXPECT_EQ(checkpoint.info.position.next, 0u);
  EXPECT_EQ(checkpoint.info.position.images, 72u);
  EXPECT_EQ(checkpoint.info.seed, 11u);
  EXPECT_EQ(checkpoint.info.config_yaml, "name: toy\n");
  EXPECT_EQ(checkpoint.info.data_digest, "data-digest");
}

TEST_F(TrainDcganTest, MetricsHoldALineAStep) {
  train("run", toy_stream(kSize, kBatch, 3, 3));
  const auto metrics = lines("run/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 9u);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const json& line = metrics[i];
    EXPECT_EQ(line.at("step"), i + 1);
    EXPECT_EQ(line.at("epoch"), i / 3 + 1);
    EXPECT_EQ(line.at("images"), (i + 1) * kBatch);
    for (const char* name : {"loss_d", "loss_g"}) EXPECT_GT(line.at(name).get<double>(), 0) << name;
    for (const char* name : {"accuracy_real", "accuracy_fake", "waited"}) {
      EXPECT_GE(line.at(name).get<double>(), 0) << name;
      EXPECT_LE(line.at(name).get<double>(), 1) << name;
    }
    EXPECT_GT(line.at("images_per_second").get<double>(), 0);
  }
}

TEST_F(TrainDcganTest, LogEveryWritesMeansAndTheRestAtTheEndOfAnEpoch) {
  train("each", toy_stream(kSize, kBatch, 3, 1));
  values_["log_every"] = std::int64_t{2};
  train("pairs", toy_stream(kSize, kBatch, 3, 1));
  const auto each = lines("each/metrics.jsonl");
  const auto pairs = lines("pairs/metrics.jsonl");
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].at("step"), 2);
  EXPECT_EQ(pairs[1].at("step"), 3);
  EXPECT_NEAR(pairs[0].at("loss_g").get<double>(),
              (each[0].at("loss_g").get<double>() + each[1].at("loss_g").get<double>()) / 2, 1e-9);
  EXPECT_EQ(pairs[1].at("loss_d"), each[2].at("loss_d"));
}

TEST_F(TrainDcganTest, AnEpochMayBeANumberOfSteps) {
  // Data of 3 batches, read through four times; an epoch of 5 steps, twice.
  values_["steps_per_epoch"] = std::int64_t{5};
  values_["epochs"] = std::int64_t{2};
  EXPECT_EQ(TrainDcgan(params()).epochs(), std::numeric_limits<std::uint32_t>::max());
  std::vector<std::uint32_t> epochs;
  const auto calls = train("run", toy_stream(kSize, kBatch, 3, 4), 0,
                           [&](Snapshot& snapshot) { epochs.push_back(snapshot.epoch()); });
  EXPECT_EQ(calls, (std::vector<EpochCall>{{1, false}, {2, true}}));
  EXPECT_EQ(epochs, (std::vector<std::uint32_t>{1, 2}));
  const auto metrics = lines("run/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 10u);
  EXPECT_EQ(metrics[4].at("epoch"), 1);
  EXPECT_EQ(metrics[5].at("epoch"), 2);
  const Checkpoint checkpoint = load_checkpoint(root_ / "run");
  EXPECT_EQ(checkpoint.info.step, 10u);
  EXPECT_EQ(checkpoint.info.epochs_done, 2u);
  // The place in the data is the data's: one batch into the fourth reading.
  EXPECT_EQ(checkpoint.info.position.epoch, 3u);
  EXPECT_EQ(checkpoint.info.position.next, 8u);
  EXPECT_TRUE(fs::exists(root_ / "run/samples/fakes_000002.png"));
}

TEST_F(TrainDcganTest, AnEpochOfStepsIsResumed) {
  values_["steps_per_epoch"] = std::int64_t{5};
  values_["save_every"] = std::int64_t{4};
  train("whole", toy_stream(kSize, kBatch, 3, 4));
  // Stops after step 8; goes on with the batches behind it.
  train("run", toy_stream(kSize, kBatch, 3, 4), 8);
  TrainDcgan stage(params());
  const std::unique_ptr<SavedTraining> saved = stage.load_training(root_ / "run", log_);
  ASSERT_EQ(saved->step, 8u);
  auto batches = toy_stream(kSize, kBatch, 3, 4);
  batches.erase(batches.begin(), batches.begin() + 10);  // with the ends of two epochs
  ASSERT_EQ(batches.front()->epoch, saved->position.epoch);
  VectorBatchStream stream(std::move(batches));
  run_.directory = root_ / "run";
  StreamInfo info{{kSize, kSize}, kBatch, 24, {}, "data-digest"};
  std::vector<EpochCall> calls;
  EndContext context{run_, info, stream, log_, {}, 0, {}};
  context.epoch_done = [&](std::uint32_t done, bool last, const auto&) {
    calls.push_back({done, last});
  };
  context.resume = saved.get();
  stage.run(context);
  EXPECT_EQ(calls, (std::vector<EpochCall>{{2, false}}));  // the data end before the third
  const Checkpoint whole = load_checkpoint(root_ / "whole");
  const Checkpoint resumed = load_checkpoint(root_ / "run");
  EXPECT_EQ(whole.info.step, 12u);
  EXPECT_EQ(resumed.info.step, 12u);
  for (const auto& [name, tensor] : whole.tensors) {
    EXPECT_TRUE(at::equal(tensor, resumed.tensors.at(name))) << name;
  }
}

TEST_F(TrainDcganTest, WorkingAheadOfTheDeviceChangesNothing) {
  const auto train_so = [&](const std::string& name, bool ahead) {
    run_.directory = root_ / name;
    fs::create_directories(run_.directory);
    VectorBatchStream stream(toy_stream(kSize, kBatch, 3, 3));
    StreamInfo info{{kSize, kSize}, kBatch, 24, {}, "data-digest"};
    EndContext context{run_, info, stream, log_, {}, 0, {}};
    const Params given = params();
    DcganConfig config;
    config.resolution = kSize;
    config.latent = 8;
    config.channels = config.channels_d = 4;
    TrainingLoop loop(
        "train.dcgan", given, context,
        [&] { return std::make_unique<DcganTrainer>(config, TrainerOptions{}); }, ahead);
    loop.run();
  };
  values_["log_every"] = std::int64_t{2};
  values_["save_every"] = std::int64_t{4};
  train_so("plain", false);
  train_so("ahead", true);
  const auto plain = lines("plain/metrics.jsonl");
  const auto ahead = lines("ahead/metrics.jsonl");
  ASSERT_EQ(plain.size(), 6u);  // two lines an epoch of three steps
  ASSERT_EQ(ahead.size(), plain.size());
  for (std::size_t i = 0; i < plain.size(); ++i) {
    for (const char* name : {"step", "epoch", "images", "loss_d", "loss_g", "accuracy_real"}) {
      EXPECT_EQ(plain[i].at(name), ahead[i].at(name)) << i << name;
    }
  }
  const Checkpoint a = load_checkpoint(root_ / "plain");
  const Checkpoint b = load_checkpoint(root_ / "ahead");
  EXPECT_EQ(a.info.position, b.info.position);
  for (const auto& [name, tensor] : a.tensors) {
    EXPECT_TRUE(at::equal(tensor, b.tensors.at(name))) << name;
  }
}

TEST(DeviceFeed, AnErrorOfABatchThatWasFetchedAheadWaitsForItsTurn) {
  auto batches = toy_stream(kSize, kBatch, 1, 1);
  batches.resize(1);
  FailingStream stream(batches);
  DeviceFeed feed(stream, at::kCPU, true);
  const DeviceFeed::Item item = feed.next();
  EXPECT_EQ(item.batch, batches[0]);
  EXPECT_EQ(item.pixels.sizes(), (at::IntArrayRef{kBatch, kSize, kSize, 3}));
  feed.fetch();
  EXPECT_THROW(feed.next(), DataError);
}

TEST_F(TrainDcganTest, TwoRunsAreEqualAndSnapshotsChangeNothing) {
  train("a", toy_stream(kSize, kBatch, 3, 3));
  train("b", toy_stream(kSize, kBatch, 3, 3), 0, [&](Snapshot& snapshot) {
    const auto images = snapshot.generate(99, 3, 40);
    snapshot.discriminate(images.data(), nullptr, 40);
  });
  const auto a = lines("a/metrics.jsonl");
  const auto b = lines("b/metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (const char* name : {"loss_d", "loss_g", "accuracy_real", "accuracy_fake"}) {
      EXPECT_EQ(a[i].at(name), b[i].at(name)) << i;
    }
  }
  const Checkpoint end_a = load_checkpoint(root_ / "a");
  const Checkpoint end_b = load_checkpoint(root_ / "b");
  for (const auto& [name, tensor] : end_a.tensors) {
    EXPECT_TRUE(at::equal(tensor, end_b.tensors.at(name))) << name;
  }
}

TEST_F(TrainDcganTest, MaxStepsEndsWithEverythingWritten) {
  const auto calls = train("run", toy_stream(kSize, kBatch, 3, 3), 4);
  EXPECT_EQ(calls, (std::vector<EpochCall>{{1, false}, {2, true}}));
  EXPECT_EQ(lines("run/metrics.jsonl").size(), 4u);
  EXPECT_TRUE(fs::exists(root_ / "run/samples/fakes_000002.png"));
  EXPECT_TRUE(fs::exists(root_ / "run/plots/loss.png"));
  const Checkpoint checkpoint = load_checkpoint(root_ / "run");
  EXPECT_EQ(checkpoint.info.step, 4u);
  EXPECT_EQ(checkpoint.info.position.epoch, 1u);
  EXPECT_EQ(checkpoint.info.position.next, 8u);
}

TEST_F(TrainDcganTest, AStopFinishesTheStepAndSaves) {
  // Asked for before the first step, so that it must be seen during the loop.
  std::stop_source source;
  source.request_stop();
  const auto calls = train("run", toy_stream(kSize, kBatch, 3, 3), 0, {}, source.get_token());
  EXPECT_TRUE(calls.empty());
  EXPECT_EQ(load_checkpoint(root_ / "run").info.step, 1u);
  EXPECT_EQ(load_checkpoint(root_ / "run").info.position.next, 8u);
  EXPECT_EQ(lines("run/metrics.jsonl").size(), 1u);
}

TEST_F(TrainDcganTest, WhenTheDataFailWhatWasLearnedIsSaved) {
  auto batches = toy_stream(kSize, kBatch, 3, 1);
  batches.resize(2);
  FailingStream stream(std::move(batches));
  EXPECT_THROW(train_from("run", stream), DataError);
  EXPECT_EQ(load_checkpoint(root_ / "run").info.step, 2u);
  EXPECT_EQ(load_checkpoint(root_ / "run").info.position.next, 16u);
}

TEST_F(TrainDcganTest, RejectsAreWrittenDown) {
  auto batches = toy_stream(kSize, kBatch, 1, 1);
  auto rejects = std::make_shared<Batch>();
  rejects->rejects = {{"a \"b\".jpg", "image.decode", "broken", false},
                      {"c\xFF.jpg", "filter", "too small", true}};
  batches.insert(batches.begin(), rejects);
  values_["epochs"] = std::int64_t{1};
  train("run", batches);
  const auto written = lines("run/rejects.jsonl");
  ASSERT_EQ(written.size(), 2u);
  EXPECT_EQ(written[0], json({{"key", "a \"b\".jpg"},
                              {"stage", "image.decode"},
                              {"reason", "broken"},
                              {"dropped", false}}));
  EXPECT_EQ(written[1].at("dropped"), true);
}

TEST_F(TrainDcganTest, WithoutADirectoryNothingIsWritten) {
  fs::create_directories(root_ / "empty");
  const fs::path before = fs::current_path();
  fs::current_path(root_ / "empty");
  const auto calls = train("", toy_stream(kSize, kBatch, 2, 2));
  fs::current_path(before);
  EXPECT_EQ(calls.size(), 2u);
  EXPECT_TRUE(fs::is_empty(root_ / "empty"));
}

TEST_F(TrainDcganTest, AnEpochWithoutABatchIsAnError) {
  try {
    train("run", toy_stream(kSize, kBatch, 0, 1));
    FAIL();
  } catch (const RunError& error) {
    EXPECT_NE(std::string(error.what()).find("gave no batch"), std::string::npos) << error.what();
  }
}

TEST_F(TrainDcganTest, ALossThatIsNotFiniteStopsTheRun) {
  const std::string text = explode("stop");
  EXPECT_NE(text.find("not finite at step"), std::string::npos) << text;
  EXPECT_NE(text.find("learning_rate"), std::string::npos) << text;
  EXPECT_NE(text.find("Its batch: toy/"), std::string::npos) << text;
}

TEST_F(TrainDcganTest, RollingBackBringsTheBeginningBackWhereNothingIsSavedYet) {
  const std::string text = explode("rollback");
  EXPECT_NE(text.find("rollback did not help 3 times in a row"), std::string::npos) << text;
  const std::string log = read_text(root_ / "run/log.txt");
  EXPECT_NE(log.find("went back to the state of the beginning"), std::string::npos) << log;
  // Every other step is a first one, and only the one after it is not finite.
  const auto metrics = lines("run/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(metrics[i].at("step"), 2 * i + 1);
}

TEST_F(TrainDcganTest, SkippedStepsAreBoundedInARow) {
  const std::string text = explode("skip");
  EXPECT_NE(text.find("skip did not help 10 times in a row"), std::string::npos) << text;
}

TEST_F(TrainDcganTest, ImagesMustBeSquaresOfAPowerOfTwo) {
  for (const ImageShape shape : {ImageShape{100, 100}, ImageShape{64, 32}, ImageShape{8, 8}}) {
    VectorBatchStream stream({});
    StreamInfo info{shape, kBatch, 160, {}, ""};
    EndContext context{run_, info, stream, log_, {}, 0, {}};
    EXPECT_THROW(TrainDcgan(params()).run(context), ConfigError);
  }
}

class SnapshotTest : public TrainDcganTest {
 protected:
  static std::vector<std::uint8_t> images(Snapshot& snapshot, std::uint64_t seed,
                                          std::vector<int> cuts, std::uint64_t first = 0) {
    std::vector<std::uint8_t> all;
    for (const int count : cuts) {
      const auto part = snapshot.generate(seed, first, count);
      EXPECT_EQ(part.size(), static_cast<std::size_t>(count) * snapshot.shape().bytes());
      all.insert(all.end(), part.begin(), part.end());
      first += static_cast<std::uint64_t>(count);
    }
    return all;
  }
};

TEST_F(SnapshotTest, ImagesDoNotDependOnHowTheyAreCut) {
  train("", toy_stream(kSize, kBatch, 3, 3), 0, [](Snapshot& snapshot) {
    const auto whole = images(snapshot, 5, {70});
    EXPECT_EQ(whole, images(snapshot, 5, {1, 31, 33, 5}));
    EXPECT_EQ(whole, images(snapshot, 5, {32, 0, 38}));
    const auto later = images(snapshot, 5, {10}, 60);
    EXPECT_TRUE(std::equal(later.begin(), later.end(), whole.end() - later.size()));
    EXPECT_NE(whole, images(snapshot, 6, {70}));
    // Not one image repeated.
    EXPECT_NE(images(snapshot, 5, {1}), images(snapshot, 5, {1}, 1));
  });
}

TEST_F(SnapshotTest, PythonDrawsTheSameImages) {
  const char* given = std::getenv("GP_TORCH_PYTHON");
  const std::string python = given != nullptr ? given : "python3";
  if (std::system((python + " -c 'import torch, safetensors' 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << python << " cannot import torch and safetensors (PyPI); set GP_TORCH_PYTHON to "
                 << "a Python that can";
  }
  values_["ema"] = 0.5;
  values_["channels"] = std::int64_t{8};
  train("run", toy_stream(kSize, kBatch, 3, 3));
  const fs::path saved = CheckpointFolder(root_ / "run/checkpoints").newest();
  const Checkpoint checkpoint = load_checkpoint(saved);
  export_generator(checkpoint, root_ / "generator.safetensors");
  Generator generator(std::get<DcganConfig>(checkpoint.info.model));
  load_state(*generator, checkpoint, "EMA", "test");
  generator->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor z = at::randn({16, 8});
  write_safetensors(root_ / "expected.safetensors",
                    {{{"z", z}, {"images", generator(z).contiguous()}}, {}});
  const std::string script =
      "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
      "from safetensors.torch import load_file\n"
      "from load_generator import load_generator\n"
      "expected = load_file(sys.argv[2])\n"
      "for path in sys.argv[3:]:\n"
      "    load_file(path)\n"
      "    images = load_generator(path)(expected['z'])\n"
      "    assert images.shape == expected['images'].shape, images.shape\n"
      "    error = (images - expected['images']).abs().max().item()\n"
      "    assert error <= 1e-5, error\n"
      "    assert images.std() > 1e-3\n";
  write_file(root_ / "compare.py", script);
  const std::string command = python + " '" + (root_ / "compare.py").string() +
                              "' '" GP_SOURCE_DIR "/tools' '" +
                              (root_ / "expected.safetensors").string() + "' '" + saved.string() +
                              "' '" + (root_ / "generator.safetensors").string() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

TEST_F(SnapshotTest, AFileGivesWhatTheTrainingGave) {
  for (const double ema : {0.0, 0.9}) {
    values_["ema"] = ema;
    const std::string name = ema > 0 ? "average" : "plain";
    std::string digest;
    std::vector<std::uint8_t> pictures;
    std::vector<float> logits;
    train(name, toy_stream(kSize, kBatch, 3, 3), 0, [&](Snapshot& snapshot) {
      digest = snapshot.digest();
      pictures = snapshot.generate(5, 0, 40);
      logits = snapshot.discriminate(pictures.data(), nullptr, 40);
      EXPECT_EQ(snapshot.images(), snapshot.step() * kBatch);
    });
    // Built from the file alone: this stage's own parameters say otherwise.
    TrainDcgan other(make_params(train_dcgan_info().params));
    const auto loaded = other.load_snapshot(run_, root_ / name);
    EXPECT_EQ(loaded->digest(), digest);
    EXPECT_EQ(loaded->step(), 9u);
    EXPECT_EQ(loaded->epoch(), 3u);
    EXPECT_EQ(loaded->images(), 72u);
    EXPECT_EQ(loaded->shape(), (ImageShape{kSize, kSize}));
    EXPECT_EQ(loaded->generate(5, 0, 40), pictures);
    EXPECT_EQ(loaded->discriminate(pictures.data(), nullptr, 40), logits);
  }
  // The average is another generator than the one trained.
  const Checkpoint average = load_checkpoint(root_ / "average");
  EXPECT_FALSE(
      at::equal(average.tensors.at("EMA.dense.weight"), average.tensors.at("G.dense.weight")));
}

TEST(ComputeDevice, NamesAreChecked) {
  EXPECT_EQ(resolve_device("cpu"), at::Device(at::kCPU));
  EXPECT_NO_THROW(resolve_device("auto"));
  for (const char* name : {"gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""}) {
    EXPECT_THROW(resolve_device(name), ConfigError) << name;
  }
  EXPECT_THROW(resolve_device("cuda:999"), RunError);
  EXPECT_TRUE(resolve_bf16("bf16", at::kCPU));
  EXPECT_FALSE(resolve_bf16("fp32", at::kCPU));
  EXPECT_THROW(resolve_bf16("fp16", at::kCPU), ConfigError);
}

TEST(ComputeDevice, AutoIsBf16WhereTheProcessorIsFasterInIt) {
  std::ifstream file("/proc/cpuinfo");
  const std::string cpu(std::istreambuf_iterator<char>(file), {});
  ASSERT_NE(cpu.find("flags"), std::string::npos);
  const auto has = [&](const char* text) { return cpu.find(text) != std::string::npos; };
  const bool faster = has("avx512_bf16") && (has("amx_bf16") || !has("GenuineIntel"));
  EXPECT_EQ(has_native_bf16(at::kCPU), has("avx512_bf16"));
  EXPECT_EQ(is_faster_in_bf16(at::kCPU), faster);
  EXPECT_EQ(resolve_bf16("auto", at::kCPU), faster);
}

TEST(TrainingRecord, ThinningKeepsMeansAndOrder) {
  EXPECT_EQ(thin({1, 2, 3}, 5), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(thin({1, 2, 3, 4, 5}, 3), (std::vector<double>{1.5, 3.5, 5}));
  std::vector<double> many(30001, 2.0);
  EXPECT_LE(thin(many, 1000).size(), 1000u);
  EXPECT_EQ(thin(many, 1000).back(), 2.0);
}

}  // namespace
}  // namespace gp
