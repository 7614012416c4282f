#include "pipeline/bench.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/support/expect_contains.hpp"
#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

using namespace std::chrono_literals;
using testing::stage_info;

void wait(std::int64_t microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

/// Takes a while for each image.
class Slow : public TransformStage {
 public:
  explicit Slow(std::int64_t microseconds) : microseconds_(microseconds) {}
  void process(const StageInput&, Rng&, StageOutput& out) const override {
    wait(microseconds_);
    out.pass_through();
  }

 private:
  std::int64_t microseconds_;
};

/// Takes a while for each batch, and remembers what it was given.
class SlowTrainer : public TrainStage {
 public:
  SlowTrainer(std::int64_t microseconds, std::uint32_t epochs)
      : microseconds_(microseconds), epochs_(epochs) {}
  std::uint32_t epochs() const override { return epochs_; }
  void run(EndContext& context) override {
    EXPECT_TRUE(context.run.directory.empty());
    while (const auto batch = context.batches.next()) {
      if (batch->end_of_epoch && batch->epoch + 1 == epochs_) return;
      if (batch->count > 0) wait(microseconds_);
    }
  }
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo&, const std::filesystem::path&) override {
    return nullptr;
  }

 private:
  std::int64_t microseconds_;
  std::uint32_t epochs_;
};

class Bench : public ::testing::Test {
 protected:
  Bench() {
    StageRegistry& registry = loaded_.registry;
    add_built_in_stages(registry);
    registry.add(stage_info("source.fake", Kind::kNothing, Kind::kImage, {}, [](const Params&) {
      return std::make_unique<testing::FakeSource>(40);
    }));
    const auto slow = [](const Params& p) {
      return std::make_unique<Slow>(p.integer("microseconds"));
    };
    const auto microseconds = [] {
      return ParamSchema().integer("microseconds", 0, "how long it takes", 0);
    };
    registry.add(stage_info("image.slow", Kind::kImage, Kind::kImage, microseconds(), slow));
    StageInfo serial = stage_info("image.serial", Kind::kImage, Kind::kImage, microseconds(), slow);
    serial.concurrency = Concurrency::kSerial;
    registry.add(serial);
    StageInfo random = stage_info("augment.slow", Kind::kImage, Kind::kImage, microseconds(), slow);
    random.random = true;
    registry.add(random);
    registry.add(stage_info(
        "train.slow", Kind::kBatch, Kind::kSnapshot,
        microseconds().integer("epochs", 1000, "epochs", 1), [](const Params& p) {
          return std::make_unique<SlowTrainer>(p.integer("microseconds"),
                                               static_cast<std::uint32_t>(p.integer("epochs")));
        }));
  }

  /// Measures a pipeline with these stages between source and batch.
  BenchResult bench(const std::string& stages, const std::string& trainer,
                    const std::string& until = {}, const std::string& run = "threads: 2") {
    loaded_.config = check_config(
        ConfigFile::parse("name: test\nseed: 1\nstages:\n  - {use: source.fake}\n" + stages +
                              "  - {use: batch, size: 8}\n  - {use: train.slow" + trainer +
                              "}\nrun: {device: cpu, max_in_flight: 32, " + run + "}\n",
                          "test.yaml"),
        loaded_.registry);
    Log log;
    log.set_quiet(true);
    const BenchResult result = bench_pipeline(loaded_, {0.3, until}, log);
    EXPECT_GT(result.images, 0U);
    EXPECT_NEAR(result.images_per_second, static_cast<double>(result.images) / result.seconds,
                1e-6 * result.images_per_second);
    for (const StageBench& stage : result.stages) {
      EXPECT_NEAR(stage.busy + stage.starved + stage.blocked, 1, 1e-6) << stage.name;
      EXPECT_GE(std::min({stage.busy, stage.starved, stage.blocked}), -1e-9) << stage.name;
    }
    return result;
  }
  static StageBench of(const BenchResult& result, const std::string& name) {
    for (const StageBench& stage : result.stages) {
      if (stage.name == name) return stage;
    }
    ADD_FAILURE() << "no stage " << name;
    return {};
  }

  LoadedConfig loaded_;
};

TEST_F(Bench, NamesATrainerThatTheDataWaitFor) {
  const BenchResult result = bench("", ", microseconds: 20000");
  EXPECT_EQ(result.bottleneck, "train.slow");
  EXPECT_GT(of(result, "train.slow").busy, 0.9);
  EXPECT_GT(of(result, "source.fake").blocked, 0.9);
  EXPECT_EQ(of(result, "source.fake").starved, 0);
  EXPECT_CONTAINS(result.advice, "'train.slow' is the bottleneck");
  EXPECT_CONTAINS(result.advice, "run.device");
  EXPECT_CONTAINS(result.advice, "the data path could");
}

TEST_F(Bench, NamesTheStageThatTheTrainerWaitsFor) {
  const BenchResult result = bench(
      "  - {use: image.slow, microseconds: 4000}\n  - {use: augment.slow, microseconds: 10}\n", "");
  EXPECT_EQ(result.bottleneck, "image.slow");
  EXPECT_GT(of(result, "train.slow").starved, 0.5);
  EXPECT_GT(of(result, "image.slow").busy, 0.5);
  EXPECT_GT(of(result, "augment.slow").starved, 0.5);
  EXPECT_CONTAINS(result.advice, "'image.slow' is the bottleneck");
  EXPECT_CONTAINS(result.advice, "run.data_threads");
  EXPECT_CONTAINS(result.advice, "gan-prep build");
}

TEST_F(Bench, ARandomStageCannotBeDoneOnce) {
  const BenchResult result = bench("  - {use: augment.slow, microseconds: 4000}\n", "");
  EXPECT_EQ(result.bottleneck, "augment.slow");
  EXPECT_CONTAINS(result.advice, "lower its `p`");
  EXPECT_EQ(result.advice.find("gan-prep"), std::string::npos);
}

TEST_F(Bench, NamesASerialStageThatMoreThreadsWouldNotHelp) {
  const BenchResult result =
      bench("  - {use: image.serial, microseconds: 2000}\n", "", {}, "threads: 4, data_threads: 3");
  EXPECT_EQ(result.bottleneck, "image.serial");
  EXPECT_CONTAINS(result.advice, "one sample at a time");
}

TEST_F(Bench, UntilLeavesOutWhatComesAfter) {
  const std::string stages =
      "  - {use: image.slow, microseconds: 100}\n  - {use: augment.slow, microseconds: 1000}\n";
  const BenchResult cut = bench(stages, "", "image.slow");
  ASSERT_EQ(cut.stages.size(), 2U);
  EXPECT_EQ(cut.stages.back().name, "image.slow");
  EXPECT_EQ(cut.end_threads, 0);
  const BenchResult data = bench(stages, ", microseconds: 100000", "batch");
  EXPECT_EQ(data.stages.back().name, "batch");
  EXPECT_GT(data.images_per_second, 0);
  try {
    bench(stages, "", "image.slo");
    FAIL() << "no such stage";
  } catch (const ConfigError& error) {
    EXPECT_CONTAINS(error.what(), "'image.slo' is no data stage");
    EXPECT_CONTAINS(error.what(), "did you mean 'image.slow'?");
  }
}

TEST_F(Bench, ATrainerThatEndsTooSoonIsAnErrorAndNoNumber) {
  try {
    bench("", ", epochs: 1");
    FAIL() << "too little to measure";
  } catch (const RunError& error) {
    EXPECT_CONTAINS(error.what(), "too little to measure");
    EXPECT_CONTAINS(error.what(), "--until");
  }
}

TEST_F(Bench, JsonHoldsEverythingThatTheTextSays) {
  const BenchResult result = bench("  - {use: image.slow, microseconds: 100}\n", "");
  const auto json = nlohmann::json::parse(to_json(result));
  EXPECT_EQ(json["bottleneck"], result.bottleneck);
  ASSERT_EQ(json["stages"].size(), 4U);
  std::vector<std::string> names;
  for (const auto& stage : json["stages"]) {
    names.push_back(stage["name"]);
    for (const char* key : {"images_per_second", "busy", "starved", "blocked"}) {
      EXPECT_TRUE(stage[key].is_number()) << key;
    }
  }
  EXPECT_EQ(names, (std::vector<std::string>{"source.fake", "image.slow", "batch", "train.slow"}));
  EXPECT_CONTAINS(to_text(result), "image.slow");
  EXPECT_CONTAINS(to_text(result), "starved");
  EXPECT_CONTAINS(to_text(result), result.advice);
}

}  // namespace
}  // namespace gp
