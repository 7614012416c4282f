#include "stages/torch/compare_sets.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/common/npz.hpp"
#include "stages/torch/inception_score.hpp"
#include "stages/torch/statistics_file.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::uint8_t kNan = 251;       ///< a first byte of which the extractor makes NaN
constexpr std::uint8_t kInfinity = 252;  ///< likewise infinity

using Pixels = std::vector<std::uint8_t>;

/// Three features: the image's first three bytes.
class FakeExtractor : public FeatureExtractor {
 public:
  std::string name() const override { return "fake"; }
  std::string distance() const override { return "FD-Fake"; }
  int dimensions() const override { return 3; }
  std::string digest() const override { return weights; }
  std::map<std::string, std::string> protocol() const override { return {{"resize", resize}}; }
  void to(at::Device) override {}
  at::Device device() const override { return at::kCPU; }
  at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) override {
    seen += count;
    at::Tensor result = at::empty({count, 3});
    for (int i = 0; i < count; ++i) {
      const std::uint8_t* image = images + static_cast<std::size_t>(i) * shape.bytes();
      for (int j = 0; j < 3; ++j) result[i][j] = image[j];
      if (image[0] == kNan) result[i][2] = std::nan("");
      if (image[0] == kInfinity) result[i][1] = std::numeric_limits<float>::infinity();
    }
    return result;
  }
  at::Tensor unbiased_logits(const at::Tensor& features) const override {
    return has_classes ? features / 50 : at::Tensor();
  }
  bool has_classes = false;
  int seen = 0;
  std::string weights = "weights-1";
  std::string resize = "none";
};

class FakeSnapshot : public Snapshot {
 public:
  std::uint64_t step() const override { return 42; }
  std::uint32_t epoch() const override { return 1; }
  std::uint64_t images() const override { return 0; }
  ImageShape shape() const override { return {1, 1}; }
  std::vector<std::uint8_t> generate(std::uint64_t seed, std::uint64_t first, int count) override {
    Pixels pixels;
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < 3; ++j) {
        pixels.push_back(static_cast<std::uint8_t>(
            mix64(seed * 1000 + first + static_cast<std::uint64_t>(i * 3 + j)) % 200));
      }
    }
    return pixels;
  }
  std::vector<float> discriminate(const std::uint8_t*, const std::int32_t*, int) override {
    return {};
  }
  std::string digest() const override { return "snapshot"; }
};

/// Images of a single pixel.
std::vector<Pixels> pixels_of(std::uint64_t seed, int count) {
  std::vector<Pixels> images;
  for (int i = 0; i < count; ++i) {
    Pixels image;
    for (int j = 0; j < 3; ++j) {
      image.push_back(static_cast<std::uint8_t>(
          mix64(seed * 100000 + static_cast<std::uint64_t>(i * 3 + j)) % 200));
    }
    images.push_back(image);
  }
  return images;
}

at::Tensor features_of(const std::vector<Pixels>& images) {
  at::Tensor result = at::empty({static_cast<std::int64_t>(images.size()), 3});
  for (std::size_t i = 0; i < images.size(); ++i) {
    for (int j = 0; j < 3; ++j) result[static_cast<std::int64_t>(i)][j] = images[i][j];
  }
  return result;
}

class CompareSets : public ::testing::Test {
 protected:
  void SetUp() override {
    log_.set_quiet(true);
    log_.open(folder_ / "log.txt");
  }
  std::string logged() const { return read_text(folder_ / "log.txt"); }

  /// Image i has 1 x (1 + i / 4 % 2) pixels, of which the first are given; so batches are of up to
  /// 4. Two images are rejected for each `rejects`.
  ImageSet set(const std::string& name, const std::vector<Pixels>& images, int rejects = 0) {
    ImageSet result;
    result.name = name;
    result.kind = "folder";
    result.info.source_size = images.size() + static_cast<std::size_t>(rejects);
    result.info.data_digest = "digest of " + name;
    result.state = "as of today";
    result.open = [this, images, rejects]() -> std::unique_ptr<BatchStream> {
      ++opened_;
      std::vector<std::shared_ptr<const Batch>> batches;
      for (std::size_t first = 0; first < images.size(); first += 4) {
        auto batch = std::make_shared<Batch>();
        batch->shape = {1, static_cast<int>(1 + first / 4 % 2)};
        batch->count = static_cast<int>(std::min<std::size_t>(4, images.size() - first));
        const std::shared_ptr<std::uint8_t[]> pixels(
            new std::uint8_t[static_cast<std::size_t>(batch->count) * batch->shape.bytes()]());
        for (int i = 0; i < batch->count; ++i) {
          const std::size_t image = first + static_cast<std::size_t>(i);
          std::copy(images[image].begin(), images[image].end(),
                    pixels.get() + static_cast<std::size_t>(i) * batch->shape.bytes());
          batch->keys.push_back("image " + std::to_string(image));
        }
        batch->pixels = pixels;
        batches.push_back(batch);
      }
      auto end = std::make_shared<Batch>();
      end->end_of_epoch = true;
      for (int i = 0; i < rejects; ++i) {
        end->rejects.push_back({"bad " + std::to_string(i), "image.decode", "it is broken"});
      }
      batches.push_back(end);
      return std::make_unique<VectorBatchStream>(batches);
    };
    return result;
  }
  static ImageSet saved(const fs::path& file) {
    ImageSet result;
    result.name = file.string();
    result.kind = "statistics";
    result.statistics = file;
    return result;
  }
  Json compare(ImageSet judged, std::optional<ImageSet> reference, const fs::path& save = "") {
    const Comparison comparison{std::move(judged), std::move(reference), save, use_cache_};
    return Json::parse(compare_sets(comparison, extractor_, options_, log_, {}));
  }
  std::string message(ImageSet judged, std::optional<ImageSet> reference) {
    try {
      compare(std::move(judged), std::move(reference));
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }
  /// What is said of a .npz with these arrays.
  std::string message_of(const Npz& npz) {
    write_npz(folder_ / "s.npz", npz);
    return message(saved(folder_ / "s.npz"), set("b", pixels_of(2, 20)));
  }

  testing::TemporaryFolder folder_;
  testing::ScopedVariable cache_{"GAN_PIPELINE_CACHE", (folder_ / "cache").c_str()};
  Log log_;
  FakeExtractor extractor_;
  CompareOptions options_;
  bool use_cache_ = false;
  int opened_ = 0;
};

TEST_F(CompareSets, GivesTheFiguresOfTheFeatures) {
  const auto a = pixels_of(1, 30), b = pixels_of(2, 25);
  const Json record = compare(set("a", a), set("b", b));
  const FeatureSet fakes{feature_statistics(features_of(a)), features_of(a)};
  const FeatureSet reals{feature_statistics(features_of(b)), features_of(b)};
  const auto expected = compare_features(fakes, reals, nullptr, {});
  EXPECT_NEAR(record["metrics"]["frechet_distance"],
              expected.metrics["frechet_distance"].get<double>(), 1e-9);
  for (const char* metric : {"kid", "precision", "recall"}) {
    EXPECT_EQ(record["metrics"][metric], Json(expected.metrics[metric])) << metric;
  }
  EXPECT_EQ(record["metrics"]["name"], "FD-Fake");
  EXPECT_EQ(record["extractor"], "fake");
  EXPECT_EQ(record["protocol"]["resize"], "none");
  EXPECT_EQ(record["n_fake"], 30);
  EXPECT_EQ(record["n_real"], 25);
  EXPECT_EQ(record["rank_deficient"], false);
  EXPECT_EQ(record["rejected"], 0);
  EXPECT_EQ(record["sets"]["fake"]["path"], "a");
  EXPECT_EQ(record["digests"]["fake"], "digest of a");
  EXPECT_EQ(record["digests"]["real"], "digest of b");
  EXPECT_EQ(record["digests"]["extractor"], "weights-1");
  EXPECT_TRUE(record.contains("seconds"));
}

TEST_F(CompareSets, AnExtractorWithClassesGivesTheInceptionScore) {
  const auto a = pixels_of(1, 30);
  EXPECT_FALSE(
      compare(set("a", a), set("b", pixels_of(2, 25)))["metrics"].contains("inception_score"));
  extractor_.has_classes = true;
  const Json record = compare(set("a", a), set("b", pixels_of(2, 25)));
  InceptionScoreAccumulator expected(30);
  expected.add(features_of(a) / 50);
  EXPECT_NEAR(record["metrics"]["inception_score"], expected.finish().mean, 1e-9);
  EXPECT_GT(record["metrics"]["inception_score"], 1);
  EXPECT_CONTAINS(logged(), ", Inception score 1.");
}

TEST_F(CompareSets, TheIntervalIsSaid) {
  options_.bootstrap = 5;
  const Json record = compare(set("a", pixels_of(1, 30)), set("b", pixels_of(2, 25)));
  EXPECT_LE(record["metrics"]["frechet_distance_ci"][0], record["metrics"]["frechet_distance"]);
  EXPECT_CONTAINS(logged(), "(95 %: ");
}

TEST_F(CompareSets, IdenticalSetsHaveNoDistance) {
  const Json record = compare(set("a", pixels_of(1, 40)), set("b", pixels_of(1, 40)));
  const double distance = record["metrics"]["frechet_distance"];
  EXPECT_GE(distance, 0);
  EXPECT_LT(distance, 1e-8);
  EXPECT_EQ(record["metrics"]["precision"], 1);
  EXPECT_EQ(record["metrics"]["recall"], 1);
}

TEST_F(CompareSets, OfConstantImagesTheMeansCount) {
  const std::vector<Pixels> a(5, Pixels{10, 20, 30}), b(7, Pixels{13, 24, 30});
  EXPECT_EQ(compare(set("a", a), set("b", b))["metrics"]["frechet_distance"], 25);
  EXPECT_EQ(compare(set("a", a), set("b", a))["metrics"]["frechet_distance"], 0);
  // Against images that vary, the distance is that and their variances.
  const auto varied = feature_statistics(features_of(pixels_of(3, 30)));
  const at::Tensor shift = varied.mean - at::tensor({10.0, 20.0, 30.0}, at::kDouble);
  EXPECT_NEAR(compare(set("a", a), set("b", pixels_of(3, 30)))["metrics"]["frechet_distance"],
              (shift.square().sum() + varied.covariance.trace()).item<double>(), 1e-9);
}

TEST_F(CompareSets, FeaturesThatAreNotFiniteNameTheirImage) {
  for (const std::uint8_t bad : {kNan, kInfinity}) {
    auto images = pixels_of(1, 20);
    images[13][0] = bad;
    const std::string text = message(set("a", images), set("b", pixels_of(2, 20)));
    EXPECT_CONTAINS(text, "a: the features of 'image 13' hold NaN or infinity");
  }
}

TEST_F(CompareSets, TooFewImagesAreRefusedBeforeWorkWhereThatIsKnown) {
  const std::string text = message(set("a", pixels_of(1, 20)), set("b", pixels_of(2, 1)));
  EXPECT_CONTAINS(text, "b: holds 1 image that can be used; a covariance needs at least 2");
  EXPECT_EQ(extractor_.seen, 0);
  EXPECT_CONTAINS(message(set("a", {}, 3), set("b", pixels_of(2, 9))),
                  "a: holds no image that can be used");
  EXPECT_CONTAINS(message(set("a", pixels_of(2, 1), 3), set("b", pixels_of(2, 9))),
                  "a: holds 1 image that can be used");
}

TEST_F(CompareSets, BrokenImagesAreNamedCountedAndLeftOut) {
  use_cache_ = true;
  const auto a = pixels_of(1, 20), b = pixels_of(2, 20);
  const double whole = compare(set("a", a), set("b", b))["metrics"]["frechet_distance"];
  const Json record = compare(set("c", a, 7), set("d", b, 1));
  EXPECT_EQ(record["metrics"]["frechet_distance"], whole);
  EXPECT_EQ(record["rejected"], 8);
  EXPECT_EQ(record["sets"]["fake"]["rejected"], 7);
  EXPECT_EQ(record["n_fake"], 20);
  EXPECT_CONTAINS(logged(), "c: 'bad 0' is left out: it is broken");
  EXPECT_CONTAINS(logged(), "c: 'bad 4' is left out");
  EXPECT_EQ(logged().find("c: 'bad 5'"), std::string::npos);
  EXPECT_CONTAINS(logged(), "c: 7 of 27 images could not be used");
  EXPECT_CONTAINS(logged(), "d: 1 of 21 images could not be used");
  // Where the features come from the cache, too.
  const Json again = compare(set("c", a, 7), set("d", b, 1));
  EXPECT_EQ(again["rejected"], 8);
  EXPECT_EQ(again["sets"]["fake"]["cached"], true);
}

TEST_F(CompareSets, TheSameImagesComeFromTheCache) {
  use_cache_ = true;
  const auto a = pixels_of(1, 20), b = pixels_of(2, 20);
  const Json first = compare(set("a", a), set("b", b));
  EXPECT_EQ(extractor_.seen, 40);
  const Json second = compare(set("a", a), set("b", b));
  EXPECT_EQ(extractor_.seen, 40);
  EXPECT_EQ(opened_, 2);
  EXPECT_EQ(second["metrics"], first["metrics"]);
  EXPECT_EQ(second["sets"]["real"]["cached"], true);
  EXPECT_CONTAINS(logged(), "a: the features of its 20 images come from the cache");

  ImageSet touched = set("a", a);
  touched.state = "as of tomorrow";
  compare(touched, set("b", b));
  EXPECT_EQ(extractor_.seen, 60);
  extractor_.resize = "another";
  compare(set("a", a), set("b", b));
  EXPECT_EQ(extractor_.seen, 100);
  use_cache_ = false;
  compare(set("a", a), set("b", b));
  EXPECT_EQ(extractor_.seen, 140);
}

TEST_F(CompareSets, DrawnImagesAreThoseOfTheirSeed) {
  FakeSnapshot snapshot;
  const auto drawn = [&](std::uint64_t seed) {
    ImageSet result;
    result.name = "run";
    result.kind = "run";
    result.snapshot = &snapshot;
    result.seed = seed;
    result.count = 37;
    return result;
  };
  const Json record = compare(drawn(5), set("b", pixels_of(2, 20)));
  EXPECT_EQ(record["n_fake"], 37);
  EXPECT_EQ(record["sets"]["fake"]["seed"], 5);
  EXPECT_EQ(record["sets"]["fake"]["step"], 42);
  EXPECT_EQ(record["digests"]["fake"], "snapshot");
  EXPECT_EQ(compare(drawn(5), set("b", pixels_of(2, 20)))["metrics"], record["metrics"]);
  EXPECT_NE(compare(drawn(6), set("b", pixels_of(2, 20)))["metrics"], record["metrics"]);
  EXPECT_NEAR(compare(drawn(5), drawn(5))["metrics"]["frechet_distance"], 0, 1e-8);
}

TEST_F(CompareSets, AStopGivesUp) {
  std::stop_source stop;
  stop.request_stop();
  const Comparison comparison{set("a", pixels_of(1, 20)), set("b", pixels_of(2, 20)), "", true};
  EXPECT_EQ(compare_sets(comparison, extractor_, options_, log_, stop.get_token()), "");
  EXPECT_EQ(extractor_.seen, 0);
  EXPECT_FALSE(fs::exists(folder_ / "cache"));  // a part of the images is no set
}

TEST_F(CompareSets, SavedStatisticsGiveTheSameDistanceAndNothingElse) {
  const auto a = pixels_of(1, 30), b = pixels_of(2, 25);
  const Json whole = compare(set("a", a), set("b", b), folder_ / "a.npz");
  const Json none = compare(set("b", b), std::nullopt, folder_ / "b.npz");
  EXPECT_FALSE(none.contains("metrics"));
  EXPECT_FALSE(none.contains("n_real"));
  for (const Json& record : {compare(saved(folder_ / "a.npz"), set("b", b)),
                             compare(set("a", a), saved(folder_ / "b.npz")),
                             compare(saved(folder_ / "a.npz"), saved(folder_ / "b.npz"))}) {
    EXPECT_NEAR(record["metrics"]["frechet_distance"],
                whole["metrics"]["frechet_distance"].get<double>(), 1e-9);
    EXPECT_EQ(record["metrics"].size(), 2U) << record["metrics"];  // and the name
    EXPECT_EQ(record["settings"]["only_statistics"], true);
    EXPECT_EQ(record["n_fake"], 30);
    EXPECT_EQ(record["n_real"], 25);
    EXPECT_EQ(record["rank_deficient"], false);
  }
  EXPECT_CONTAINS(logged(), "kernel distance, precision and recall are left out");

  extractor_.weights = "weights-2";
  const std::string text = message(saved(folder_ / "a.npz"), set("b", b));
  EXPECT_CONTAINS(text,
                  "a.npz: was made with another weights file: \"weights-1\", and now it is "
                  "\"weights-2\"");
  extractor_.weights = "weights-1";
  extractor_.resize = "bilinear";
  EXPECT_CONTAINS(message(set("b", b), saved(folder_ / "a.npz")), "was made with another protocol");
}

TEST_F(CompareSets, StatisticsOfOthersDoNotSayTheirNumber) {
  const NpyArray mu{{3}, {1, 2, 3}}, sigma{{3, 3}, {2, 0, 0, 0, 1, 0, 0, 0, 3}};
  EXPECT_EQ(message_of({{{"mu", mu}, {"sigma", sigma}}, {}}), "");
  const Json record = compare(saved(folder_ / "s.npz"), saved(folder_ / "s.npz"));
  EXPECT_TRUE(record["n_fake"].is_null());
  EXPECT_TRUE(record["rank_deficient"].is_null());
  EXPECT_NEAR(record["metrics"]["frechet_distance"], 0, 1e-12);
  const Json few = compare(set("a", pixels_of(1, 3)), saved(folder_ / "s.npz"));
  EXPECT_EQ(few["rank_deficient"], true);
  const Json reversed = compare(saved(folder_ / "s.npz"), set("a", pixels_of(1, 3)));
  EXPECT_EQ(reversed["rank_deficient"], true);
  const Json enough = compare(saved(folder_ / "s.npz"), set("a", pixels_of(1, 30)));
  EXPECT_TRUE(enough["rank_deficient"].is_null());
}

TEST_F(CompareSets, StatisticsThatMeanNothingAreRefused) {
  const double nan = std::nan("");
  const NpyArray mu{{3}, {1, 2, 3}}, sigma{{3, 3}, {2, 0, 0, 0, 1, 0, 0, 0, 3}};
  EXPECT_CONTAINS(message_of({{{"mu", mu}}, {}}), "s.npz: has no array 'sigma'; expected 'mu'");
  EXPECT_CONTAINS(message_of({{{"sigma", sigma}}, {}}), "has no array 'mu'");
  EXPECT_CONTAINS(message_of({{{"mu", {{1, 3}, {1, 2, 3}}}, {"sigma", sigma}}, {}}),
                  "'mu' has the shape [1, 3], expected [3]");
  EXPECT_CONTAINS(message_of({{{"mu", mu}, {"sigma", {{3}, {1, 2, 3}}}}, {}}),
                  "'sigma' has the shape [3], expected [3, 3]");
  EXPECT_CONTAINS(message_of({{{"mu", {{3}, {1, nan, 3}}}, {"sigma", sigma}}, {}}),
                  "'mu' holds NaN or infinity");
  EXPECT_CONTAINS(
      message_of({{{"mu", mu}, {"sigma", {{3, 3}, {2, 0, 0, 0, 1, 0, 0, 0, INFINITY}}}}, {}}),
      "'sigma' holds NaN or infinity");
  EXPECT_CONTAINS(
      message_of({{{"mu", mu}, {"sigma", {{3, 3}, {2, 0.5, 0, 0, 1, 0, 0, 0, 3}}}}, {}}),
      "'sigma' is no covariance: it differs from its transpose by up to 0.5");
  EXPECT_CONTAINS(message_of({{{"mu", mu}, {"sigma", {{3, 3}, {2, 0, 0, 0, -1, 0, 0, 0, 3}}}}, {}}),
                  "a negative variance");
  // Found when its eigenvalues are: symmetric, variances positive, and still none.
  EXPECT_CONTAINS(message_of({{{"mu", mu}, {"sigma", {{3, 3}, {1, 2, 0, 2, 1, 0, 0, 0, 1}}}}, {}}),
                  "s.npz against b: Frechet distance: a matrix with the negative eigenvalue");
  const std::vector<double> many(2048);
  EXPECT_CONTAINS(
      message_of({{{"mu", {{2048}, many}}, {"sigma", sigma}}, {}}),
      "holds statistics of 2048 dimensions, but the features of the extractor fake have 3; "
      "2048 are Inception's: give --extractor inception_v3");
  EXPECT_CONTAINS(message_of({{{"mu", {{2}, {1, 2}}}, {"sigma", sigma}}, {}}),
                  "give the extractor that they were made with");
  for (const char* text : {"", "[]", "{\"count\": 1}", "{\"count\": \"many\"}", "{"}) {
    EXPECT_CONTAINS(message_of({{{"mu", mu}, {"sigma", sigma}}, {{"made_with", text}}}),
                    "'made_with' is not what gan-pipeline writes");
  }
  EXPECT_EQ(opened_, 1);  // all but the eigenvalues are looked at before images are
}

}  // namespace
}  // namespace gp
