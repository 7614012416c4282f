#include "pipeline/graph.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

using namespace std::chrono_literals;
using testing::Delivered;
using testing::drain;
using testing::FakePipeline;

GraphOptions options(int threads, int batch_size = 8, std::uint32_t epochs = 1) {
  GraphOptions result;
  result.threads = threads;
  result.batch_size = batch_size;
  result.epochs = epochs;
  result.max_in_flight = 64;
  return result;
}

int own_threads() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

// Takes longer for some samples than for others, so that threads overtake each other.
void uneven(const StageInput& in, Rng& rng, StageOutput& out) {
  if (in.sample.key_hash % 5 == 0) std::this_thread::sleep_for(1ms);
  testing::add_noise(in, rng, out);
}

TEST(Graph, BatchesAreByteEqualForOneTwoAndEightThreads) {
  std::vector<Delivered> runs;
  for (const int threads : {1, 2, 8}) {
    FakePipeline pipeline(100, {uneven, testing::add_noise});
    pipeline.source.bad_items = {3, 50, 51};
    runs.push_back(drain(*pipeline.open(options(threads, 8, 3))));
  }
  EXPECT_EQ(runs[0].batches, 3 * 12);
  EXPECT_EQ(runs[0].rejects.size(), 9U);
  for (const Delivered& run : runs) {
    EXPECT_EQ(run.keys, runs[0].keys);
    EXPECT_EQ(run.pixels, runs[0].pixels);
    EXPECT_EQ(run.rejects, runs[0].rejects);
    EXPECT_EQ(run.positions, runs[0].positions);
  }
}

TEST(Graph, EpochsDifferInOrderAndRandomnessAndVisitEveryKeyOnce) {
  FakePipeline pipeline(64, {testing::add_noise});
  const Delivered run = drain(*pipeline.open(options(2, 8, 2)));
  const std::vector<std::string> first(run.keys.begin(), run.keys.begin() + 64);
  const std::vector<std::string> second(run.keys.begin() + 64, run.keys.end());
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<std::string>(first.begin(), first.end()).size(), 64U);
  EXPECT_EQ(std::set<std::string>(second.begin(), second.end()).size(), 64U);
}

TEST(Graph, EveryEpochBalances) {
  const auto drop_some = [](const StageInput& in, Rng& rng, StageOutput& out) {
    if (in.sample.key_hash % 10 == 0) {
      out.drop("on purpose");
    } else {
      testing::add_noise(in, rng, out);
    }
  };
  FakePipeline pipeline(100, {drop_some});
  pipeline.source.bad_items = {1, 2, 3};
  const Delivered run = drain(*pipeline.open(options(2, 8, 2)));
  ASSERT_EQ(run.epochs.size(), 2U);
  for (const EpochCounts& counts : run.epochs) {
    EXPECT_EQ(counts.read, 100U);
    EXPECT_EQ(counts.rejected, 3U);
    EXPECT_GT(counts.dropped_by_stage, 0U);
    EXPECT_EQ(counts.batched % 8, 0U);
    EXPECT_TRUE(counts.balanced());
  }
}

TEST(Graph, KeepLastDeliversThePartialBatch) {
  FakePipeline pipeline(20, {});
  GraphOptions keep = options(2, 8);
  keep.keep_last = true;
  const Delivered run = drain(*pipeline.open(keep, false));
  EXPECT_EQ(run.batches, 3);
  ASSERT_EQ(run.keys.size(), 20U);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(run.keys[i], "item" + std::to_string(i));
    EXPECT_EQ(run.pixels[i * 48], i);
  }
}

TEST(Graph, RejectsAreCommittedInSequenceOrder) {
  FakePipeline pipeline(40, {uneven});
  pipeline.source.bad_items = {5, 9, 13, 30};
  GraphOptions keep = options(8, 8);
  keep.keep_last = true;
  const Delivered run = drain(*pipeline.open(keep, false));
  const std::vector<std::string> expected = {
      "item5|source.fake|item is bad", "item9|source.fake|item is bad",
      "item13|source.fake|item is bad", "item30|source.fake|item is bad"};
  EXPECT_EQ(run.rejects, expected);
  EXPECT_EQ(run.keys.size(), 36U);
}

TEST(Graph, SlowTrainerKeepsLiveSamplesWithinTheLimit) {
  FakePipeline pipeline(400, {testing::add_noise});
  GraphOptions limited = options(4, 8, 2);
  limited.max_in_flight = 24;
  const auto stream = pipeline.open(limited);
  int batches = 0;
  while (const auto batch = stream->next()) {
    std::this_thread::sleep_for(2ms);
    if (batch->count > 0) ++batches;
  }
  EXPECT_EQ(batches, 100);
  EXPECT_LE(stream->peak_live_samples(), 25);
}

TEST(Graph, HeldBatchesHoldTheirCredits) {
  std::atomic<int> processed{0};
  FakePipeline pipeline(1000, {[&](const StageInput& in, Rng& rng, StageOutput& out) {
                          ++processed;
                          testing::add_noise(in, rng, out);
                        }});
  GraphOptions limited = options(2, 8);
  limited.max_in_flight = 24;
  const auto stream = pipeline.open(limited);
  std::vector<std::shared_ptr<const Batch>> held;
  for (int i = 0; i < 3; ++i) held.push_back(stream->next());
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(processed, 24);
  held.clear();
  int batches = 3;
  while (const auto batch = stream->next()) batches += batch->count > 0 ? 1 : 0;
  EXPECT_EQ(batches, 125);
}

TEST(Graph, MoreRejectsInARowThanTheLimitDoNotStall) {
  FakePipeline pipeline(300, {});
  for (std::uint64_t item = 0; item < 250; ++item) pipeline.source.bad_items.insert(item);
  GraphOptions limited = options(2, 8);
  limited.max_in_flight = 16;
  const Delivered run = drain(*pipeline.open(limited, false));
  EXPECT_EQ(run.rejects.size(), 250U);
  EXPECT_EQ(run.batches, 6);
}

TEST(Graph, ThrowingStageEndsTheRunNamingStageAndSample) {
  FakePipeline pipeline(1000,
                        {testing::add_noise, [](const StageInput& in, Rng& rng, StageOutput& out) {
                           if (in.sample.key == "item37") {
                             throw std::runtime_error("lost my marbles");
                           }
                           testing::add_noise(in, rng, out);
                         }});
  for (const int threads : {1, 4}) {
    const auto stream = pipeline.open(options(threads, 8, 100));
    try {
      drain(*stream);
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kRunFailed);
      const std::string text = error.what();
      EXPECT_NE(text.find("fake1"), std::string::npos) << text;
      EXPECT_NE(text.find("item37"), std::string::npos) << text;
      EXPECT_NE(text.find("lost my marbles"), std::string::npos) << text;
    }
  }
}

TEST(Graph, StageThatForgetsItsOutputIsNamed) {
  FakePipeline pipeline(8, {[](const StageInput&, Rng&, StageOutput&) {}});
  const auto stream = pipeline.open(options(1));
  try {
    drain(*stream);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("without an output"), std::string::npos);
  }
}

TEST(Graph, OnErrorStopDeliversWhatCameBefore) {
  for (const int threads : {1, 2, 8}) {
    FakePipeline pipeline(64, {uneven});
    pipeline.source.bad_items = {20};
    GraphOptions stopping = options(threads);
    stopping.policy.stop = true;
    const auto stream = pipeline.open(stopping, false);
    Delivered run;
    try {
      while (const auto batch = stream->next()) take(*batch, run);
      FAIL() << "nothing was thrown";
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find("item20"), std::string::npos);
    }
    EXPECT_EQ(run.keys.size(), 16U);
    EXPECT_EQ(run.rejects.size(), 1U);
  }
}

/// Runs until the policy stops it, and expects that: what came before.
Delivered run_until_stopped(FakePipeline& pipeline, const GraphOptions& policy, bool shuffle) {
  Delivered run;
  const auto stream = pipeline.open(policy, shuffle);
  EXPECT_THROW(while (const auto batch = stream->next()) take(*batch, run), DataError);
  return run;
}

TEST(Graph, RejectBudgetStopsAtTheSameSampleWithAnyThreadCount) {
  for (const int threads : {1, 2, 8}) {
    SCOPED_TRACE(threads);
    FakePipeline pipeline(64, {uneven});
    pipeline.source.bad_items = {10, 20, 30, 40};
    GraphOptions budget = options(threads);
    budget.policy.max_rejects = 2;
    GraphOptions share = options(threads);
    share.policy.max_reject_share = 2.9 / 64;  // of the source's size, not of what was read
    for (const GraphOptions& policy : {budget, share}) {
      const Delivered run = run_until_stopped(pipeline, policy, false);
      EXPECT_EQ(run.rejects.size(), 3U);
      EXPECT_EQ(run.rejects.back().substr(0, 7), "item30|");
      EXPECT_EQ(run.keys.size(), 24U);
    }
    budget.policy.max_rejects = 0;
    EXPECT_EQ(run_until_stopped(pipeline, budget, false).rejects.size(), 1U);
  }
}

TEST(Graph, RejectBudgetFollowsTheShuffledOrder) {
  Delivered first;
  for (const int threads : {1, 2, 8}) {
    SCOPED_TRACE(threads);
    FakePipeline pipeline(200, {uneven});
    for (std::uint64_t item = 0; item < 200; item += 10) pipeline.source.bad_items.insert(item);
    GraphOptions share = options(threads, 8, 3);
    share.policy.max_reject_share = 0.05;
    const Delivered run = run_until_stopped(pipeline, share, true);
    EXPECT_EQ(run.rejects.size(), 11U);  // 10 of 200 are 5 %
    if (threads == 1) first = run;
    EXPECT_EQ(run.rejects, first.rejects);
    EXPECT_EQ(run.keys, first.keys);
    EXPECT_EQ(run.pixels, first.pixels);
  }
}

TEST(Graph, RejectBudgetIsThatOfOneEpoch) {
  for (const int threads : {1, 2, 8}) {
    FakePipeline pipeline(64, {uneven});
    pipeline.source.bad_items = {10, 20};
    GraphOptions budget = options(threads, 8, 4);
    budget.policy.max_rejects = 2;
    GraphOptions share = options(threads, 8, 4);
    share.policy.max_reject_share = 2.0 / 64;  // exactly as many as there are
    for (const GraphOptions& policy : {budget, share}) {
      const Delivered run = drain(*pipeline.open(policy));
      EXPECT_EQ(run.rejects.size(), 8U);
      EXPECT_EQ(run.epochs.size(), 4U);
    }
  }
}

TEST(Graph, RejectBudgetOfAShareIsNotRoundedDown) {
  FakePipeline pipeline(100, {});
  for (std::uint64_t item = 0; item < 29; ++item) pipeline.source.bad_items.insert(item);
  GraphOptions share = options(2);
  share.policy.max_reject_share = 0.29;  // times 100 this is 28.999999999999996
  EXPECT_EQ(drain(*pipeline.open(share)).rejects.size(), 29U);
  pipeline.source.bad_items.insert(50);
  EXPECT_EQ(run_until_stopped(pipeline, share, true).rejects.size(), 30U);
}

TEST(Graph, CancelMidEpochLeavesNoThreadOfOurs) {
  FakePipeline pipeline(100000, {uneven});
  drain(*FakePipeline(8, {}).open(options(4)));  // TBB's own pool has started
  const int before = own_threads();
  for (int i = 0; i < 20; ++i) {
    const auto stream = pipeline.open(options(4, 8, 100));
    ASSERT_NE(stream->next(), nullptr);
    EXPECT_GT(own_threads(), before);
    stream->cancel();
    EXPECT_EQ(stream->next(), nullptr);
  }
  EXPECT_LE(own_threads(), before);
}

TEST(Graph, BatchesMayOutliveTheirStream) {
  FakePipeline pipeline(1000, {testing::add_noise});
  std::shared_ptr<const Batch> batch;
  {
    const auto stream = pipeline.open(options(2));
    batch = stream->next();
  }
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(batch->count, 8);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < batch->count * batch->shape.bytes(); ++i) sum += batch->pixels[i];
  EXPECT_GT(sum, 0U);
}

TEST(Graph, StartsWhereABatchSaidToResume) {
  FakePipeline pipeline(100, {uneven});
  pipeline.source.bad_items = {3, 50, 51};
  const Delivered whole = drain(*pipeline.open(options(2, 8, 3)));
  const StreamPosition after_five = whole.positions[4];
  GraphOptions resumed = options(4, 8, 3);
  resumed.start = after_five;
  const Delivered rest = drain(*pipeline.open(resumed));
  EXPECT_EQ(rest.keys, std::vector<std::string>(whole.keys.begin() + 40, whole.keys.end()));
  EXPECT_EQ(rest.pixels,
            std::vector<std::uint8_t>(whole.pixels.begin() + 40 * 48, whole.pixels.end()));
  EXPECT_EQ(rest.epochs, whole.epochs);  // of the first one, too, the totals
}

TEST(Graph, TheBudgetForRejectsCountsThoseBeforeTheStart) {
  FakePipeline pipeline(100, {});
  for (std::uint64_t item = 0; item < 20; ++item) pipeline.source.bad_items.insert(item);
  const Delivered whole = drain(*pipeline.open(options(2, 8)));
  GraphOptions resumed = options(2, 8);
  resumed.start = whole.positions[5];
  ASSERT_GT(resumed.start.counts.rejected, 0U);
  resumed.policy.max_rejects = 20;
  EXPECT_EQ(drain(*pipeline.open(resumed)).epochs, whole.epochs);
  resumed.policy.max_rejects = 19;
  EXPECT_THROW(drain(*pipeline.open(resumed)), DataError);
}

TEST(Graph, StartingAfterTheLastBatchDeliversTheEndOfTheEpoch) {
  FakePipeline pipeline(16, {});
  const Delivered whole = drain(*pipeline.open(options(2, 8, 2)));
  for (const std::uint32_t epoch : {0U, 1U}) {
    GraphOptions resumed = options(2, 8, 2);
    resumed.start = whole.positions[2 * epoch + 1];
    EXPECT_EQ(resumed.start.next, 16U);
    const auto stream = pipeline.open(resumed);
    const auto end = stream->next();
    ASSERT_NE(end, nullptr);
    EXPECT_TRUE(end->end_of_epoch);
    EXPECT_EQ(end->epoch, epoch);
    EXPECT_EQ(end->counts, whole.epochs[epoch]);
    EXPECT_EQ(drain(*stream).keys,
              std::vector<std::string>(whole.keys.begin() + 16 * (epoch + 1), whole.keys.end()));
  }
}

TEST(Graph, StartingAfterTheLastEpochDeliversNothing) {
  FakePipeline pipeline(16, {});
  GraphOptions done = options(2);
  done.start = {1};
  EXPECT_EQ(pipeline.open(done)->next(), nullptr);
}

TEST(Graph, SerialStageNeverRunsTwiceAtOnce) {
  std::atomic<int> inside{0};
  std::atomic<bool> overlapped{false};
  const auto exclusive = [&](const StageInput& in, Rng& rng, StageOutput& out) {
    if (++inside > 1) overlapped = true;
    std::this_thread::sleep_for(100us);
    testing::add_noise(in, rng, out);
    --inside;
  };
  FakePipeline serial(64, {uneven, exclusive, testing::add_noise},
                      {Concurrency::kUnlimited, Concurrency::kSerial, Concurrency::kUnlimited});
  const Delivered run = drain(*serial.open(options(8)));
  EXPECT_FALSE(overlapped);
  FakePipeline parallel(64, {uneven, testing::add_noise, testing::add_noise});
  EXPECT_EQ(run.pixels, drain(*parallel.open(options(1))).pixels);
}

TEST(Graph, ImagesWithoutOneSizeAreRefused) {
  class Shapeless : public testing::FakeSource {
   public:
    using FakeSource::FakeSource;
    ImageShape output_shape() const override { return {}; }
  };
  const Shapeless source(8);
  const TransformChain chain(source, "source.fake", {}, 1);
  EXPECT_THROW(
      GraphStream(source, chain, std::make_shared<SampleOrder>(source, 1, true), options(1)),
      ConfigError);
}

/// Images of 1x1 to 3x4 pixels; three neighbours have the same shape.
class MixedSource : public testing::FakeSource {
 public:
  using FakeSource::FakeSource;
  static ImageShape shape(std::uint64_t item) {
    return {static_cast<int>(1 + item / 3 % 3), static_cast<int>(1 + item / 9 % 4)};
  }
  ImageShape output_shape() const override { return {}; }
  void read(std::uint64_t item, StageOutput& out) const override {
    if (bad_items.count(item) > 0) throw SampleError("item is bad");
    if (item % 5 == 0) std::this_thread::sleep_for(1ms);  // threads overtake each other
    const ImageView image = out.image(shape(item).height, shape(item).width);
    std::memset(image.data, static_cast<int>(item % 251), shape(item).bytes());
  }
};

TEST(Graph, ABatchOfMixedShapesEndsWhereTheShapeChanges) {
  std::vector<Delivered> runs;
  for (const int threads : {1, 2, 8}) {
    MixedSource source(60);
    source.bad_items = {4, 5, 9, 59};
    const TransformChain chain(source, "source.fake", {}, 1);
    GraphOptions mixed = options(threads, 2);
    mixed.keep_last = true;
    mixed.mixed_shapes = true;
    mixed.max_in_flight = 4;
    GraphStream stream(source, chain, std::make_shared<SampleOrder>(source, 1, false), mixed);
    Delivered run;
    while (const auto batch = stream.next()) {
      testing::take(*batch, run);
      EXPECT_LE(batch->count, 2);
      for (int i = 0; i < batch->count; ++i) {
        const std::uint64_t item = std::stoull(batch->keys[static_cast<std::size_t>(i)].substr(4));
        EXPECT_EQ(batch->shape, MixedSource::shape(item));
        EXPECT_EQ(batch->image(i).row(batch->shape.height - 1)[batch->shape.width * 3 - 1], item);
      }
    }
    runs.push_back(std::move(run));
  }
  EXPECT_EQ(runs[0].keys.size(), 56U);
  EXPECT_TRUE(std::is_sorted(runs[0].positions.begin(), runs[0].positions.end(),
                             [](auto a, auto b) { return a.next < b.next; }));
  // {0, 1} {2} {3} {6, 7} {8} {10, 11}; item 9 was read before the batch of 8 ended.
  std::vector<std::uint64_t> ends;
  for (int i = 0; i < 6; ++i) ends.push_back(runs[0].positions[i].next);
  EXPECT_EQ(ends, (std::vector<std::uint64_t>{2, 3, 6, 8, 10, 12}));
  for (const Delivered& run : runs) {
    EXPECT_EQ(run.keys, runs[0].keys);
    EXPECT_EQ(run.pixels, runs[0].pixels);
    EXPECT_EQ(run.rejects, runs[0].rejects);
    EXPECT_EQ(run.positions, runs[0].positions);
    ASSERT_EQ(run.epochs.size(), 1U);
    EXPECT_EQ(run.epochs[0].batched, 56U);
  }
}

TEST(Graph, MixedShapesOfOneShapeAreBatchedAsEver) {
  FakePipeline plain(20, {testing::add_noise}), mixed(20, {testing::add_noise});
  GraphOptions both = options(2, 8);
  const Delivered expected = drain(*plain.open(both));
  both.mixed_shapes = true;
  const auto stream = mixed.open(both);
  const Delivered found = drain(*stream);
  EXPECT_EQ(found.pixels, expected.pixels);
  EXPECT_EQ(found.positions, expected.positions);
  EXPECT_LE(stream->peak_live_samples(), both.max_in_flight + 1);
}

TEST(Batcher, LargeImagesHaveABatchOfTheirOwn) {
  const ImageShape shape{3000, 4000};  // 36 MB: two are more than kLargestMixedBatch
  Batcher::Options mixed;
  mixed.batch_size = 8;
  mixed.keep_last = true;
  mixed.mixed_shapes = true;
  std::vector<int> counts;
  Batcher batcher(
      mixed, std::make_shared<SlabPool>(0),
      [&](const std::shared_ptr<Batch>& batch) { counts.push_back(batch->count); }, [](int) {});
  for (std::uint64_t i = 0; i < 3; ++i) {
    const auto sample = std::make_shared<Sample>();
    sample->position = i;
    sample->ends_epoch = i == 2;
    sample->image = Image(shape.height, shape.width);
    batcher.add(sample);
  }
  EXPECT_EQ(counts, (std::vector<int>{1, 1, 1, 0}));
}

// A credit that comes back while the graph ends must not start a task that outlives its nodes.
TEST(Graph, BatchesMayBeReleasedWhileTheStreamEnds) {
  for (int i = 0; i < 300; ++i) {
    FakePipeline pipeline(64, {});
    auto stream = pipeline.open(options(2, 4, 1000));
    std::vector<std::shared_ptr<const Batch>> held;
    for (int k = 0; k < 12; ++k) held.push_back(stream->next());
    std::thread releases([&held] {
      for (auto& batch : held) batch.reset();
    });
    if (i % 2 == 0) stream->cancel();
    stream.reset();
    releases.join();
  }
}

}  // namespace
}  // namespace gp
