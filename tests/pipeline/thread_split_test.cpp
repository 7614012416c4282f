#include "pipeline/thread_split.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "pipeline/graph_builder.hpp"
#include "pipeline/log.hpp"
#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

using testing::stage_info;

TEST(ThreadSplit, FollowsTheEndWhereNothingWasMeasured) {
  EXPECT_EQ(split_threads(8, true, false).data, 8);
  EXPECT_EQ(split_threads(2, false, false).data, 1);
  EXPECT_EQ(split_threads(2, false, false).end, 2);
  EXPECT_EQ(split_threads(16, false, false).data, 2);
  EXPECT_EQ(split_threads(8, false, true).data, 7);
  EXPECT_EQ(split_threads(1, false, true).data, 1);
  EXPECT_GE(split_threads(0, true, false).data, 1);
}

TEST(ThreadSplit, CheapDataAreMadeBesideTheTrainer) {
  const ThreadSplit split =
      split_by_rates(16, {1000, 1500});  // 1.5 threads' worth, 1.9 with margin
  EXPECT_EQ(split.data, 2);
  EXPECT_EQ(split.end, 16);
  EXPECT_EQ(split_by_rates(2, {4000, 400}).end, 2);
}

TEST(ThreadSplit, ExpensiveDataGetTheShareOfTheThreadsThatTheyNeed) {
  // An image costs 1/1000 of a thread's second in the graph and 16/16000 in the trainer: half each.
  const ThreadSplit half = split_by_rates(16, {1000, 16000});
  EXPECT_EQ(half.data, 8);
  EXPECT_EQ(half.end, 8);
  // However expensive the data are, the trainer keeps a thread, and the other way round.
  EXPECT_EQ(split_by_rates(4, {1, 100000}).end, 1);
  EXPECT_EQ(split_by_rates(4, {1, 100000}).data, 3);
  EXPECT_EQ(split_by_rates(1, {1, 100000}).data, 1);
  EXPECT_EQ(split_by_rates(1, {1, 100000}).end, 1);
}

/// Says that it trains at a rate, and that it was asked.
class RatedTrainer : public TrainStage {
 public:
  explicit RatedTrainer(double rate) : rate_(rate) {}
  void run(EndContext&) override {}
  double measure_rate(const RunInfo& run, const StreamInfo& stream) override {
    EXPECT_EQ(run.threads, static_cast<int>(std::thread::hardware_concurrency()));
    EXPECT_EQ(stream.batch_size, 4);
    return rate_;
  }
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo&, const std::filesystem::path&) override {
    return nullptr;
  }

 private:
  double rate_;
};

class ChooseThreads : public ::testing::Test {
 protected:
  ThreadSplit choose(const std::string& run, double trainer_rate, Calibration* rates = nullptr) {
    StageRegistry registry;
    add_built_in_stages(registry);
    registry.add(stage_info("source.fake", Kind::kNothing, Kind::kImage,
                            ParamSchema().integer("bad", -1, "item"), [](const Params& p) {
                              auto source = std::make_unique<testing::FakeSource>(100);
                              if (p.integer("bad") >= 0) source->bad_items.insert(p.integer("bad"));
                              return source;
                            }));
    registry.add(stage_info(
        "train.fake", Kind::kBatch, Kind::kSnapshot, {},
        [trainer_rate](const Params&) { return std::make_unique<RatedTrainer>(trainer_rate); }));
    const Config config = check_config(
        ConfigFile::parse("name: test\nseed: 1\nstages:\n  - {use: source.fake" + source_ +
                              "}\n  - {use: batch, size: 4}\n  - {use: train.fake}\nrun: {device: "
                              "cpu, max_in_flight: 64, " +
                              run + "}\n",
                          "test.yaml"),
        registry);
    Log log;
    log.set_quiet(true);
    Pipeline pipeline(config);
    const ThreadSplit split = choose_threads(pipeline, log, rates);
    EXPECT_EQ(pipeline.data().chain->totals().front().samples, 0U);  // nothing of it is counted
    return split;
  }
  std::string source_;
};

TEST_F(ChooseThreads, MeasuresBothWhereTheNumbersAreAuto) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one processor leaves no choice";
  Calibration rates;
  const ThreadSplit split = choose("threads: auto", 10, &rates);
  EXPECT_EQ(rates.trainer, 10);
  EXPECT_GT(rates.data, 100);  // images of 4x4 that cost nothing
  EXPECT_EQ(split.end, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_EQ(split.data, 1);
}

TEST_F(ChooseThreads, NumbersThatAreGivenAreNotMeasured) {
  Calibration rates;
  EXPECT_EQ(choose("threads: 16", 10, &rates).data, 2);
  EXPECT_EQ(rates.trainer, 0);
  const ThreadSplit split = choose("threads: 8, data_threads: 3", 10, &rates);
  EXPECT_EQ(split.data, 3);
  EXPECT_EQ(split.end, 5);
  EXPECT_EQ(choose("threads: 8, data_threads: 1", 10).end, 8);
  EXPECT_EQ(choose("threads: 2, data_threads: 6", 10).end, 1);
}

TEST_F(ChooseThreads, WhatTheTrainerCannotSayAndBadDataLeaveTheRule) {
  Calibration rates;
  const int total = static_cast<int>(std::thread::hardware_concurrency());
  EXPECT_EQ(choose("threads: auto", 0, &rates).end, total);
  EXPECT_EQ(rates.data, 0);
  source_ = ", bad: 3, on_error: stop";  // the run will say so
  EXPECT_EQ(choose("threads: auto", 10, &rates).end, total);
}

}  // namespace
}  // namespace gp
