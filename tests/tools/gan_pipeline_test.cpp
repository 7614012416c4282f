// gan-pipeline as a user runs it: the real program, YAML, modules and plugins opened by it.

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "pipeline/files.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"

extern char** environ;

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::run_tool;
using testing::ToolResult;

const char kConfig[] = R"(
name: tiny
seed: 4
plugins: [augment_flip, augment_affine, augment_grayscale, augment_noise]
stages:
  - {use: source.synthetic, size: 16, draws: 40}
  - {use: augment.flip, p: 0.5}
  - {use: augment.affine, translate: 0.05, rotate: 10, scale: 0.05}
  - {use: augment.grayscale, p: 0.2}
  - {use: augment.noise, sigma: 3}
  - {use: batch, size: 8}
  - {use: train.dcgan, epochs: 2, channels: 4, max_channels: 8, sample_every: 1, ema: 0.9}
)";

std::vector<json> lines(const fs::path& file) {
  std::vector<json> result;
  std::istringstream text(read_text(file));
  for (std::string line; std::getline(text, line);) result.push_back(json::parse(line));
  return result;
}

class GanPipeline : public ::testing::Test {
 protected:
  void SetUp() override { write_file(config(), kConfig); }
  fs::path config() const { return folder_ / "tiny.yaml"; }
  std::string out() const { return " --out '" + (folder_ / "runs").string() + "'"; }
  std::string quoted(const fs::path& path) const { return "'" + path.string() + "'"; }
  ToolResult run(const std::string& more = "") const {
    return run_tool("gan-pipeline", "run " + quoted(config()) + out() + " --threads 1 " + more);
  }

  testing::TemporaryFolder folder_;
};

TEST_F(GanPipeline, TrainsFromYamlThroughPlugins) {
  const ToolResult result = run();
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const fs::path directory = folder_ / "runs/00000-tiny";
  EXPECT_EQ(result.out, directory.string() + "\n");
  for (const char* file :
       {"config.yaml", "run.json", "log.txt", "samples/reals.png", "samples/fakes_000001.png",
        "samples/fakes_000002.png", "checkpoints/index.json",
        "checkpoints/step-00000010.safetensors", "plots/loss.png", "plots/acc.png"}) {
    EXPECT_TRUE(fs::exists(directory / file)) << file;
  }
  const auto metrics = lines(directory / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), 10U);
  for (const char* field : {"step", "epoch", "images", "loss_d", "loss_g", "accuracy_real",
                            "accuracy_fake", "images_per_second"}) {
    EXPECT_TRUE(metrics.back().contains(field)) << field;
  }
  EXPECT_EQ(metrics.back()["step"], 10);
  EXPECT_EQ(metrics.back()["images"], 80);
  const json record = json::parse(read_text(directory / "run.json"));
  EXPECT_EQ(record["plugins"][0]["name"], "augment_flip");
  EXPECT_EQ(record["plugins"][0]["sha256"].get<std::string>().size(), 64U);
  EXPECT_CONTAINS(result.err, "epoch 2/2");

  // The same seed gives the same losses; another one does not.
  ASSERT_EQ(run().exit_code, 0);
  ASSERT_EQ(run("--set seed=5").exit_code, 0);
  const auto again = lines(folder_ / "runs/00001-tiny/metrics.jsonl");
  const auto other = lines(folder_ / "runs/00002-tiny/metrics.jsonl");
  EXPECT_EQ(again.back()["loss_g"], metrics.back()["loss_g"]);
  EXPECT_NE(other.back()["loss_g"], metrics.back()["loss_g"]);

  // Without the second plugin it still runs: swapping one is a change of YAML only.
  const ToolResult sample =
      run_tool("gan-pipeline", "sample " + quoted(directory) + " --out " +
                                   quoted(folder_ / "grid.png") + " --grid 2x3 --device cpu");
  EXPECT_EQ(sample.exit_code, 0) << sample.err;
  EXPECT_TRUE(fs::exists(folder_ / "grid.png"));
  const ToolResult singles =
      run_tool("gan-pipeline", "sample " + quoted(directory) + " --out " +
                                   quoted(folder_ / "singles") + " --count 3 --device cpu");
  EXPECT_EQ(singles.exit_code, 0) << singles.err;
  EXPECT_TRUE(fs::exists(folder_ / "singles/000002.png"));
}

TEST_F(GanPipeline, BenchSaysWhatTheStagesCostAndWritesNothing) {
  const ToolResult whole = run_tool("gan-pipeline", "bench " + quoted(config()) +
                                                        " --seconds 0.2 --json --threads 1 "
                                                        "--set stages.train.dcgan.epochs=100000");
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const json result = json::parse(whole.out);
  EXPECT_GT(result["images_per_second"], 0);
  EXPECT_EQ(result["stages"].front()["name"], "source.synthetic");
  EXPECT_EQ(result["stages"].back()["name"], "train.dcgan");
  const ToolResult data = run_tool(
      "gan-pipeline", "bench " + quoted(config()) + " --seconds 0.2 --until augment.affine");
  ASSERT_EQ(data.exit_code, 0) << data.err;
  EXPECT_CONTAINS(data.out, "augment.affine");
  EXPECT_CONTAINS(data.out, "is the bottleneck");
  EXPECT_EQ(data.out.find("augment.noise"), std::string::npos);
  EXPECT_EQ(run_tool("gan-pipeline", "bench " + quoted(config()) + " --seconds 0").exit_code, 2);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_.path())) files.push_back(entry.path());
  EXPECT_EQ(files, std::vector<fs::path>{config()});
}

TEST_F(GanPipeline, BenchSaysWhereTheTimeOfAStepGoes) {
  const std::string command = "bench " + quoted(config()) + " --trainer --seconds 0.1";
  const ToolResult text = run_tool("gan-pipeline", command);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"train.dcgan: 16x16 images", "s a step of 8 images", "peak memory",
                           "convolution_backward [8,"}) {
    EXPECT_CONTAINS(text.out, part);
  }
  const ToolResult result = run_tool("gan-pipeline", command + " --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json profile = json::parse(result.out);
  double sum = 0;
  std::map<std::string, double> calls;
  bool sized = false;  // not among the longest everywhere, so not always in the text
  for (const json& operation : profile["operations"]) {
    sum += operation["seconds"].get<double>();
    const auto name = operation["operation"].get<std::string>();
    sized = sized || name.find("norm_activation [8,") != std::string::npos;
    calls[name.substr(0, name.find(' '))] += operation["calls"].get<double>();
  }
  EXPECT_GT(sum, 0);
  EXPECT_TRUE(sized);
  // D: two blocks, three passes; G: one block. Each has one forward and one backward.
  EXPECT_EQ(calls["norm_activation"], 7);
  EXPECT_EQ(calls["norm_activation_backward"], 7);
  EXPECT_EQ(calls["_fused_adam_"], 3);
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
  EXPECT_EQ(run_tool("gan-pipeline", command + " --until augment.flip").exit_code, 2);
}

TEST_F(GanPipeline, WarnsOfBf16WhereItIsSlower) {
  const auto log_in = [&](const std::string& precision) {
    return run("--max-steps 1 --set run.device=cpu --set run.precision=" + precision).err;
  };
  const std::string automatic = log_in("auto");
  const bool faster = automatic.find(" on cpu in bf16") != std::string::npos;
  EXPECT_NE(faster, automatic.find(" on cpu in fp32") != std::string::npos) << automatic;
  const std::string warning = "take run.precision: auto or fp32";
  EXPECT_EQ(log_in("bf16").find(warning) == std::string::npos, faster);
  EXPECT_EQ(automatic.find(warning), std::string::npos);
  EXPECT_EQ(log_in("fp32").find(warning), std::string::npos);
}

TEST_F(GanPipeline, BenchCountsPenaltiesThatNotEveryStepHas) {
  const auto convolutions = [this](int penalty_every) {
    const ToolResult result = run_tool(
        "gan-pipeline", "bench " + quoted(fs::path(GP_SOURCE_DIR) / "configs/demo.yaml") +
                            " --trainer --seconds 0.1 --json --set stages.train.gan.max_channels=8"
                            " --set stages.train.gan.penalty_every=" +
                            std::to_string(penalty_every));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const json profile = json::parse(result.out);
    double calls = 0;
    for (const json& operation : profile["operations"]) {
      if (operation["operation"].get<std::string>().find("convolution") != std::string::npos)
        calls += operation["calls"].get<double>();
    }
    return calls;
  };
  const double each = convolutions(1), second = convolutions(2), fourth = convolutions(4);
  EXPECT_GT(each, second);
  EXPECT_NEAR(each - second, 2 * (second - fourth), 1e-6);
}

TEST_F(GanPipeline, TraceShowsWhatEveryThreadDid) {
  const fs::path trace = folder_ / "trace.json";
  const ToolResult result = run("--max-steps 3 --trace " + quoted(trace));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json file = json::parse(read_text(trace));
  int steps = 0;
  bool found = false;
  for (const json& event : file["traceEvents"]) {
    steps += event["name"] == "step" ? 1 : 0;
    found = found || (event["name"] == "augment.noise" && event["args"].contains("key"));
  }
  EXPECT_GE(steps, 2);
  EXPECT_TRUE(found);
  const ToolResult nowhere = run("--trace " + quoted(folder_ / "missing/trace.json"));
  EXPECT_EQ(nowhere.exit_code, 2);
  EXPECT_CONTAINS(nowhere.err, "expected the name of a file in a folder that exists");
}

TEST_F(GanPipeline, ThreadsThatAreAutoAreMeasuredAndKeptInTheRecord) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one processor leaves no choice";
  const ToolResult result =
      run_tool("gan-pipeline", "run " + quoted(config()) + out() + " --max-steps 1 --device cpu");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json threads = json::parse(read_text(folder_ / "runs/00000-tiny/run.json"))["threads"];
  EXPECT_GE(threads["data"], 1);
  EXPECT_GE(threads["end"], 1);
  EXPECT_GT(threads["measured_images_per_second"]["data_on_one_thread"], 0);
  EXPECT_GT(threads["measured_images_per_second"]["training_on_all"], 0);
}

TEST_F(GanPipeline, EvaluatesInTheRunAndAfterwards) {
  const fs::path weights = fs::path(GP_SOURCE_DIR) / ".deps/efficientnet_lite0.safetensors";
  if (!fs::exists(weights)) GTEST_SKIP() << weights << " does not exist; run tools/bootstrap";
  write_file(config(), std::string(kConfig) +
                           "  - {use: evaluate.quality, every: 2, reference: {draws: 12}, "
                           "held_out: {first: 100, draws: 12}, n_fake: 12, weights: '" +
                           weights.string() + "'}\n");
  ::setenv("GAN_PIPELINE_CACHE", (folder_ / "cache").c_str(), 1);
  const ToolResult result = run();
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const fs::path directory = folder_ / "runs/00000-tiny";
  const auto records = lines(directory / "evaluation.jsonl");
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0]["extractor"], "efficientnet_lite0");
  EXPECT_EQ(records[0]["n_fake"], 12);
  EXPECT_TRUE(records[0]["rank_deficient"].get<bool>());
  EXPECT_CONTAINS(result.err, "FD-EfficientNet-Lite0");
  const ToolResult again = run_tool(
      "gan-pipeline", "evaluate " + quoted(directory) + " --threads 1 --device cpu --json");
  ASSERT_EQ(again.exit_code, 0) << again.err;
  const json record = json::parse(again.out);
  EXPECT_NEAR(record["metrics"]["frechet_distance"].get<double>(),
              records[0]["metrics"]["frechet_distance"].get<double>(), 1e-6);
  EXPECT_EQ(record["accuracy"], records[0]["accuracy"]);
}

TEST_F(GanPipeline, EvaluationChangesNoLoss) {
  const fs::path weights = fs::path(GP_SOURCE_DIR) / ".deps/efficientnet_lite0.safetensors";
  if (!fs::exists(weights)) GTEST_SKIP() << weights << " does not exist; run tools/bootstrap";
  ::setenv("GAN_PIPELINE_CACHE", (folder_ / "cache").c_str(), 1);
  const std::string evaluation =
      "  - {use: evaluate.quality, every: 1, reference: {draws: 12}, held_out: {first: 100, "
      "draws: 12}, n_fake: 12, bootstrap: 2, weights: '" +
      weights.string() + "'";
  ASSERT_EQ(run().exit_code, 0);
  write_file(config(), std::string(kConfig) + evaluation + "}\n");
  ToolResult evaluated = run();
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  write_file(config(), std::string(kConfig) + evaluation + ", blocking: false}\n");
  const fs::path trace = folder_ / "trace.json";
  evaluated = run("--trace " + quoted(trace));
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;

  const auto blocking = lines(folder_ / "runs/00001-tiny/evaluation.jsonl");
  ASSERT_EQ(blocking.size(), 2U);
  for (const char* metric :
       {"frechet_distance", "frechet_distance_standard_error", "frechet_distance_ci", "floor",
        "kid", "kid_ci", "precision", "recall", "nearer_than_held_out"}) {
    EXPECT_TRUE(blocking[0]["metrics"].contains(metric)) << metric;
  }
  EXPECT_FALSE(blocking[0].contains("skipped"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/00001-tiny/samples/nearest_000001.png"));

  // The last snapshot is always evaluated; the first one, unless the second came before its turn.
  const auto beside = lines(folder_ / "runs/00002-tiny/evaluation.jsonl");
  ASSERT_FALSE(beside.empty());
  EXPECT_EQ(beside.back()["step"], blocking[1]["step"]);
  EXPECT_EQ(beside.back()["accuracy"], blocking[1]["accuracy"]);
  EXPECT_NEAR(beside.back()["metrics"]["frechet_distance"].get<double>(),
              blocking[1]["metrics"]["frechet_distance"].get<double>(), 1e-4);
  EXPECT_EQ(beside.size() + beside.back()["skipped"].size(), 2U);
  EXPECT_CONTAINS(read_text(trace), "evaluation beside training");

  const auto without = lines(folder_ / "runs/00000-tiny/metrics.jsonl");
  for (const char* run : {"runs/00001-tiny", "runs/00002-tiny"}) {
    const auto with = lines(folder_ / run / "metrics.jsonl");
    ASSERT_EQ(without.size(), with.size());
    for (std::size_t i = 0; i < with.size(); ++i) {  // the second epoch comes after an evaluation
      for (const char* loss : {"loss_d", "loss_g"}) {
        EXPECT_EQ(with[i][loss], without[i][loss]) << run << ", line " << i;
      }
    }
  }
}

TEST_F(GanPipeline, DryRunTellsTheShapesAndWritesNothing) {
  const ToolResult result = run("--dry-run");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.out, "augment.noise: 16x16");
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(GanPipeline, ExitCodesAndMessagesTellWhatIsWrong) {
  ToolResult result = run("--set stages.augment.flip.p=1.5");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "outside [0, 1]");
  result = run_tool("gan-pipeline", "run " + quoted(config()) + " --devise cpu");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "devise");
  result = run_tool("gan-pipeline", "rnu");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "did you mean 'run'");
  result = run_tool("gan-pipeline", "validate " + quoted(folder_ / "none.yaml"));
  EXPECT_EQ(result.exit_code, 2);
  // What only a stage itself knows to contradict each other.
  const std::string both =
      " --set stages.train.dcgan.ema=0.9 --set stages.train.dcgan.ema_half_life_kimg=1";
  for (const char* const command : {"validate ", "run --dry-run "}) {
    result = run_tool("gan-pipeline", command + quoted(config()) + both);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_CONTAINS(result.err, "tiny.yaml:");
    EXPECT_CONTAINS(result.err, "'train.dcgan': train.dcgan: ema and ema_half_life_kimg");
  }
  // Weights may be elsewhere; what is written is right.
  write_file(config(), std::string(kConfig) +
                           "  - {use: evaluate.quality, extractor: inception_v3, weights: none}\n");
  EXPECT_EQ(run_tool("gan-pipeline", "validate " + quoted(config())).exit_code, 0);
  EXPECT_EQ(run("--dry-run").exit_code, 3);
  write_file(config(), kConfig);

  result = run_tool("gan-pipeline",
                    "run " + quoted(fs::path(GP_SOURCE_DIR) / "configs/aircraft.yaml") + out() +
                        " --set stages.source.fgvc.root=" + quoted(folder_ / "nothing"));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "robots.ox.ac.uk/~vgg/data/fgvc-aircraft");
  EXPECT_FALSE(fs::exists(folder_ / "runs"));

  result = run("--set 'plugins=[augment_nothing]'");
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_CONTAINS(result.err, "augment_nothing");
  result = run_tool("gan-pipeline", "sample " + quoted(folder_.path()) + " --out x.png");
  EXPECT_EQ(result.exit_code, 3);
}

TEST_F(GanPipeline, AnInterruptSavesTheStateAndEndsWith130) {
  const std::string program = std::string(GP_BINARY_DIR) + "/bin/gan-pipeline";
  const std::string runs = (folder_ / "runs").string();
  const std::string yaml = config().string();
  const char* arguments[] = {program.c_str(),
                             "run",
                             yaml.c_str(),
                             "--out",
                             runs.c_str(),
                             "--threads",
                             "1",
                             "--set",
                             "stages.train.dcgan.epochs=100000",
                             nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, program.c_str(), nullptr, nullptr,
                        const_cast<char* const*>(arguments), environ),
            0);
  const fs::path directory = folder_ / "runs/00000-tiny";
  const auto started = [&] {
    return fs::exists(directory / "metrics.jsonl") &&
           fs::file_size(directory / "metrics.jsonl") > 0;
  };
  for (int i = 0; i < 600 && !started(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  const auto index = json::parse(read_text(directory / "checkpoints/index.json"));
  EXPECT_FALSE(index.empty());
}

TEST_F(GanPipeline, InspectOfADataStageDoesNotLoadLibtorch) {
  const ToolResult result = run_tool("gan-pipeline", "inspect image.resize --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.out, "\"image.resize\"");
  const ToolResult traced = run_tool(
      "gan-pipeline", "inspect image.resize >/dev/null; LD_DEBUG=files " +
                          std::string(GP_BINARY_DIR) + "/bin/gan-pipeline inspect image.resize");
  EXPECT_EQ(traced.err.find("libtorch"), std::string::npos);
  const ToolResult all = run_tool("gan-pipeline", "inspect");
  for (const char* stage : {"augment.flip", "source.shards", "train.dcgan", "evaluate.quality"}) {
    EXPECT_CONTAINS(all.out, stage);
  }
}

TEST(ShippedConfigs, AreValid) {
  const fs::path configs = fs::path(GP_SOURCE_DIR) / "configs";
  for (const fs::path& folder : {configs, configs / "study"}) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() != ".yaml") continue;
      const ToolResult result =
          run_tool("gan-pipeline", "validate '" + entry.path().string() + "'");
      EXPECT_EQ(result.exit_code, 0) << result.err;
    }
  }
}

TEST(ShippedConfigs, AircraftTakesAPhotographThroughEveryStage) {
  const fs::path photos = fs::path(GP_SOURCE_DIR) / "../shared/data/fgvc-aircraft-2013b";
  if (!fs::exists(photos)) GTEST_SKIP() << photos << " does not exist";
  const ToolResult result = run_tool("gan-pipeline", "run '" GP_SOURCE_DIR
                                                     "/configs/aircraft.yaml' --dry-run --set "
                                                     "stages.source.fgvc.root='" +
                                                         photos.string() + "'");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.out, "augment.affine: 128x128");
  EXPECT_CONTAINS(result.out, "663 samples an epoch, batches of 64");
}

TEST(Readme, ShowsThePluginThatShips) {
  const std::string plugin = read_text(fs::path(GP_SOURCE_DIR) / "plugins/augment_flip.cpp");
  EXPECT_NE(read_text(fs::path(GP_SOURCE_DIR) / "README.md").find("```cpp\n" + plugin + "```"),
            std::string::npos)
      << "the example in README.md is not plugins/augment_flip.cpp word for word";
}

}  // namespace
}  // namespace gp
