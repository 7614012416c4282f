// Recipes of train.gan through the real program: YAML, modules opened by it, checkpoints, pictures.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ToolResult;

const char kInjector[] = "LD_PRELOAD='" GP_FAULT_INJECTOR "' ";

/// 8 x 8 for 24 images, 16 x 16 for 24, then 32 x 32; batches of 8, 8 and 4, 40 images an epoch.
const char kPhases[] =
    "  - {use: train.gan, epochs: 2, growth: phases, first_resolution: 8, final_resolution: 32,\n"
    "     phase_kimg: 0.024, fade_kimg: 0.016, phase_batch: [8, 8, 4],\n"
    "     phase_size: source.synthetic.size, latent: 8, channels: 4, max_channels: 8,\n"
    "     ema_half_life_kimg: 0.05, r1: 1, penalty_every: 2, augment_colour: true,\n"
    "     augment_target: 0.2, augment_speed_kimg: 0.1, sample_every: 1, save_every: 2,\n"
    "     keep_last: 50}\n";

class GanRecipes : public ::testing::Test {
 protected:
  void configure(const std::string& train) {
    write_file(folder_ / "tiny.yaml",
               "name: tiny\nseed: 4\nstages:\n"
               "  - {use: source.synthetic, size: 32, draws: 40}\n"
               "  - {use: batch, size: 8}\n" +
                   train + "run: {device: cpu, precision: fp32}\n");
  }
  static std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }
  fs::path run(const std::string& parent) const { return folder_ / parent / "00000-tiny"; }
  ToolResult start(const std::string& parent, const std::string& more = "",
                   const std::string& before = "") const {
    return testing::run_shell(before + testing::tool_path("gan-pipeline") + " run " +
                              quoted(folder_ / "tiny.yaml") + " --out " + quoted(folder_ / parent) +
                              " --threads 1 " + more);
  }
  ToolResult resume(const std::string& parent) const {
    return testing::run_tool("gan-pipeline", "run --resume " + quoted(run(parent)));
  }
  /// metrics.jsonl but for the times.
  static std::vector<json> metrics(const fs::path& run) {
    std::vector<json> all;
    std::ifstream file(run / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      all.push_back(json::parse(line));
      all.back().erase("images_per_second");
      all.back().erase("waited");
    }
    return all;
  }
  static std::vector<std::string> checkpoints(const fs::path& run) {
    std::vector<std::string> files;
    const json index = json::parse(read_text(run / "checkpoints/index.json"));
    for (const json& entry : index["checkpoints"]) {
      files.push_back(entry["file"]);
    }
    return files;
  }
  /// The names, shapes and bytes of all tensors of a safetensors file.
  static std::string tensors(const fs::path& file) {
    const std::string bytes = read_text(file);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    json names = json::parse(bytes.substr(8, header));
    names.erase("__metadata__");
    return names.dump() + bytes.substr(8 + header);
  }
  static void expect_equal(const fs::path& a, const fs::path& b) {
    EXPECT_EQ(metrics(a), metrics(b));
    ASSERT_EQ(checkpoints(a).back(), checkpoints(b).back());
    const fs::path last = fs::path("checkpoints") / checkpoints(a).back();
    EXPECT_TRUE(tensors(a / last) == tensors(b / last));
    for (const auto& entry : fs::directory_iterator(a / "samples")) {
      EXPECT_TRUE(read_text(entry.path()) == read_text(b / "samples" / entry.path().filename()))
          << entry.path();
    }
  }
  /// Width and height that a PNG's header tells.
  static std::pair<int, int> png_size(const fs::path& file) {
    const std::string bytes = read_text(file);
    const auto number = [&](std::size_t at) {
      int value = 0;
      for (std::size_t i = 0; i < 4; ++i) {
        value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
      }
      return value;
    };
    return {number(16), number(20)};
  }

  testing::TemporaryFolder folder_;
};

TEST_F(GanRecipes, GrowingIsStoppedAndKilledAnywhereAndGoesOnToTheSameEnd) {
  configure(kPhases);
  const fs::path log = folder_ / "operations";
  ToolResult result = start("whole", "", kInjector + ("FAULT_LOG=" + quoted(log) + " "));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::pair<int, double>> growth;
  for (const json& line : metrics(run("whole"))) {
    growth.emplace_back(line.at("resolution"), line.at("fade"));
    EXPECT_EQ(line.at("step"), growth.size());
  }
  const std::vector<std::pair<int, double>> expected = {
      {8, 1},    {8, 1},     {8, 1},  {16, 0.5}, {16, 1}, {16, 1}, {32, 0.25},
      {32, 0.5}, {32, 0.75}, {32, 1}, {32, 1},   {32, 1}, {32, 1}, {32, 1}};
  EXPECT_EQ(growth, expected);

  // In a phase, inside both fades, and between phases.
  for (const int stop : {2, 3, 4, 6, 8}) {
    SCOPED_TRACE("stopped after step " + std::to_string(stop));
    const std::string parts = "stopped" + std::to_string(stop);
    result = start(parts, "--max-steps " + std::to_string(stop));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    result = resume(parts);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.err.find("resuming after step " + std::to_string(stop)), std::string::npos);
    expect_equal(run("whole"), run(parts));
  }
  const std::string operations = read_text(log);
  const auto count = static_cast<int>(std::count(operations.begin(), operations.end(), '\n'));
  for (const double share : {0.3, 0.5, 0.7}) {
    SCOPED_TRACE("killed after " + std::to_string(share) + " of its file operations");
    const std::string parts = "killed" + std::to_string(static_cast<int>(10 * share));
    result =
        start(parts, "",
              kInjector + ("FAULT_KILL=" + std::to_string(static_cast<int>(share * count)) + " "));
    ASSERT_EQ(result.exit_code, 128 + SIGKILL) << result.err;
    result = resume(parts);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_equal(run("whole"), run(parts));
  }
}

TEST_F(GanRecipes, CheckpointsOfAnEarlyPhaseGivePicturesOfFullSize) {
  configure(kPhases + std::string("  - {use: evaluate.quality, every: 100000, n_fake: 9, seed: 3, "
                                  "reference: {draws: 9}}\n"));
  ToolResult result = start("run", "--max-steps 4");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json during = json::parse(read_text(run("run") / "evaluation.jsonl"));
  result = testing::run_tool("gan-pipeline",
                             "evaluate " + quoted(run("run")) + " --device cpu --threads 1 --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json after = json::parse(result.out);
  EXPECT_EQ(after.at("metrics").at("frechet_distance"),
            during.at("metrics").at("frechet_distance"));
  EXPECT_EQ(after.at("accuracy"), during.at("accuracy"));
  for (const std::string& name : checkpoints(run("run"))) {  // 8 x 8, and 16 x 16 in a fade
    SCOPED_TRACE(name);
    const fs::path file = run("run") / "checkpoints" / name;
    result = testing::run_tool("gan-pipeline", "sample " + quoted(file) + " --out " +
                                                   quoted(folder_ / "grid.png") + " --grid 1x1");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto [width, height] = png_size(folder_ / "grid.png");
    EXPECT_GE(width, 32);
    EXPECT_LT(width, 64);
    EXPECT_EQ(width, height);
    result = testing::run_tool("gan-pipeline", "export " + quoted(file) + " --out " +
                                                   quoted(folder_ / "generator.safetensors"));
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

TEST_F(GanRecipes, PhasesShorterThanABatchAreOverBeforeTheyBegin) {
  configure(kPhases);
  const ToolResult result = start("run",
                                  "--max-steps 2 --set stages.train.gan.phase_kimg=0.004 "
                                  "--set stages.train.gan.fade_kimg=0");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto lines = metrics(run("run"));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].at("resolution"), 8);
  EXPECT_EQ(lines[1].at("resolution"), 32);
}

TEST_F(GanRecipes, WhatAStepCostsIsMeasuredAtFullSize) {
  configure(kPhases);
  const std::string config = " " + quoted(folder_ / "tiny.yaml") + " --threads 1 --seconds 0.2";
  ToolResult result = testing::run_tool("gan-pipeline", "bench --trainer" + config);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE((result.out + result.err).find("32x32 images"), std::string::npos) << result.out;
  result = testing::run_tool("gan-pipeline", "bench" + config);
  EXPECT_EQ(result.exit_code, 2) << result.out;
  EXPECT_NE(result.err.find("trains in phases"), std::string::npos) << result.err;
  result = testing::run_tool("gan-pipeline", "bench --until batch" + config);
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(GanRecipes, ClassesOfTheSourceOrOfItsShardsAreDrawnByName) {
  configure(
      "  - {use: train.gan, epochs: 1, conditional: true, latent: 8, channels: 4,\n"
      "     max_channels: 8, sample_every: 1, rows: 2, columns: 3}\n");
  ToolResult result = start("drawn");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::string config = read_text(folder_ / "tiny.yaml");
  const std::string source = "source.synthetic, size: 32, draws: 40";
  const std::string shards = "shards, root: " + quoted(folder_ / "shards");
  write_file(folder_ / "prep.yaml",
             "stages:\n  - {use: " + source + "}\n  - {use: sink." + shards + "}\n");
  result = testing::run_tool("gan-prep", "build " + quoted(folder_ / "prep.yaml"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  config.replace(config.find(source), source.size(), "source." + shards);
  write_file(folder_ / "tiny.yaml", config);
  result = start("stored");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const fs::path& directory : {run("drawn"), run("stored")}) {
    SCOPED_TRACE(directory);
    // A row for each of the seven types of aircraft.
    const auto [width, height] = png_size(directory / "samples/classes_000001.png");
    EXPECT_GE(width, 3 * 32);
    EXPECT_LT(width, 4 * 32);
    EXPECT_GE(height, 7 * 32);
    EXPECT_LT(height, 8 * 32);
    const auto sample = [&](const std::string& name, const std::string& file) {
      return testing::run_tool("gan-pipeline", "sample " + quoted(directory) +
                                                   " --device cpu --grid 1x3 --class '" + name +
                                                   "' --out " + quoted(folder_ / file));
    };
    EXPECT_EQ(sample("tri-jet", "a.png").exit_code, 0);
    EXPECT_EQ(sample("business jet", "b.png").exit_code, 0);
    EXPECT_NE(read_text(folder_ / "a.png"), read_text(folder_ / "b.png"));
    result = sample("fihgter", "c.png");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find("did you mean 'fighter'"), std::string::npos) << result.err;
  }
  // The same images in the same order, with the same labels.
  EXPECT_EQ(metrics(run("drawn")).back().at("loss_g"), metrics(run("stored")).back().at("loss_g"));
}

TEST_F(GanRecipes, WhatIsWrongIsToldWithItsPlaceBeforeAnythingRuns) {
  configure(kPhases);
  const std::string config = quoted(folder_ / "tiny.yaml");
  const std::string wrong = " --set stages.train.gan.phase_size=image.resize.size";
  for (const std::string& command :
       {"validate " + config, "run " + config + " --out " + quoted(folder_ / "runs")}) {
    SCOPED_TRACE(command);
    const ToolResult result = testing::run_tool("gan-pipeline", command + wrong);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_NE(result.err.find("tiny.yaml:6:11: the schedule of 'train.gan' sets "
                              "'image.resize.size', and that is no parameter of a stage"),
              std::string::npos)
        << result.err;
    EXPECT_FALSE(fs::exists(folder_ / "runs"));
  }
}

}  // namespace
}  // namespace gp
