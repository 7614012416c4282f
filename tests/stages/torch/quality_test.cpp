#include "stages/torch/quality.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/common/png.hpp"
#include "stages/torch/bootstrap.hpp"
#include "stages/torch/frechet.hpp"
#include "stages/torch/inception_score.hpp"
#include "stages/torch/kernel_distance.hpp"
#include "stages/torch/pair_share.hpp"
#include "stages/torch/precision_recall.hpp"
#include "stages/torch/stages.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

using Json = nlohmann::json;
using Overrides = QualityOptions::Overrides;

constexpr ImageShape kShape{2, 3};

/// An image whose features and logit are a function of its number.
std::vector<std::uint8_t> make_image(std::uint64_t number) {
  std::vector<std::uint8_t> pixels(kShape.bytes());
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>(mix64(number * 64 + i));
  }
  return pixels;
}
std::vector<std::uint8_t> make_images(std::uint64_t first, int count) {
  std::vector<std::uint8_t> pixels;
  for (int i = 0; i < count; ++i) {
    const auto image = make_image(first + static_cast<std::uint64_t>(i));
    pixels.insert(pixels.end(), image.begin(), image.end());
  }
  return pixels;
}
float logit_of(const std::uint8_t* image) { return static_cast<float>(image[0]) - 100; }

/// Three features: the image's first three bytes.
class FakeExtractor : public FeatureExtractor {
 public:
  explicit FakeExtractor(int* images, std::string digest = "weights-1", bool classes = false)
      : images_(images), digest_(std::move(digest)), classes_(classes) {}
  std::string name() const override { return "fake"; }
  std::string distance() const override { return "FD-Fake"; }
  int dimensions() const override { return 3; }
  std::string digest() const override { return digest_; }
  std::map<std::string, std::string> protocol() const override { return {{"resize", "none"}}; }
  void to(at::Device) override {}
  at::Device device() const override { return at::kCPU; }
  at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) override {
    *images_ += count;
    at::Tensor result = at::empty({count, 3});
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < 3; ++j) {
        result[i][j] = images[static_cast<std::size_t>(i) * shape.bytes() + j];
      }
    }
    return result;
  }
  at::Tensor unbiased_logits(const at::Tensor& features) const override {
    return classes_ ? features / 64 : at::Tensor();
  }

 private:
  int* images_;
  std::string digest_;
  bool classes_;
};

/// Fakes are the images from 1,000,000 + seed on.
class FakeSnapshot : public Snapshot {
 public:
  std::uint64_t step() const override { return 1570; }
  std::uint32_t epoch() const override { return 10; }
  std::uint64_t images() const override { return 100480; }
  ImageShape shape() const override { return kShape; }
  std::vector<std::uint8_t> generate(std::uint64_t seed, std::uint64_t first, int count) override {
    generated.emplace_back(first, count);
    return make_images(1'000'000 + seed + first, count);
  }
  std::vector<float> discriminate(const std::uint8_t* images, const std::int32_t* /*labels*/,
                                  int count) override {
    if (on_discriminate) on_discriminate();
    asked.insert(asked.end(), images, images + count * kShape.bytes());
    std::vector<float> logits;
    for (int i = 0; i < count; ++i) logits.push_back(logit_of(images + i * kShape.bytes()));
    return logits;
  }
  std::string digest() const override { return "snapshot-digest"; }

  std::vector<std::pair<std::uint64_t, int>> generated;
  std::function<void()> on_discriminate;
  std::vector<std::uint8_t> asked;  ///< all images, as discriminate() got them
};

/// Image numbers `first`.. by the value of the override "split".
class FakeStreams : public StreamFactory {
 public:
  struct Data {
    std::uint64_t first = 0;
    int count = 0;
    std::string digest;
    ImageShape shape = kShape;
    int rejects = 0;
  };
  std::unique_ptr<BatchStream> open(const Overrides& overrides, int batch_size) override {
    const Data& chosen = find(overrides);
    ++opened;
    std::vector<std::shared_ptr<const Batch>> batches;
    for (int i = 0; i < chosen.count; i += batch_size) {
      auto batch = std::make_shared<Batch>();
      batch->shape = chosen.shape;
      batch->count = std::min(batch_size, chosen.count - i);
      const auto pixels = make_images(chosen.first + static_cast<std::uint64_t>(i), batch->count);
      std::shared_ptr<std::uint8_t[]> memory(new std::uint8_t[pixels.size() * 4]);
      std::memcpy(memory.get(), pixels.data(), pixels.size());
      batch->pixels = memory;
      batch->labels.assign(static_cast<std::size_t>(batch->count), -1);
      batches.push_back(batch);
    }
    auto end = std::make_shared<Batch>();
    end->end_of_epoch = true;
    for (int i = 0; i < chosen.rejects; ++i) end->rejects.push_back({"bad", "decode", "broken"});
    batches.push_back(end);
    return std::make_unique<VectorBatchStream>(std::move(batches));
  }
  StreamInfo info(const Overrides& overrides) override {
    const Data& chosen = find(overrides);
    StreamInfo info;
    info.shape = chosen.shape;
    info.source_size = static_cast<std::uint64_t>(chosen.count);
    info.data_digest = chosen.digest;
    return info;
  }
  const Data& find(const Overrides& overrides) const {
    const auto split = overrides.find("split");
    return data.at(split == overrides.end() ? "" : split->second);
  }

  std::map<std::string, Data> data = {
      {"", {0, 50, "train-1"}}, {"test", {5000, 33, "test-1"}}, {"tiny", {0, 1, "tiny-1"}}};
  int opened = 0;
};

class QualityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log_.set_quiet(true);
    log_.open(folder_.path() / "log.txt");
    run_.device = "cpu";
    options_.n_fake = 40;
    options_.batch = 16;
    options_.seed = 7;
  }
  std::string logged() const { return read_text(folder_.path() / "log.txt"); }

  std::string evaluate_text(const std::string& weights = "weights-1") {
    QualityStage stage(options_, std::make_unique<FakeExtractor>(&extracted_, weights, classes_));
    EvaluateContext context{run_, streams_, log_, stop_.get_token(), skipped_};
    extracted_ = 0;
    streams_.opened = 0;
    return stage.evaluate(snapshot_, context);
  }
  Json evaluate(const std::string& weights = "weights-1") {
    return Json::parse(evaluate_text(weights));
  }

  static double accuracy(std::uint64_t first, int count, bool real) {
    int right = 0;
    for (int i = 0; i < count; ++i) {
      const float logit = logit_of(make_image(first + static_cast<std::uint64_t>(i)).data());
      right += real ? logit > 0 : logit <= 0;
    }
    return static_cast<double>(right) / count;
  }
  static std::vector<double> logits(std::uint64_t first, int count) {
    std::vector<double> result;
    for (int i = 0; i < count; ++i) {
      result.push_back(logit_of(make_image(first + static_cast<std::uint64_t>(i)).data()));
    }
    return result;
  }
  static at::Tensor features(std::uint64_t first, int count) {
    int unused = 0;
    FakeExtractor extractor(&unused);
    const auto images = make_images(first, count);
    return extractor.features(images.data(), kShape, count);
  }
  static FeatureStatistics statistics(std::uint64_t first, int count) {
    return feature_statistics(features(first, count));
  }

  testing::TemporaryFolder folder_;
  testing::ScopedVariable cache_{"GAN_PIPELINE_CACHE", (folder_.path() / "cache").c_str()};
  Log log_;
  RunInfo run_;
  std::stop_source stop_;
  FakeStreams streams_;
  FakeSnapshot snapshot_;
  QualityOptions options_;
  int extracted_ = 0;
  bool classes_ = false;
  std::vector<std::uint64_t> skipped_;
};

TEST(ShareRight, ThresholdIsZeroAndNanIsNeverRight) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(share_right({}, true), 0);
  EXPECT_DOUBLE_EQ(share_right({0.1, -0.1, 0, nan, 5}, true), 2.0 / 5);
  EXPECT_DOUBLE_EQ(share_right({0.1, -0.1, 0, nan, -7}, false), 3.0 / 5);
}

TEST_F(QualityTest, AsksTheDiscriminatorInOneMixedOrderWhateverTheBatches) {
  streams_.data.at("").count = 700;
  std::vector<std::string> orders;
  for (const int batch : {16, 64}) {
    options_.batch = batch;
    snapshot_.asked.clear();
    evaluate();
    orders.emplace_back(snapshot_.asked.begin(), snapshot_.asked.end());
  }
  EXPECT_EQ(orders[0], orders[1]);
  // Each image once, and neighbours of the data are seldom neighbours here.
  const std::size_t bytes = kShape.bytes();
  const std::vector<std::uint8_t> images = make_images(0, 700);
  const std::string in_order(images.begin(), images.end());
  ASSERT_EQ(orders[0].size(), (40 + 700) * bytes);
  std::map<std::string, int> place;
  for (int i = 0; i < 700; ++i) place[in_order.substr(i * bytes, bytes)] = i;
  ASSERT_EQ(place.size(), 700U);
  std::set<int> seen;
  int neighbours = 0, before = -9;
  for (std::size_t i = 40; i < 740; ++i) {
    const int at = place.at(orders[0].substr(i * bytes, bytes));
    seen.insert(at);
    neighbours += std::abs(at - before) == 1 ? 1 : 0;
    before = at;
  }
  EXPECT_EQ(seen.size(), 700U);
  EXPECT_LT(neighbours, 15);  // 2 to be expected
}

TEST_F(QualityTest, MeasuresAgainstHeldOutAndTrainingReals) {
  options_.held_out = Overrides{{"split", "test"}};
  const std::string text = evaluate_text();
  const Json record = Json::parse(text);
  const std::uint64_t fakes = 1'000'000 + 7;
  const double held_out = frechet_distance(statistics(fakes, 40), statistics(5000, 33));
  const double train = frechet_distance(statistics(fakes, 40), statistics(0, 50));
  EXPECT_NEAR(record.at("metrics").at("frechet_distance"), held_out, 1e-9 * held_out);
  EXPECT_NEAR(record.at("metrics").at("frechet_distance_train"), train, 1e-9 * train);
  EXPECT_EQ(record.at("metrics").at("name"), "FD-Fake");
  EXPECT_EQ(record.at("accuracy").at("real_train"), accuracy(0, 50, true));
  EXPECT_EQ(record.at("accuracy").at("real_held_out"), accuracy(5000, 33, true));
  EXPECT_EQ(record.at("accuracy").at("fake"), accuracy(fakes, 40, false));
  EXPECT_EQ(record.at("accuracy").at("overfitting_gap"),
            accuracy(0, 50, true) - accuracy(5000, 33, true));
  EXPECT_EQ(record.at("accuracy").at("pair_accuracy"),
            pair_share(logits(0, 50), logits(fakes, 40)));
  EXPECT_EQ(record.at("accuracy").at("pair_accuracy_held_out"),
            pair_share(logits(5000, 33), logits(fakes, 40)));
  EXPECT_CONTAINS(logged(), "(overfitting gap ");

  EXPECT_EQ(record.at("step"), 1570);
  EXPECT_EQ(record.at("epoch"), 10);
  EXPECT_EQ(record.at("images"), 100480);
  EXPECT_EQ(record.at("extractor"), "fake");
  EXPECT_EQ(record.at("protocol"), (Json{{"resize", "none"}}));
  EXPECT_EQ(record.at("real"), "held_out");
  EXPECT_EQ(record.at("reference"), Json::object());
  EXPECT_EQ(record.at("held_out"), (Json{{"split", "test"}}));
  EXPECT_EQ(record.at("n_real"), 33);
  EXPECT_EQ(record.at("n_real_train"), 50);
  EXPECT_EQ(record.at("n_fake"), 40);
  EXPECT_EQ(record.at("seed"), 7);
  EXPECT_EQ(record.at("rank_deficient"), false);
  EXPECT_EQ(record.at("rejected"), 0);
  EXPECT_EQ(
      record.at("digests"),
      (Json{{"data", "test-1"}, {"extractor", "weights-1"}, {"snapshot", "snapshot-digest"}}));
  EXPECT_GE(record.at("seconds").get<double>(), 0);
  EXPECT_NE(logged().find("FD-Fake"), std::string::npos);
  EXPECT_EQ(text.find('\n'), std::string::npos);  // a line of evaluation.jsonl
}

TEST_F(QualityTest, TakesTheOtherMetricsFromTheSameFeatures) {
  options_.held_out = Overrides{{"split", "test"}};
  options_.compare.bootstrap = 5;
  const Json record = evaluate();
  const Json& metrics = record.at("metrics");
  const at::Tensor fakes = features(1'000'007, 40);
  const at::Tensor reals = features(5000, 33);
  const KernelDistance kid = kernel_distance(fakes, reals);
  EXPECT_EQ(metrics.at("kid"), kid.mean);
  EXPECT_EQ(metrics.at("kid_std"), kid.deviation);
  EXPECT_GT(kid.deviation, 0);  // subsets of 33 of 40 fakes
  const PrecisionRecall expected = precision_recall(fakes, reals);
  EXPECT_EQ(metrics.at("precision"), expected.precision);
  EXPECT_EQ(metrics.at("recall"), expected.recall);
  EXPECT_EQ(metrics.at("frechet_distance_standard_error"), frechet_standard_error(fakes, reals, 5));
  const auto interval = [](double estimate, double error, int resamples) {
    const Interval found = confidence_interval(estimate, error, resamples);
    return Json{found.low, found.high};
  };
  EXPECT_EQ(metrics.at("frechet_distance_ci"),
            interval(metrics.at("frechet_distance"), frechet_standard_error(fakes, reals, 5), 5));
  EXPECT_EQ(metrics.at("kid_ci"), interval(kid.mean, kid.standard_error, 100));
  const Json method = "bootstrap standard error times Student's t";
  EXPECT_EQ(record.at("settings"), (Json{{"bootstrap_resamples", 5},
                                         {"floor_images", 40},
                                         {"kid_subsets", 100},
                                         {"kid_subset_size", 33},
                                         {"kid_resamples", 100},
                                         {"neighbours", 3},
                                         {"nearest_among", 50},
                                         {"confidence", 0.95},
                                         {"confidence_method", method},
                                         {"vectors_fake", 40},
                                         {"vectors_real", 33}}));
  EXPECT_CONTAINS(logged(), "floor");
  EXPECT_CONTAINS(logged(), "kernel distance");

  options_.compare = {false, false, false, false};
  const Json less = evaluate();
  EXPECT_EQ(less.at("settings"), (Json{{"vectors_fake", 40}, {"vectors_real", 33}}));
  EXPECT_EQ(less.at("metrics"),
            (Json{{"frechet_distance", metrics.at("frechet_distance")},
                  {"name", "FD-Fake"},
                  {"frechet_distance_train", metrics.at("frechet_distance_train")}}));
}

TEST_F(QualityTest, TheFloorIsTheDistanceOfTrainingReals) {
  options_.held_out = Overrides{{"split", "test"}};
  options_.n_fake = 50;  // as many as there are training reals, so all of them
  const Json all = evaluate();
  const double distance = frechet_distance(statistics(0, 50), statistics(5000, 33));
  EXPECT_NEAR(all.at("metrics").at("floor"), distance, 1e-9 * distance);
  options_.n_fake = 20;  // fewer images, a larger distance
  const Json fewer = evaluate();
  EXPECT_EQ(fewer.at("settings").at("floor_images"), 20);
  EXPECT_GT(fewer.at("metrics").at("floor"), distance);
  options_.n_fake = 60;
  EXPECT_EQ(evaluate().at("settings").at("floor_images"), 50);
  options_.held_out.reset();
  EXPECT_FALSE(evaluate().at("metrics").contains("floor"));
}

TEST_F(QualityTest, WhatSoFewImagesDoNotDefineIsLeftOut) {
  options_.compare.bootstrap = 10;
  options_.n_fake = 3;
  classes_ = true;
  const Json metrics = evaluate().at("metrics");
  for (const char* absent : {"precision", "recall", "frechet_distance_standard_error",
                             "frechet_distance_ci", "inception_score", "nearer_than_held_out"}) {
    EXPECT_FALSE(metrics.contains(absent)) << absent;
  }
  EXPECT_TRUE(metrics.contains("kid"));
  options_.n_fake = 50;  // subsets are all of both
  EXPECT_FALSE(evaluate().at("metrics").contains("kid_std"));
}

TEST_F(QualityTest, WithoutHeldOutRealsTheTrainingOnesAreTheReference) {
  const Json record = evaluate();
  const double train = frechet_distance(statistics(1'000'007, 40), statistics(0, 50));
  EXPECT_NEAR(record.at("metrics").at("frechet_distance"), train, 1e-9 * train);
  EXPECT_FALSE(record.at("metrics").contains("frechet_distance_train"));
  EXPECT_FALSE(record.at("accuracy").contains("real_held_out"));
  EXPECT_EQ(record.at("real"), "reference");
  EXPECT_EQ(record.at("n_real"), 50);
  EXPECT_EQ(streams_.opened, 1);
}

TEST_F(QualityTest, TheInceptionScoreIsOfAllFakesWhereThereAreClasses) {
  EXPECT_FALSE(evaluate().at("metrics").contains("inception_score"));
  classes_ = true;
  const Json record = evaluate();
  InceptionScoreAccumulator expected(40);
  expected.add(features(1'000'007, 40) / 64);
  const InceptionScore score = expected.finish();
  EXPECT_NEAR(record.at("metrics").at("inception_score"), score.mean, 1e-9);
  EXPECT_NEAR(record.at("metrics").at("inception_score_std"), score.deviation, 1e-9);
  EXPECT_GT(score.mean, 1.05);  // else it would say nothing
  EXPECT_EQ(record.at("settings").at("inception_splits"), 10);
  EXPECT_CONTAINS(logged(), "Inception score");
}

TEST_F(QualityTest, DrawsTheNearestTrainingImages) {
  run_.directory = folder_.path() / "run";
  const std::filesystem::path file = run_.directory / "samples/nearest_000010.png";
  options_.nearest = 11;  // one row of 8, and 3
  options_.batch = 7;     // in several batches
  const Json record = evaluate();
  EXPECT_EQ(record.at("nearest"),
            (Json{{"picture", "samples/nearest_000010.png"}, {"fakes", 11}, {"among", 50}}));
  // By hand: row of 8 fakes, row of theirs, row of 3, row of theirs.
  const at::Tensor distances =
      at::cdist(features(1'000'007, 11).to(at::kDouble), features(0, 50).to(at::kDouble), 2, 2);
  std::vector<std::uint8_t> pixels;
  const auto add = [&](const std::vector<std::uint8_t>& image) {
    pixels.insert(pixels.end(), image.begin(), image.end());
  };
  for (const auto& [first, last] : {std::pair{0, 8}, std::pair{8, 11}}) {
    for (int i = first; i < last; ++i) add(make_image(1'000'007U + static_cast<unsigned>(i)));
    for (int i = last; i < first + 8; ++i) add(std::vector<std::uint8_t>(kShape.bytes(), 255));
    for (int i = first; i < last; ++i) {
      add(make_image(static_cast<std::uint64_t>(distances[i].argmin().item<std::int64_t>())));
    }
    for (int i = last; i < first + 8; ++i) add(std::vector<std::uint8_t>(kShape.bytes(), 255));
  }
  const std::vector<std::uint8_t> expected =
      encode_png(make_grid(pixels.data(), kShape, 32, 8).view());
  EXPECT_TRUE(read_file(file) == expected);
  EXPECT_EQ(streams_.opened, 2);  // once more for the pixels

  std::filesystem::remove(file);
  evaluate();  // features from the cache: the pixels are picked up while D sees the reals
  EXPECT_TRUE(read_file(file) == expected);
  EXPECT_EQ(streams_.opened, 1);

  std::filesystem::remove(file);
  options_.nearest = 0;
  EXPECT_FALSE(evaluate().contains("nearest"));
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(QualityTest, SaysThatFakesAreCopies) {
  options_.held_out = Overrides{{"split", "test"}};
  streams_.data[""] = {1'000'007, 50, "train-2"};  // the fakes are among them
  EXPECT_EQ(evaluate().at("metrics").at("nearer_than_held_out"), 1);
  EXPECT_CONTAINS(logged(), "in 100.0 % of pairs a fake is nearer to a training image");
}

TEST_F(QualityTest, FakesAreOneSequenceHoweverItIsCut) {
  const Json first = evaluate();
  EXPECT_EQ(snapshot_.generated,
            (std::vector<std::pair<std::uint64_t, int>>{{0, 16}, {16, 16}, {32, 8}}));
  options_.batch = 7;
  const Json second = evaluate();
  EXPECT_EQ(first.at("accuracy"), second.at("accuracy"));
  EXPECT_NEAR(first.at("metrics").at("frechet_distance"),
              second.at("metrics").at("frechet_distance"), 1e-9);
}

TEST_F(QualityTest, StatisticsOfRealsAreCachedByDataAndWeights) {
  options_.held_out = Overrides{{"split", "test"}};
  const Json first = evaluate();
  EXPECT_EQ(extracted_, 50 + 33 + 40);
  EXPECT_EQ(first.at("statistics_cached"), false);

  const Json second = evaluate();  // another stage instance: only the fakes' features are taken
  EXPECT_EQ(extracted_, 40);
  EXPECT_EQ(streams_.opened, 2);  // the discriminator still sees every real
  EXPECT_EQ(second.at("statistics_cached"), true);
  EXPECT_EQ(second.at("metrics"), first.at("metrics"));
  EXPECT_EQ(second.at("accuracy"), first.at("accuracy"));
  EXPECT_EQ(second.at("n_real"), first.at("n_real"));

  streams_.data["test"] = {9000, 33, "test-2"};  // other data
  const Json third = evaluate();
  EXPECT_EQ(extracted_, 33 + 40);
  EXPECT_NE(third.at("metrics").at("frechet_distance"), first.at("metrics").at("frechet_distance"));
  evaluate("weights-2");  // other weights
  EXPECT_EQ(extracted_, 50 + 33 + 40);
  for (auto& [name, data] : streams_.data) data.digest.clear();  // nothing to go by
  evaluate();
  evaluate();
  EXPECT_EQ(extracted_, 50 + 33 + 40);
}

TEST_F(QualityTest, ABrokenCacheFileIsMadeAgain) {
  const Json first = evaluate();
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path() / "cache")) {
    write_file(entry.path(), std::string_view("broken"));
  }
  const Json second = evaluate();
  EXPECT_EQ(extracted_, 50 + 40);
  EXPECT_EQ(second.at("metrics"), first.at("metrics"));
  EXPECT_NE(logged().find("made again"), std::string::npos);
  evaluate();
  EXPECT_EQ(extracted_, 40);
}

TEST_F(QualityTest, FewerImagesThanDimensionsAreSaid) {
  evaluate();
  EXPECT_EQ(logged().find("dimensions"), std::string::npos);
  options_.n_fake = 3;  // 3 vectors span 2 of 3 dimensions
  EXPECT_EQ(evaluate().at("rank_deficient"), true);
  EXPECT_NE(logged().find("3 dimensions"), std::string::npos) << logged();
  options_.n_fake = 40;
  streams_.data[""] = {0, 3, "three"};
  EXPECT_EQ(evaluate().at("rank_deficient"), true);
}

TEST_F(QualityTest, RejectedRealsAreCounted) {
  streams_.data[""].rejects = 2;
  EXPECT_EQ(evaluate().at("rejected"), 2);
  EXPECT_NE(logged().find("2 real images could not be used"), std::string::npos) << logged();
}

TEST_F(QualityTest, UnusableRealsAreDataErrors) {
  const auto message = [&] {
    try {
      evaluate_text();
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  options_.held_out = Overrides{{"split", "tiny"}};
  EXPECT_NE(message().find("{split: tiny} (held-out reals) gave 1 images"), std::string::npos)
      << message();
  streams_.data["tiny"] = {0, 5, "tiny-2", {4, 4}};
  EXPECT_NE(message().find("4x4, the snapshot makes 3x2"), std::string::npos) << message();
}

TEST_F(QualityTest, StopsWithoutARecord) {
  int calls = 0;
  snapshot_.on_discriminate = [&] {
    if (++calls == 2) stop_.request_stop();
  };
  EXPECT_EQ(evaluate_text(), "");
  EXPECT_EQ(calls, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "cache"));  // nothing half-made is kept
}

TEST_F(QualityTest, DisturbsNeitherThreadsNorRandomNumbers) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  run_.threads = 1;
  int during = 0;
  snapshot_.on_discriminate = [&] { during = at::get_num_threads(); };
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = generator.get_state().clone();
  evaluate();
  EXPECT_EQ(during, 1);
  EXPECT_EQ(at::get_num_threads(), 2);
  EXPECT_TRUE(at::equal(generator.get_state(), state));

  run_.threads = 2;
  options_.threads = 3;
  evaluate();
  EXPECT_EQ(during, 3);
  options_.threads = 0;
  options_.blocking = false;  // leaves the processors to the training
  evaluate();
  EXPECT_EQ(during, 1);
  at::set_num_threads(before);
}

TEST_F(QualityTest, BesideTrainingItsThreadsAreItsOwn) {
  at::set_num_threads(2);
  options_.blocking = false;
  std::thread([&] { evaluate(); }).join();
  EXPECT_EQ(at::get_num_threads(), 2);  // also while it runs: OpenMP's number is each thread's own
  int seen = 0;
  snapshot_.on_discriminate = [&] {
    std::thread([&] { at::set_num_threads(1); }).join();
    seen = at::get_num_threads();
  };
  options_.threads = 2;
  evaluate();
  EXPECT_EQ(seen, 2);
  at::set_num_threads(1);
}

TEST_F(QualityTest, SaysWhichSnapshotsWerePassedOver) {
  EXPECT_FALSE(evaluate().contains("skipped"));
  options_.blocking = false;
  EXPECT_EQ(evaluate().at("skipped"), Json::array());
  skipped_ = {1256, 1413};
  EXPECT_EQ(evaluate().at("skipped"), (Json{1256, 1413}));
  EXPECT_FALSE(QualityStage(options_, std::make_unique<FakeExtractor>(&extracted_)).blocking());
}

TEST_F(QualityTest, ChecksItsRealsBeforeTheRun) {
  const StreamInfo trained = streams_.info({});
  const auto check = [&] {
    QualityStage(options_, std::make_unique<FakeExtractor>(&extracted_)).check(trained, streams_);
  };
  const auto message = [&]() -> std::string {
    try {
      check();
    } catch (const Error& error) {
      return std::to_string(static_cast<int>(error.exit_code())) + " " + error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NO_THROW(check());
  options_.held_out = Overrides{{"split", "test"}};
  EXPECT_NO_THROW(check());
  options_.held_out = Overrides{{"split", "tiny"}};
  EXPECT_EQ(message(),
            "3 held_out = {split: tiny}: selects 1 of at least 2 images that a covariance needs");
  streams_.data["test"].shape = {8, 8};
  options_.held_out = Overrides{{"split", "test"}};
  EXPECT_CONTAINS(message(), "2 held_out = {split: test}: without the random stages its images");
  options_.reference = Overrides{{"split", "tiny"}};
  EXPECT_CONTAINS(message(), "3 reference = {split: tiny}: ");
  EXPECT_EQ(streams_.opened, 0);
}

TEST_F(QualityTest, IsDueEveryNEpochsAndAtTheLast) {
  options_.every = 3;
  const QualityStage stage(options_, std::make_unique<FakeExtractor>(&extracted_));
  std::vector<std::uint32_t> due;
  for (std::uint32_t epoch = 1; epoch <= 10; ++epoch) {
    if (stage.due(epoch, epoch == 10)) due.push_back(epoch);
  }
  EXPECT_EQ(due, (std::vector<std::uint32_t>{3, 6, 9, 10}));
}

TEST(QualityStageInfo, DeclaresWhatTheConfigurationChecks) {
  const StageInfo info = quality_stage_info();
  EXPECT_EQ(info.name, "evaluate.quality");
  EXPECT_EQ(info.in, Kind::kSnapshot);
  EXPECT_EQ(info.out, Kind::kNothing);
  EXPECT_FALSE(info.random);
  const Params defaults = make_params(info.params);
  EXPECT_EQ(defaults.integer("every"), 10);
  EXPECT_EQ(defaults.integer("n_fake"), 2048);
  EXPECT_EQ(defaults.text("extractor"), "efficientnet_lite0");
  EXPECT_FALSE(defaults.has("held_out"));
  EXPECT_EQ(defaults.integer("bootstrap"), 0);
  EXPECT_THROW(info.create(make_params(info.params, {{"bootstrap", std::int64_t{1}}})),
               ConfigError);
  EXPECT_TRUE(defaults.flag("blocking"));
  EXPECT_THROW(make_params(info.params, {{"every", std::int64_t{0}}}), ConfigError);
  EXPECT_THROW(make_params(info.params, {{"n_fake", std::int64_t{1}}}), ConfigError);
  // Made at the start of a run, so that missing weights do not end it epochs later.
  EXPECT_THROW(
      info.create(make_params(info.params, {{"weights", std::string("/no/such.safetensors")}})),
      DataError);
  // Only a network of the user's own is told what it takes.
  const auto refusal = [&](std::map<std::string, Value> given) -> std::string {
    given["weights"] = std::string(GP_SOURCE_DIR "/CMakeLists.txt");
    try {
      info.create(make_params(info.params, given));
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_CONTAINS(refusal({{"input_size", std::int64_t{64}}}), "only torchscript takes it");
  EXPECT_CONTAINS(refusal({{"extractor", std::string("torchscript")},
                           {"input_range", std::vector<double>{1, 1}}}),
                  "two different numbers");
  EXPECT_CONTAINS(refusal({{"extractor", std::string("torchscript")}}), "TorchScript");
}

}  // namespace
}  // namespace gp
