#include "pipeline/graph_builder.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "pipeline/files.hpp"
#include "pipeline/graph_text.hpp"
#include "pipeline/runner.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::Delivered;
using testing::drain;
using testing::stage_info;

/// What the fake trainer of a test saw and is told to do.
struct Probe {
  Delivered trained;
  std::vector<int> batch_sizes;
  std::vector<int> widths;
  std::vector<Phase> schedule;
  std::vector<std::vector<std::string>> evaluated;
  std::size_t evaluations_heard = 0;  ///< when the trainer has told of its last epoch
  std::string run_name;
};

class Fill : public TransformStage {
 public:
  explicit Fill(int size) : size_(size) {}
  void process(const StageInput& in, Rng&, StageOutput& out) const override {
    const ImageView image = out.image(size_, size_);
    for (int y = 0; y < size_; ++y) std::memset(image.row(y), in.image.data[0], size_ * 3UL);
  }
  ImageShape output_shape(ImageShape) const override { return {size_, size_}; }

 private:
  int size_;
};

class FakeSnapshot : public Snapshot {
 public:
  std::uint64_t step() const override { return 1; }
  std::uint32_t epoch() const override { return 1; }
  std::uint64_t images() const override { return 1; }
  ImageShape shape() const override { return {4, 4}; }
  std::vector<std::uint8_t> generate(std::uint64_t, std::uint64_t, int) override { return {}; }
  std::vector<float> discriminate(const std::uint8_t*, const std::int32_t*, int) override {
    return {};
  }
};

class FakeTrainer : public TrainStage {
 public:
  FakeTrainer(Probe& probe, std::uint32_t epochs) : probe_(probe), epochs_(epochs) {}
  void run(EndContext& context) override {
    probe_.run_name = context.run.name;
    std::uint32_t done = 0;
    while (const auto batch = context.batches.next()) {
      take(*batch, probe_.trained);
      if (batch->count > 0) {
        probe_.batch_sizes.push_back(batch->count);
        probe_.widths.push_back(batch->shape.width);
      }
      if (batch->end_of_epoch) {
        ++done;
        context.epoch_done(done, done == epochs_, [] { return std::make_unique<FakeSnapshot>(); });
        if (done == epochs_) probe_.evaluations_heard = probe_.evaluated.size();
      }
      if (context.stop.stop_requested()) return;
    }
  }
  std::uint32_t epochs() const override { return epochs_; }
  std::vector<Phase> schedule() const override { return probe_.schedule; }
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo&, const fs::path&) override {
    return std::make_unique<FakeSnapshot>();
  }

 private:
  Probe& probe_;
  std::uint32_t epochs_;
};

class FakeEvaluator : public EvaluateStage {
 public:
  FakeEvaluator(Probe& probe, const Params& params) : probe_(probe), params_(params) {}
  void check(const StreamInfo& stream, StreamFactory& streams) const override {
    if (!params_.has("held_out")) return;
    const StreamInfo held_out = streams.info(params_.overrides("held_out"));
    if (held_out.source_size > stream.source_size) throw DataError("more held out than trained");
  }
  bool due(std::uint32_t epochs_done, bool last) const override {
    return last || epochs_done % 2 == 0;
  }
  bool blocking() const override { return params_.flag("blocking"); }
  std::string evaluate(Snapshot&, EvaluateContext& context) override {
    // Training that does not wait is done with everything by then.
    if (!blocking()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto& overrides = params_.has("held_out") ? params_.overrides("held_out")
                                                    : std::map<std::string, std::string>{};
    probe_.evaluated.push_back(drain(*context.streams.open(overrides, 8)).keys);
    return nlohmann::json{{"n", probe_.evaluated.back().size()}}.dump();
  }

 private:
  Probe& probe_;
  Params params_;
};

class GraphBuilder : public ::testing::Test {
 protected:
  void SetUp() override {
    StageRegistry& registry = loaded_.registry;
    add_built_in_stages(registry);
    registry.add(
        stage_info("source.fake", Kind::kNothing, Kind::kImage,
                   ParamSchema().integer("count", 40, "images", 0).integer("bad", -1, "bad"),
                   [](const Params& p) {
                     auto source = std::make_unique<testing::FakeSource>(p.integer("count"));
                     if (p.integer("bad") >= 0)
                       source->bad_items = {static_cast<std::uint64_t>(p.integer("bad"))};
                     return source;
                   }));
    registry.add(stage_info("image.fill", Kind::kImage, Kind::kImage,
                            ParamSchema().integer("size", 4, "side", 1, 64), [](const Params& p) {
                              return std::make_unique<Fill>(static_cast<int>(p.integer("size")));
                            }));
    StageInfo noise = stage_info(
        "augment.noise", Kind::kImage, Kind::kImage, {},
        [](const Params&) { return std::make_unique<testing::FakeTransform>(testing::add_noise); });
    noise.random = true;
    registry.add(noise);
    registry.add(stage_info("train.fake", Kind::kBatch, Kind::kSnapshot,
                            ParamSchema().integer("epochs", 2, "epochs", 1),
                            [this](const Params& p) {
                              return std::make_unique<FakeTrainer>(
                                  probe_, static_cast<std::uint32_t>(p.integer("epochs")));
                            }));
    registry.add(
        stage_info("evaluate.fake", Kind::kSnapshot, Kind::kNothing,
                   ParamSchema()
                       .overrides("held_out", "other source parameters")
                       .flag("blocking", true, "training waits"),
                   [this](const Params& p) { return std::make_unique<FakeEvaluator>(probe_, p); }));
  }

  void load(const std::string& yaml) {
    loaded_.config = check_config(ConfigFile::parse(yaml, "test.yaml"), loaded_.registry);
  }
  void run(const RunRequest& request = {{}, 0, {}}) {
    Log log;
    log.set_quiet(true);
    directory_ = run_pipeline(loaded_, request, log);
  }

  static std::string refusal_of(const std::function<void()>& start) {
    try {
      start();
    } catch (const ConfigError& error) {
      return error.what();
    } catch (const Error& error) {
      return "no ConfigError: " + std::string(error.what());
    }
    return "nothing was thrown";
  }

  Probe probe_;
  LoadedConfig loaded_;
  fs::path directory_;
};

const std::string kStages = R"(
name: test
seed: 5
stages:
  - {use: source.fake, count: 40}
  - {use: image.fill, size: 4}
  - {use: augment.noise}
  - {use: batch, size: 8}
)";

TEST_F(GraphBuilder, RunsTheTrainerOverItsEpochs) {
  load(kStages + "  - {use: train.fake, epochs: 3}\n");
  run();
  EXPECT_EQ(probe_.run_name, "test");
  EXPECT_EQ(probe_.batch_sizes, std::vector<int>(15, 8));
  EXPECT_EQ(probe_.trained.epochs.size(), 3U);
}

TEST_F(GraphBuilder, EvaluationSeesFileOrderWithoutRandomStages) {
  load(kStages + "  - {use: train.fake, epochs: 3}\n  - {use: evaluate.fake}\n");
  run();
  ASSERT_EQ(probe_.evaluated.size(), 2U);  // after epoch 2, and after the last
  ASSERT_EQ(probe_.evaluated[0].size(), 40U);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(probe_.evaluated[0][i], "item" + std::to_string(i));
  }
  Pipeline pipeline(loaded_.config);
  const Delivered plain = drain(*pipeline.open({}, 8));
  EXPECT_EQ(plain.pixels[5 * 48], 5);  // no noise
  const Delivered fewer = drain(*pipeline.open({{"count", "10"}}, 8));
  EXPECT_EQ(fewer.keys.size(), 10U);
  EXPECT_NE(pipeline.info({}).data_digest, pipeline.info({{"count", "10"}}).data_digest);
  EXPECT_EQ(pipeline.info({{"count", "10"}}).source_size, 10U);
  EXPECT_THROW(pipeline.info({{"cuont", "10"}}), ConfigError);
}

TEST_F(GraphBuilder, HeldOutFractionIsLeftOutOfTraining) {
  load(kStages +
       "  - {use: train.fake, epochs: 1}\n  - {use: evaluate.fake, held_out: {fraction: 0.3}}\n");
  run();
  ASSERT_EQ(probe_.evaluated.size(), 1U);
  const std::set<std::string> held_out(probe_.evaluated[0].begin(), probe_.evaluated[0].end());
  EXPECT_GT(held_out.size(), 3U);
  EXPECT_LT(held_out.size(), 25U);
  for (const std::string& key : probe_.trained.keys) EXPECT_EQ(held_out.count(key), 0U);
  EXPECT_EQ(probe_.trained.epochs[0].read + held_out.size(), 40U);
}

TEST_F(GraphBuilder, TheLastEpochIsDoneWhenItsEvaluationIs) {
  load(kStages + "  - {use: train.fake}\n  - {use: evaluate.fake, blocking: false}\n");
  run();
  EXPECT_EQ(probe_.evaluations_heard, 1U);
}

TEST_F(GraphBuilder, ScheduleStartsANewGraphWhereTheLastBatchEnded) {
  probe_.schedule = {{16, {{"image.fill.size", "2"}, {"batch.size", "4"}}},
                     {24, {{"image.fill.size", "4"}}},
                     {0, {{"image.fill.size", "8"}}}};
  load(kStages + "  - {use: train.fake, epochs: 2}\n");
  run();
  const std::vector<int> sizes = {4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8};
  EXPECT_EQ(probe_.batch_sizes, sizes);
  EXPECT_EQ(probe_.widths, (std::vector<int>{2, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8}));
  // Nothing lost, nothing twice: both epochs hold every key once.
  for (int epoch = 0; epoch < 2; ++epoch) {
    const auto begin = probe_.trained.keys.begin() + 40 * epoch;
    EXPECT_EQ(std::set<std::string>(begin, begin + 40).size(), 40U);
  }
  Probe plain;
  std::swap(probe_.schedule, plain.schedule);
  const std::vector<std::string> with_phases = probe_.trained.keys;
  probe_ = {};
  run();
  EXPECT_EQ(with_phases, probe_.trained.keys);
}

TEST_F(GraphBuilder, APhaseShorterThanTheBatchBeforeIsOverBeforeItBegins) {
  probe_.schedule = {{3, {{"image.fill.size", "2"}}},
                     {3, {{"image.fill.size", "4"}}},
                     {10, {{"image.fill.size", "8"}}},
                     {0, {{"image.fill.size", "16"}}}};
  load(kStages + "  - {use: train.fake, epochs: 1}\n");
  run();
  // 8 images are the first two phases and 2 of the third one's 10.
  EXPECT_EQ(probe_.widths, (std::vector<int>{2, 8, 16, 16, 16}));
}

TEST_F(GraphBuilder, ScheduleIsCheckedBeforeAnythingRuns) {
  probe_.schedule = {{16, {}}, {0, {{"image.fill.size", "9999"}}}};
  load(kStages + "  - {use: train.fake, epochs: 2}\n");
  EXPECT_THROW(run(), ConfigError);
  EXPECT_TRUE(probe_.trained.keys.empty());
  const auto expect_refusal = [this](const char* what) {
    EXPECT_CONTAINS(refusal_of([this] { run(); }), what);
    EXPECT_TRUE(probe_.trained.keys.empty());
  };
  probe_.schedule = {{16, {{"image.nothing.size", "3"}}}};
  expect_refusal(
      "test.yaml:9:11: the schedule of 'train.fake' sets 'image.nothing.size', and that is no "
      "parameter of a stage; expected STAGE.PARAMETER, such as image.resize.size, of one of "
      "source.fake, image.fill, ");
  EXPECT_CONTAINS(refusal_of([this] { try_stages(loaded_.config); }), "sets 'image.nothing.size'");
  probe_.schedule = {{16, {{"image.fill.size", "2"}}, {3, 3}}};
  expect_refusal(
      "test.yaml:9:11: the schedule of 'train.fake' has a phase of images of 3x3, and with "
      "image.fill.size = 2 they are 2x2");
  EXPECT_EQ(refusal_of([this] { try_stages(loaded_.config); }), "nothing was thrown");
  probe_.schedule = {{16, {{"batch.size", "200"}}}};
  expect_refusal("has batches of 200, and with prefetch 2 they need run: {max_in_flight: 600}");
}

TEST_F(GraphBuilder, ABatchOfAPhaseThatTheSourceCannotFillIsRefused) {
  probe_.schedule = {{16, {}}, {0, {{"batch.size", "41"}}}};
  load(kStages + "  - {use: train.fake, epochs: 2}\n");
  EXPECT_THROW(run(), DataError);
  EXPECT_TRUE(probe_.trained.keys.empty());
  load(
      "stages:\n  - {use: source.fake}\n  - {use: image.fill}\n"
      "  - {use: batch, size: 8, last: keep}\n  - {use: train.fake, epochs: 2}\n");
  run();
  EXPECT_EQ(probe_.batch_sizes, (std::vector<int>{8, 8, 24, 40}));
}

TEST_F(GraphBuilder, EvaluatorsCheckTheirDataBeforeAnythingRuns) {
  load(kStages + "  - {use: train.fake}\n  - {use: evaluate.fake, held_out: {count: 41}}\n");
  try {
    run();
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kData);
    EXPECT_STREQ(error.what(), "test.yaml:10:11: 'evaluate.fake': more held out than trained");
  }
  EXPECT_TRUE(probe_.trained.keys.empty());
  EXPECT_THROW(dry_run(loaded_), Error);
}

TEST_F(GraphBuilder, ImagesOfDifferentSizesAreRefusedWhereOneSizeIsNeeded) {
  StageInfo photos = stage_info(
      "source.photos", Kind::kNothing, Kind::kImage, {},
      [](const Params&) { return std::make_unique<testing::FakeSource>(40, ImageShape{}); });
  loaded_.registry.add(photos);
  load("stages:\n  - {use: source.photos}\n  - {use: batch, size: 8}\n  - {use: train.fake}\n");
  const std::string refused = refusal_of([this] { run(); });
  EXPECT_NE(refused.find("test.yaml:4:11: 'train.fake': takes images of one size"),
            std::string::npos)
      << refused;
  EXPECT_EQ(refusal_of([this] { dry_run(loaded_); }), refused);
}

TEST_F(GraphBuilder, WhatNamesResultsTellsWhichCodeAStageIs) {
  StageInfo made_elsewhere = *loaded_.registry.find("image.fill");
  made_elsewhere.name = "image.other";
  made_elsewhere.identity = "other 1.0.0, SHA-256 00";
  loaded_.registry.add(made_elsewhere);
  load(
      "stages:\n  - {use: source.fake}\n  - {use: image.other}\n"
      "  - {use: batch, size: 8}\n  - {use: train.fake}\n");
  const Pipeline before(loaded_.config);
  EXPECT_NE(before.preprocessing().find("image.other {size: 4} [other 1.0.0, SHA-256 00]\n"),
            std::string::npos)
      << before.preprocessing();
  EXPECT_NE(before.preprocessing().find("source.fake {count: 40, bad: -1}\n"), std::string::npos)
      << before.preprocessing();
  StageInfo changed = made_elsewhere;
  changed.identity = "other 1.0.0, SHA-256 01";
  Config config = loaded_.config;
  config.stages[1].info = &changed;
  EXPECT_NE(Pipeline(config).data().digest, before.data().digest);
}

TEST_F(GraphBuilder, FewerSamplesThanABatchAreRefused) {
  load(R"(
stages:
  - {use: source.fake, count: 5}
  - {use: batch, size: 8}
  - {use: train.fake}
)");
  try {
    run();
    FAIL() << "nothing was thrown";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("5 samples"), std::string::npos) << error.what();
  }
}

TEST_F(GraphBuilder, ARunDirectoryHoldsWhatTheRunWas) {
  const fs::path parent = fs::temp_directory_path() / ("gp_runs_" + std::to_string(::getpid()));
  load(kStages + "  - {use: train.fake, epochs: 2}\n  - {use: evaluate.fake}\n");
  RunRequest request;
  request.out = parent;
  run(request);
  EXPECT_EQ(directory_.filename(), "00000-test");
  const auto record = nlohmann::json::parse(read_text(directory_ / "run.json"));
  EXPECT_EQ(record["seed"], 5);
  EXPECT_EQ(record["data"]["digest"], "fake");
  EXPECT_EQ(read_text(directory_ / "evaluation.jsonl"), "{\"n\":40,\"stage\":\"evaluate.fake\"}\n");
  // The resolved configuration runs as it is, with the same batches.
  const auto keys = probe_.trained.keys;
  probe_ = {};
  load(read_text(directory_ / "config.yaml"));
  run(request);
  EXPECT_EQ(directory_.filename(), "00001-test");
  EXPECT_EQ(probe_.trained.keys, keys);
  fs::remove_all(parent);
}

TEST_F(GraphBuilder, AStopEndsAsInterrupted) {
  load(kStages + "  - {use: train.fake, epochs: 1000}\n");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(run({{}, 0, stop.get_token()}), InterruptedError);
  EXPECT_LE(probe_.trained.batches, 1);
}

TEST_F(GraphBuilder, DryRunTakesOneSampleThrough) {
  load(kStages + "  - {use: train.fake}\n");
  const std::string text = dry_run(loaded_);
  EXPECT_NE(text.find("image.fill: 4x4"), std::string::npos) << text;
  EXPECT_NE(text.find("augment.noise: 4x4"), std::string::npos) << text;
  EXPECT_NE(text.find("use: source.fake"), std::string::npos) << text;
  EXPECT_TRUE(probe_.trained.keys.empty());
}

TEST_F(GraphBuilder, DrawsTheGraph) {
  load(kStages + "  - {use: train.fake}\n  - {use: evaluate.fake}\n");
  const std::string mermaid = graph_to_mermaid(loaded_.config);
  for (const char* part :
       {"oneTBB flow graph, at most 512 samples in flight", "s0 -->|\"image\"| s1",
        "one task a sample, on any data thread", "s4[\"train.fake<br/>own thread\"]",
        "s4 -->|\"snapshot\"| s5", "s4 -.->|\"512 credits\"| s0", "]:::random"}) {
    EXPECT_NE(mermaid.find(part), std::string::npos) << part << " in\n" << mermaid;
  }
  const std::string dot = graph_to_dot(loaded_.config);
  for (const char* part : {"s4 -> s5 [label=\"snapshot\"]", "style=dashed", "cluster_task0",
                           "s4 -> s0 [label=\"512 credits\", style=dotted"}) {
    EXPECT_NE(dot.find(part), std::string::npos) << part << " in\n" << dot;
  }
}

}  // namespace
}  // namespace gp
