// gan-pipeline evaluate as a user runs it: the real program on folders, archives, shards, runs,
// checkpoints and saved statistics.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "pipeline/rng.hpp"
#include "stages/common/npz.hpp"
#include "stages/common/png.hpp"
#include "tests/stages/data/archive_writer.hpp"
#include "tests/stages/torch/drawn_inception.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"
#include "tests/support/scoped_variable.hpp"

extern char** environ;

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ArchiveWriter;
using testing::run_tool;
using testing::ToolResult;

/// Smooth colours that belong to a number.
Image picture(ImageShape shape, int number) {
  Rng rng(3, "evaluate test", static_cast<std::uint64_t>(number));
  const double fx = rng.uniform(0, 0.4), fy = rng.uniform(0, 0.4), phase = rng.uniform(0, 6);
  Image image(shape.height, shape.width);
  for (int y = 0; y < shape.height; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      for (int c = 0; c < kChannels; ++c) {
        image.view().row(y)[x * kChannels + c] =
            static_cast<std::uint8_t>(127 + 120 * std::sin(fx * x + fy * y + phase + c));
      }
    }
  }
  return image;
}

/// All tests share their data, and the features of them in the cache.
class Evaluate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<testing::TemporaryFolder>();
    cache_ = std::make_unique<testing::ScopedVariable>("GAN_PIPELINE_CACHE",
                                                       (*folder_ / "cache").c_str());
    // Two sizes, one after the other and mixed.
    constexpr ImageShape kSizes[] = {{40, 56}, {40, 56}, {300, 20}, {40, 56}};
    fs::create_directories(*folder_ / "a/sub");
    fs::create_directories(*folder_ / "b");
    ArchiveWriter zip(*folder_ / "a.zip", "zip"), tar(*folder_ / "b.tgz", "ustar", "gzip");
    for (int i = 0; i < 10; ++i) {
      const auto add = [&](const std::string& name, int number, ArchiveWriter& archive) {
        const auto bytes = encode_png(picture(kSizes[i % 4], number).view());
        write_file(*folder_ / name, bytes);
        archive.file(name.substr(2), {bytes.begin(), bytes.end()});
      };
      add("a/" + std::string(i % 3 == 0 ? "sub/" : "") + std::to_string(i) + ".png", i, zip);
      add("b/" + std::to_string(i) + ".png", 50 + i, tar);
    }
    zip.close();
    tar.close();
  }
  static void TearDownTestSuite() {
    cache_.reset();
    folder_.reset();
  }
  void SetUp() override {
    const fs::path weights = fs::path(GP_SOURCE_DIR) / ".deps/efficientnet_lite0.safetensors";
    if (!fs::exists(weights)) GTEST_SKIP() << weights << " does not exist; run tools/bootstrap";
  }

  static std::string at(const std::string& name) { return "'" + (*folder_ / name).string() + "'"; }
  static ToolResult evaluate(const std::string& arguments) {
    // One thread: OpenMP's threads wait for each other by spinning, and tests run side by side.
    const bool threads = arguments.find("--threads") != std::string::npos;
    return run_tool("gan-pipeline",
                    "evaluate --device cpu " + arguments + (threads ? "" : " --threads 1"));
  }
  static json record(const std::string& arguments) {
    const ToolResult result = evaluate(arguments + " --json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
    return json::parse(result.out, nullptr, false);
  }
  static double distance(const json& record) {
    return record["metrics"]["frechet_distance"].get<double>();
  }
  /// A run of one epoch over drawn images of 16x16.
  static void make_run() {
    if (fs::exists(*folder_ / "runs")) return;
    write_file(*folder_ / "tiny.yaml",
               std::string("name: tiny\nstages:\n"
                           "  - {use: source.synthetic, size: 16, draws: 16}\n"
                           "  - {use: batch, size: 8}\n"
                           "  - {use: train.dcgan, epochs: 1, channels: 4, max_channels: 8}\n"
                           "  - {use: evaluate.quality, every: 100000, n_fake: 9, seed: 3, "
                           "reference: {draws: 9}}\n"));
    const ToolResult result =
        run_tool("gan-pipeline", "run " + at("tiny.yaml") + " --threads 1 --out " + at("runs"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  static void make_shards() {
    if (fs::exists(*folder_ / "shards")) return;
    write_file(*folder_ / "prep.yaml",
               std::string("name: prep\nstages:\n  - {use: source.folder, root: a}\n"
                           "  - {use: image.decode}\n  - {use: image.resize, size: 16}\n"
                           "  - {use: sink.shards, root: shards}\n"));
    const ToolResult result = run_tool("gan-prep", "build " + at("prep.yaml"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  static std::unique_ptr<testing::TemporaryFolder> folder_;
  static std::unique_ptr<testing::ScopedVariable> cache_;
};
std::unique_ptr<testing::TemporaryFolder> Evaluate::folder_;
std::unique_ptr<testing::ScopedVariable> Evaluate::cache_;

TEST_F(Evaluate, TwoFoldersGiveOneLine) {
  const ToolResult result = evaluate(at("a") + " --against " + at("b"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string name = "FD-EfficientNet-Lite0: ";
  EXPECT_EQ(result.out.rfind(name, 0), 0U) << result.out;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
  EXPECT_CONTAINS(result.err, "10 images against 10");
  EXPECT_CONTAINS(result.err, "warning: FD-EfficientNet-Lite0 is taken from fewer images than");

  const json cached = record(at("a") + " --against " + at("b"));
  EXPECT_NEAR(std::stod(result.out.substr(name.size())), distance(cached), 1e-5);
  EXPECT_EQ(cached["sets"]["fake"]["cached"], true);
  EXPECT_EQ(cached["n_fake"], 10);
  EXPECT_EQ(cached["n_real"], 10);
  EXPECT_EQ(cached["rank_deficient"], true);
  EXPECT_EQ(cached["rejected"], 0);
  EXPECT_EQ(cached["extractor"], "efficientnet_lite0");
  EXPECT_EQ(cached["sets"]["fake"]["kind"], "folder");
  for (const char* metric : {"kid", "precision", "recall"}) {
    EXPECT_TRUE(cached["metrics"].contains(metric)) << metric;
  }
  for (const char* digest : {"fake", "real", "extractor"}) {
    EXPECT_EQ(cached["digests"][digest].get<std::string>().size(), 64U) << digest;
  }
  // Neither the cache nor the number of threads makes a difference.
  const json two = record(at("a") + " --against " + at("b") + " --no-cache --threads 2");
  EXPECT_EQ(two["sets"]["fake"]["cached"], false);
  EXPECT_NEAR(distance(two), distance(cached), 1e-5 * distance(cached));
}

TEST_F(Evaluate, ImagesReachTheNetworkAtTheirOwnSizeFromFoldersAndArchives) {
  // The same images as a folder, whose name is not UTF-8, and as a zip; one is not decodable.
  fs::copy(*folder_ / "a", *folder_ / "\xFF broken", fs::copy_options::recursive);
  std::ofstream(*folder_ / "\xFF broken/5b.jpg") << "no picture";
  const ToolResult result =
      evaluate(at("\xFF broken") + " --against " + at("a.zip") + " --json --threads 1");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "'5b.jpg' is left out: not an image in a known format");
  EXPECT_CONTAINS(result.err, "broken: 1 of 11 images could not be used");
  const json same = json::parse(result.out);
  EXPECT_EQ(same["rejected"], 1);
  EXPECT_EQ(same["n_fake"], 10);
  EXPECT_EQ(same["sets"]["real"]["kind"], "archive");
  EXPECT_GE(distance(same), 0);
  EXPECT_LT(distance(same), 1e-6);
  EXPECT_EQ(same["metrics"]["recall"], 1);
}

TEST_F(Evaluate, EachKindOfSetComparesWithTheOthers) {
  make_run();
  make_shards();
  const std::string run = at("runs/00000-tiny");
  const json drawn =
      record(run + " --against " + at("b.tgz") + " --save-statistics " + at("r.npz"));
  EXPECT_EQ(drawn["sets"]["fake"]["kind"], "run");
  EXPECT_EQ(drawn["sets"]["real"]["kind"], "archive");
  EXPECT_EQ(drawn["n_fake"], 9);  // as the run's evaluate.quality says
  EXPECT_EQ(drawn["sets"]["fake"]["seed"], 3);

  const json other =
      record(at("shards") + " --against " +
             at("runs/00000-tiny/checkpoints/step-00000002.safetensors") + " --count 4 --seed 8");
  EXPECT_EQ(other["sets"]["fake"]["kind"], "shards");
  EXPECT_EQ(other["n_fake"], 10);
  EXPECT_EQ(other["sets"]["real"]["kind"], "checkpoint");
  EXPECT_EQ(other["n_real"], 4);
  EXPECT_EQ(other["sets"]["real"]["seed"], 8);

  // Statistics stand for the images that they were taken from, on either side.
  const json saved = record(at("r.npz") + " --against " + at("b.tgz"));
  EXPECT_EQ(saved["sets"]["fake"]["kind"], "statistics");
  EXPECT_NEAR(distance(saved), distance(drawn), 1e-6 * distance(drawn));
  EXPECT_FALSE(saved["metrics"].contains("kid"));
  const ToolResult only = evaluate(at("b") + " --save-statistics " + at("b.npz"));
  EXPECT_EQ(only.exit_code, 0) << only.err;
  EXPECT_EQ(only.out, (*folder_ / "b.npz").string() + "\n");
  const json reversed = record(run + " --against " + at("b.npz"));
  EXPECT_NEAR(distance(reversed), distance(drawn), 1e-5 * distance(drawn));

  // Without --against a run is measured as its evaluate stage does.
  const json alone = record(run + " --count 5");
  EXPECT_EQ(alone["real"], "reference");
  EXPECT_EQ(alone["n_fake"], 5);
  EXPECT_TRUE(alone.contains("accuracy"));
}

TEST_F(Evaluate, InceptionsProtocolsDiffer) {
  const testing::DrawnWeights weights;
  for (const char* name : {"x", "y"}) fs::create_directories(*folder_ / name);
  for (int i = 0; i < 2; ++i) {
    write_png(*folder_ / ("x/" + std::to_string(i) + ".png"), picture({48, 32}, i).view());
    write_png(*folder_ / ("y/" + std::to_string(i) + ".png"), picture({32, 48}, 9 + i).view());
  }
  const std::string arguments = at("x") + " --against " + at("y") +
                                " --extractor inception_v3 --weights '" + weights.file().string() +
                                "' --protocol ";
  const ToolResult pytorch =
      evaluate(arguments + "legacy_pytorch --save-statistics " + at("x.npz"));
  ASSERT_EQ(pytorch.exit_code, 0) << pytorch.err;
  const std::string name = "FID (Inception, legacy_pytorch): ";
  ASSERT_EQ(pytorch.out.rfind(name, 0), 0U) << pytorch.out;
  const ToolResult clean = evaluate(arguments.substr(0, arguments.find(" --against")) +
                                    arguments.substr(arguments.find(" --extractor")) +
                                    "clean --save-statistics " + at("clean.npz"));
  ASSERT_EQ(clean.exit_code, 0) << clean.err;
  const auto mean = [](const char* file) {
    return read_npz(*folder_ / file, {"mu"}, 2048).arrays.at("mu").values;
  };
  EXPECT_EQ(mean("x.npz").size(), 2048U);
  EXPECT_NE(mean("x.npz"), mean("clean.npz"));

  // 2048 dimensions are Inception's, which must be asked for.
  ToolResult result = evaluate(at("x.npz") + " --against " + at("y"));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err,
                  "x.npz: holds statistics of 2048 dimensions, but the features of the "
                  "extractor efficientnet_lite0 have 1280");
  EXPECT_CONTAINS(result.err, "--extractor inception_v3");
  result = evaluate(at("x.npz") + " --against " + at("y") +
                    " --extractor inception_v3 --weights '" + weights.file().string() + "'");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "x.npz: was made with another protocol");
}

TEST_F(Evaluate, WhatIsWrongIsSaid) {
  make_run();
  fs::create_directories(*folder_ / "empty");
  fs::create_directories(*folder_ / "one");
  fs::copy_file(*folder_ / "b/0.png", *folder_ / "one/0.png", fs::copy_options::overwrite_existing);
  fs::create_directories(*folder_ / "junk");
  std::ofstream(*folder_ / "junk/a.png") << "no picture";
  std::ofstream(*folder_ / "junk/b.png") << "no picture";
  std::ofstream(*folder_ / "text.txt") << "text";
  std::ofstream(*folder_ / "bad.zip") << "PK\3\4 and no more";
  std::ofstream(*folder_ / "bad.npz") << "text";
  write_npz(*folder_ / "mu.npz", {{{"mu", {{1280}, std::vector<double>(1280)}}}, {}});
  struct Row {
    std::string arguments;
    int exit_code;
    std::string message;
  };
  const std::string b = " --against " + at("b");
  const Row rows[] = {
      {at("a"), 2, "missing --against B"},
      {"", 2, "missing A"},
      {at("nowhere") + b, 3, "nowhere: is not there; expected a run directory"},
      {at("a") + " --against " + at("nowhere"), 3, "nowhere: is not there"},
      {at("empty") + b, 3, "no images in"},
      {at("empty") + b, 3, "saved statistics (.npz with mu and sigma)"},
      {at("one") + b, 3, "one: holds 1 image that can be used; a covariance needs at least 2"},
      {at("junk") + b, 3, "junk: holds no image that can be used"},
      {at("text.txt") + b, 3, "text.txt: is none of what can be evaluated; expected"},
      {"/dev/null" + b, 3, "/dev/null: is neither a file nor a folder"},
      {at("bad.zip") + b, 3, "bad.zip"},
      {at("bad.npz") + b, 3, "bad.npz: "},
      {at("mu.npz") + b, 3, "mu.npz: has no array 'sigma'"},
      {at("a") + b + " --extractor resnet", 2, "extractor = resnet is not one of"},
      {at("a") + b + " --protocol clean", 2, "leave `protocol` out"},
      {at("a") + b + " --weights " + at("text.txt"), 3, "text.txt: "},
      {at("a") + b + " --threads 0", 2, "--threads 0: expected 1 or more"},
      {at("a") + b + " --count 1", 2, "n_fake = 1 is outside"},
      {at("a") + b + " --set seed=2", 2, "--set seed=2: a comparison of two sets has"},
      {at("a") + b + " --set stages.evaluate.quality.kernel_distanse=false", 2,
       "did you mean 'kernel_distance'"},
      {at("a") + b + " --save-statistics x.txt", 2, "expected the name of a .npz file"},
      {at("a") + b + " --save-statistics " + at("missing/x.npz"), 2, "a folder that exists"},
      {at("runs/00000-tiny") + " --no-cache", 2, "--no-cache needs --against B"},
  };
  for (const Row& row : rows) {
    const ToolResult result = evaluate(row.arguments);
    EXPECT_EQ(result.exit_code, row.exit_code) << row.arguments << "\n" << result.err;
    EXPECT_CONTAINS(result.err, row.message);
    EXPECT_EQ(result.out, "") << row.arguments;
  }
}

TEST_F(Evaluate, AnInterruptEndsWith130) {
  fs::create_directories(*folder_ / "many");
  for (int i = 0; i < 3000; ++i) {
    fs::create_symlink(*folder_ / ("a/" + std::string(i % 2 == 0 ? "1" : "2") + ".png"),
                       *folder_ / ("many/" + std::to_string(i) + ".png"));
  }
  const std::string program = testing::tool_path("gan-pipeline");
  const std::string many = (*folder_ / "many").string(), b = (*folder_ / "b").string();
  const std::string err = (*folder_ / "err").string();
  const char* arguments[] = {program.c_str(), "evaluate",   many.c_str(), "--against",
                             b.c_str(),       "--no-cache", nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr,
                        const_cast<char* const*>(arguments), environ),
            0);
  posix_spawn_file_actions_destroy(&actions);
  const auto started = [&] {
    return fs::exists(err) && read_text(err).find("evaluating ") != std::string::npos;
  };
  for (int i = 0; i < 1200 && !started(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_CONTAINS(read_text(err), " of 3010 images");
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
}

}  // namespace
}  // namespace gp
