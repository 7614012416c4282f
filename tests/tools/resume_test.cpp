// Runs that are stopped, killed, damaged and resumed: the real program, YAML, modules opened by it.

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "stages/data/hdf5/shard_set_writer.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"
#include "tests/support/run_tool.hpp"

extern char** environ;

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ToolResult;

constexpr int kKilled = 128 + SIGKILL;  // as a shell tells it

const char kInjector[] = "LD_PRELOAD='" GP_FAULT_INJECTOR "' ";
const char kDrawn[] = "  - {use: source.synthetic, size: 16, draws: 43}\n";
const char kTrain[] =
    "  - {use: batch, size: 8}\n"
    "  - {use: train.dcgan, epochs: 3, channels: 4, max_channels: 8, latent: 8, ema: 0.9,\n"
    "     sample_every: 1, save_every: 3, log_every: 2}\n";
const char kMeasure[] = "  - {use: test.measure, best: 5}\n";

std::vector<json> lines(const fs::path& file) {
  std::vector<json> all;
  if (!fs::exists(file)) return all;
  std::istringstream text(read_text(file));
  for (std::string line; std::getline(text, line);) all.push_back(json::parse(line));
  return all;
}

/// metrics.jsonl but for the times.
std::vector<json> metrics(const fs::path& run) {
  std::vector<json> all = lines(run / "metrics.jsonl");
  for (json& line : all) {
    line.erase("images_per_second");
    line.erase("waited");
  }
  return all;
}

fs::path checkpoint(const fs::path& run, std::uint64_t step) {
  char name[64];
  std::snprintf(name, sizeof name, "checkpoints/step-%08llu.safetensors",
                static_cast<unsigned long long>(step));
  return run / name;
}

/// The names, shapes and bytes of all tensors of a safetensors file.
std::string tensors(const fs::path& file) {
  const std::string bytes = read_text(file);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  json names = json::parse(bytes.substr(8, header));
  names.erase("__metadata__");
  return names.dump() + bytes.substr(8 + header);
}

std::vector<std::uint64_t> steps_of(const fs::path& run) {
  std::vector<std::uint64_t> steps;
  const json index = json::parse(read_text(run / "checkpoints/index.json"));
  for (const json& entry : index["checkpoints"]) {
    steps.push_back(entry["step"].get<std::uint64_t>());
  }
  return steps;
}

/// The program on its own, to be sent signals.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), testing::tool_path("gan-pipeline"));
    std::vector<char*> raw;
    for (std::string& argument : arguments) raw.push_back(argument.data());
    raw.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&child_, raw[0], nullptr, nullptr, raw.data(), environ), 0);
  }
  ~Running() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      wait();
    }
  }
  void send(int signal) const { kill(child_, signal); }
  bool ended() const {  // and still to be waited for
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == child_;
  }
  /// The exit code, or minus the signal.
  int wait() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t child_ = 0;
};

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 1200 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return condition();
}

class Resume : public ::testing::Test {
 protected:
  void configure(const std::string& source, const std::string& more = kMeasure,
                 const std::string& train = kTrain) {
    write_file(folder_ / "tiny.yaml",
               "name: tiny\nseed: 4\nplugins: [augment_flip, augment_noise]\n"
               "modules: ['" GP_MEASURES_SNAPSHOT "']\nstages:\n" +
                   source +
                   "  - {use: augment.flip, p: 0.5}\n"
                   "  - {use: augment.noise, sigma: 3}\n" +
                   train + more + "run: {device: cpu, precision: fp32}\n");
  }
  /// Photos of several kinds, three of them broken.
  std::string photos() const {
    const fs::path decode = fs::path(GP_SOURCE_DIR) / "tests/stages/data/fixtures/decode";
    fs::create_directories(folder_ / "photos");
    int number = 0;
    for (const char* name : {"exif1", "exif2", "exif3", "exif4", "gray", "cmyk"}) {
      const std::string bytes = read_text(decode / (name + std::string(".jpg")));
      for (int copy = 0; copy < 6; ++copy, ++number) {
        const bool broken = number % 12 == 5;
        write_file(folder_ / ("photos/" + std::to_string(number) + ".jpg"),
                   std::string_view(bytes).substr(0, bytes.size() / (broken ? 2 : 1)));
      }
    }
    return "  - {use: source.folder, root: photos, max_rejects: 3}\n  - {use: image.decode}\n"
           "  - {use: image.resize, size: 16}\n";
  }
  /// Shards of noise, two images of which are damaged.
  std::string shards() const {
    constexpr ImageShape kShape{16, 16};
    const fs::path root = folder_ / "shards";
    const FolderLock lock(root);
    ShardSetWriter writer(root, {kShape, {"a", "b", "c", "d"}, "d", {"by hand"}, 20, 0});
    for (std::uint64_t number = 0; number < 37; ++number) {
      const std::string key = test::key_of(number);
      const std::int32_t label = test::label_of(number);
      writer.append(test::noise(kShape, number), {&key, 1}, {&label, 1});
    }
    writer.finish(37);
    std::string bytes = read_text(root / "shard-00000.h5");
    for (const std::uint64_t number : {3U, 11U}) {
      const auto image = test::noise(kShape, number);
      bytes[bytes.find(std::string(image.begin(), image.end()))] ^= 1;
    }
    test::overwrite(root / "shard-00000.h5", bytes);
    return "  - {use: source.shards, root: shards}\n";
  }

  std::string quoted(const fs::path& path) const { return "'" + path.string() + "'"; }
  ToolResult start(const std::string& parent, const std::string& more = "--threads 1",
                   const std::string& before = "") const {
    return testing::run_shell(before + testing::tool_path("gan-pipeline") + " run " +
                              quoted(folder_ / "tiny.yaml") + " --out " + quoted(folder_ / parent) +
                              " --device cpu " + more);
  }
  ToolResult resume(const std::string& parent, const std::string& more = "",
                    const std::string& before = "") const {
    return testing::run_shell(before + testing::tool_path("gan-pipeline") + " run --resume " +
                              quoted(run(parent)) + " " + more);
  }
  fs::path run(const std::string& parent) const { return folder_ / parent / "00000-tiny"; }

  /// The operations on files of an undisturbed run, in their order.
  std::vector<std::string> operations_of(const std::string& parent) const {
    const fs::path log = folder_ / (parent + ".log");
    const ToolResult result =
        start(parent, "--threads 1", kInjector + ("FAULT_LOG='" + log.string() + "' "));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    std::vector<std::string> operations;
    std::istringstream text(read_text(log));
    for (std::string name; std::getline(text, name);) operations.push_back(name);
    return operations;
  }
  /// Both have ended at the same step with the same history, but for times.
  void expect_equal(const fs::path& a, const fs::path& b) const {
    EXPECT_EQ(metrics(a), metrics(b));
    EXPECT_EQ(lines(a / "evaluation.jsonl"), lines(b / "evaluation.jsonl"));
    EXPECT_EQ(lines(a / "rejects.jsonl"), lines(b / "rejects.jsonl"));
    ASSERT_EQ(steps_of(a), steps_of(b));
    const std::uint64_t last = steps_of(a).back();
    EXPECT_TRUE(tensors(checkpoint(a, last)) == tensors(checkpoint(b, last)));
    for (const auto& entry : fs::directory_iterator(a / "samples")) {
      EXPECT_TRUE(read_text(entry.path()) == read_text(b / "samples" / entry.path().filename()))
          << entry.path();
    }
    for (const auto& entry : fs::recursive_directory_iterator(b)) {
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
    }
  }

  testing::TemporaryFolder folder_;
};

/// A source, and the trainer's threads.
class ResumeEqual : public Resume,
                    public ::testing::WithParamInterface<std::pair<const char*, int>> {};

TEST_P(ResumeEqual, AStoppedRunGoesOnAsIfItHadNotBeen) {
  const auto [source, threads] = GetParam();
  configure(source == std::string("photos") ? photos() : shards());
  const std::string budget = "--threads " + std::to_string(threads);
  const ToolResult whole = start("whole", budget);
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  // In the middle of an epoch and of a line of metrics.jsonl, after its last batch, at its end.
  for (const int stop : {7, 4, 9}) {
    SCOPED_TRACE("stopped after step " + std::to_string(stop));
    const std::string parts = "parts" + std::to_string(stop);
    ToolResult result = start(parts, budget + " --max-steps " + std::to_string(stop));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(steps_of(run(parts)).back(), static_cast<std::uint64_t>(stop));
    fs::remove_all(run(parts) / "plots");
    // Data threads do not count.
    result = resume(parts, "--set run.data_threads=2");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_CONTAINS(result.err, "resuming after step " + std::to_string(stop));
    EXPECT_EQ(result.err.find("bits differ"), std::string::npos) << result.err;
    // What was evaluated where it stopped stays.
    std::vector<json> records = lines(run(parts) / "evaluation.jsonl");
    std::erase_if(records, [&](const json& record) { return record["step"] == stop; });
    std::vector<json> expected = lines(run("whole") / "evaluation.jsonl");
    std::erase_if(expected, [&](const json& record) { return record["step"] == stop; });
    EXPECT_EQ(records, expected);
    fs::copy_file(run("whole") / "evaluation.jsonl", run(parts) / "evaluation.jsonl",
                  fs::copy_options::overwrite_existing);
    expect_equal(run("whole"), run(parts));
    EXPECT_TRUE(fs::exists(run(parts) / "plots/loss.png"));
    EXPECT_EQ(json::parse(read_text(run(parts) / "run.json"))["resumed"][0]["step"], stop);
  }
  EXPECT_GE(lines(run("whole") / "rejects.jsonl").size(), 6U);
  ASSERT_EQ(lines(run("whole") / "evaluation.jsonl").size(), 3U);
}

INSTANTIATE_TEST_SUITE_P(Sources, ResumeEqual,
                         ::testing::Values(std::pair{"photos", 1}, std::pair{"photos", 2},
                                           std::pair{"shards", 1}, std::pair{"shards", 2}));

TEST_F(Resume, KilledAnywhereItGoesOnToTheSameEnd) {
  configure(kDrawn);
  const std::string injector = kInjector;
  const std::vector<std::string> operations = operations_of("whole");
  const double duration =
      std::chrono::duration<double>(fs::last_write_time(run("whole") / "checkpoints/index.json") -
                                    fs::last_write_time(run("whole") / "config.yaml"))
          .count();
  std::set<std::string> hit;
  int resumed = 0;
  int from_a_checkpoint = 0;
  Rng rng(1, "kills", 0);
  constexpr int kPoints = 50;
  for (int point = 0; point < kPoints; ++point) {
    const std::string parts = "parts" + std::to_string(point);
    // One point in each of equal stretches, so that no phase is left out. Every third point is a
    // moment between file operations instead.
    const std::size_t first = operations.size() * static_cast<std::size_t>(point) / kPoints;
    const std::size_t last = operations.size() * static_cast<std::size_t>(point + 1) / kPoints;
    const std::size_t at = first + rng.below(static_cast<std::uint32_t>(last - first));
    const bool at_operation = point % 3 != 2;
    SCOPED_TRACE("killed at operation " + std::to_string(at + 1) + " of " +
                 std::to_string(operations.size()) + ", a " + operations[at] +
                 (at_operation ? "" : ", or rather at a random moment"));
    if (at_operation) {
      const ToolResult killed =
          start(parts, "--threads 1", injector + "FAULT_KILL=" + std::to_string(at + 1) + " ");
      ASSERT_EQ(killed.exit_code, kKilled) << killed.err;
      hit.insert(operations[at]);
    } else {
      Running program({"run", (folder_ / "tiny.yaml").string(), "--out", (folder_ / parts).string(),
                       "--device", "cpu", "--threads", "1"});
      ASSERT_TRUE(wait_for([&] { return fs::exists(run(parts) / "config.yaml"); }));
      std::this_thread::sleep_for(std::chrono::duration<double>(rng.uniform() * duration));
      program.send(SIGKILL);
      program.wait();
    }
    if (!fs::exists(run(parts) / "config.yaml")) {
      // Nothing was begun, so there is nothing to go on with, and it says so.
      EXPECT_LT(at, 10U);
      EXPECT_CONTAINS(resume(parts).err, "no config.yaml in it");
      continue;
    }
    // Now and then it is killed again while it goes on.
    if (point % 5 == 0) {
      resume(parts, "",
             injector + "FAULT_KILL=" +
                 std::to_string(1 + rng.below(static_cast<std::uint32_t>(operations.size() / 2))) +
                 " ");
    }
    const ToolResult result = resume(parts);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    ++resumed;
    from_a_checkpoint += result.err.find("resuming after step") != std::string::npos ? 1 : 0;
    expect_equal(run("whole"), run(parts));
    // Each step once.
    std::set<json> steps;
    for (const json& line : metrics(run(parts))) EXPECT_TRUE(steps.insert(line["step"]).second);
    fs::remove_all(folder_ / parts);
    if (HasFailure()) break;
  }
  EXPECT_GE(resumed, 45);
  EXPECT_GE(from_a_checkpoint, 25);
  for (const char* kind : {"create", "write", "fsync", "rename"}) {
    EXPECT_EQ(hit.count(kind), 1U) << kind;
  }
}

TEST_F(Resume, WhatIsDamagedIsPassedOverForTheCheckpointBefore) {
  configure(kDrawn);
  ASSERT_EQ(start("whole").exit_code, 0);
  const auto damage = [&](const std::string& parts, const auto& change) {
    ASSERT_EQ(start(parts, "--threads 1 --max-steps 8").exit_code, 0);
    ASSERT_EQ(steps_of(run(parts)), (std::vector<std::uint64_t>{6, 8}));
    change(checkpoint(run(parts), 8));
    const ToolResult result = resume(parts);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_CONTAINS(result.err, "step-00000008.safetensors: the checkpoint");
    EXPECT_CONTAINS(result.err, "using the checkpoint before: ");
    EXPECT_CONTAINS(result.err, "resuming after step 6");
    std::vector<json> records = lines(run(parts) / "evaluation.jsonl");
    EXPECT_EQ(records, lines(run("whole") / "evaluation.jsonl"));
    expect_equal(run("whole"), run(parts));
  };
  damage("flipped", [](const fs::path& file) {
    std::string bytes = read_text(file);
    bytes[bytes.size() / 2] ^= 1;
    test::overwrite(file, bytes);
  });
  damage("torn", [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); });
  damage("missing", [](const fs::path& file) { fs::remove(file); });
  damage("foreign", [&](const fs::path& file) {
    fs::copy_file(checkpoint(run("whole"), 15), file, fs::copy_options::overwrite_existing);
  });

  // All of them: refused, and nothing is started over.
  ASSERT_EQ(start("all", "--threads 1 --max-steps 8").exit_code, 0);
  for (const int step : {6, 8}) fs::resize_file(checkpoint(run("all"), step), 100);
  const ToolResult result = resume("all");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "none of the checkpoints that index.json lists is whole");
}

TEST_F(Resume, ACheckpointOfAnotherFormatIsRefusedByName) {
  configure(kDrawn);
  ASSERT_EQ(start("parts", "--threads 1 --max-steps 3").exit_code, 0);
  const fs::path file = checkpoint(run("parts"), 3);
  std::string bytes = read_text(file);
  const std::string format = "\\\"format\\\":";
  ASSERT_NE(bytes.find(format), std::string::npos);
  bytes[bytes.find(format) + format.size()] = '9';
  test::overwrite(file, bytes);
  const fs::path index = run("parts") / "checkpoints/index.json";
  json list = json::parse(read_text(index));
  list["checkpoints"][0]["sha256"] = sha256_file(file);
  write_file(index, list.dump());
  const ToolResult result = resume("parts");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, file.string());
  EXPECT_CONTAINS(result.err, "its format is 9");
}

TEST_F(Resume, WhatWouldBeAnotherTrainingIsRefusedWithTheDifference) {
  configure(photos());
  ASSERT_EQ(start("parts", "--threads 1 --max-steps 6").exit_code, 0);
  const std::string before = read_text(run("parts") / "config.yaml");
  const auto refuse = [&](const std::string& more, int exit_code, const std::string& text) {
    const ToolResult result = resume("parts", more);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_CONTAINS(result.err, text);
    EXPECT_EQ(read_text(run("parts") / "config.yaml"), before);
  };
  refuse("--set stages.batch.size=4 --set seed=5", 2, "stages.batch.size is 4, was 8");
  refuse("--set stages.batch.size=4 --set seed=5", 2, "seed is 5, was 4");
  refuse("--set stages.augment.flip.p=0.25", 2, "stages.augment.flip.p is 0.25, was 0.5");
  refuse("--set stages.train.dcgan.latent=16", 2, "stages.train.dcgan.latent is 16, was 8");
  refuse("--out elsewhere", 2, "--out and --resume exclude each other");
  refuse(quoted(folder_ / "tiny.yaml"), 2, "leave '");
  EXPECT_CONTAINS(testing::run_tool("gan-pipeline", "run").err, "missing CONFIG, or --resume");
  const ToolResult nowhere = testing::run_tool("gan-pipeline", "run --resume /nowhere");
  EXPECT_EQ(nowhere.exit_code, 3);
  EXPECT_CONTAINS(nowhere.err, "is no run directory");

  // Data that have moved are the same; data with one file more are not.
  fs::rename(folder_ / "photos", folder_ / "moved");
  const std::string moved =
      "--set stages.source.folder.root=" + quoted(folder_ / "moved") + " --max-steps 7";
  fs::copy_file(folder_ / "moved/1.jpg", folder_ / "moved/new.jpg");
  refuse(moved, 3, "was trained on other data");
  fs::remove(folder_ / "moved/new.jpg");
  const ToolResult result = resume("parts", moved);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "changed: stages.source.folder.root is");
  EXPECT_EQ(metrics(run("parts")).back()["step"], 7);
}

TEST_F(Resume, OtherThreadsOfTheTrainerWarn) {
  configure(kDrawn);
  ASSERT_EQ(start("parts", "--threads 1 --max-steps 3").exit_code, 0);
  const ToolResult result = resume("parts", "--threads 2 --max-steps 4");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "the trainer has 2 threads and had 1");
  EXPECT_EQ(json::parse(read_text(run("parts") / "run.json"))["threads"]["end"], 2);
}

TEST_F(Resume, AFinishedRunSaysSoAndMayBeMadeLonger) {
  configure(kDrawn);
  ASSERT_EQ(start("longer", "--threads 1 --set stages.train.dcgan.epochs=4").exit_code, 0);
  ASSERT_EQ(start("run").exit_code, 0);
  const std::vector<json> before = metrics(run("run"));
  ToolResult result = resume("run");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "the training is finished: step 15, epoch 3 of 3");
  EXPECT_EQ(metrics(run("run")), before);
  EXPECT_EQ(lines(run("run") / "evaluation.jsonl").size(), 3U);
  result = resume("run", "--set stages.train.dcgan.epochs=4");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "changed: stages.train.dcgan.epochs is 4, was 3");
  expect_equal(run("longer"), run("run"));
}

TEST_F(Resume, TornLinesAndThoseAfterTheCheckpointAreRemoved) {
  configure(photos());
  ASSERT_EQ(start("whole").exit_code, 0);
  ASSERT_EQ(start("parts", "--threads 1 --max-steps 6").exit_code, 0);
  for (const char* name : {"metrics.jsonl", "evaluation.jsonl", "rejects.jsonl"}) {
    std::ofstream(run("parts") / name, std::ios::app)
        << R"({"step":99,"key":"x","loss_d":1,"loss_g":1,"accuracy_real":1,"accuracy_fake":1})"
        << "\n{\"step\":1";
  }
  ASSERT_EQ(resume("parts").exit_code, 0);
  std::vector<json> records = lines(run("parts") / "evaluation.jsonl");
  std::erase_if(records, [](const json& record) { return record["step"] == 6; });
  EXPECT_EQ(records, lines(run("whole") / "evaluation.jsonl"));
  EXPECT_EQ(metrics(run("parts")), metrics(run("whole")));
  EXPECT_EQ(lines(run("parts") / "rejects.jsonl"), lines(run("whole") / "rejects.jsonl"));
}

TEST_F(Resume, InterruptedWhileEvaluatingItEvaluatesAgain) {
  configure(kDrawn);
  ASSERT_EQ(start("whole").exit_code, 0);
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    SCOPED_TRACE(signal);
    const std::string parts = "parts" + std::to_string(signal);
    Running program({"run", (folder_ / "tiny.yaml").string(), "--out", (folder_ / parts).string(),
                     "--device", "cpu", "--threads", "1", "--set",
                     "stages.test.measure.milliseconds=600000"});
    ASSERT_TRUE(wait_for([&] { return fs::exists(run(parts) / "samples/fakes_000001.png"); }));
    if (signal != SIGKILL) {  // a second process is kept out meanwhile
      const ToolResult second = resume(parts);
      EXPECT_EQ(second.exit_code, 5);
      EXPECT_CONTAINS(second.err, "another process is at work in this run directory");
    }
    program.send(signal);
    EXPECT_EQ(program.wait(), signal == SIGKILL ? -SIGKILL : 130);
    EXPECT_FALSE(fs::exists(run(parts) / "evaluation.jsonl"));
    EXPECT_EQ(steps_of(run(parts)).back(), signal == SIGKILL ? 3U : 5U);
    const ToolResult result = resume(parts, "--set stages.test.measure.milliseconds=0");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_equal(run("whole"), run(parts));
  }
}

TEST_F(Resume, ASecondSignalStopsAtOnce) {
  configure(kDrawn);
  ASSERT_EQ(start("whole").exit_code, 0);
  for (const auto& [first, second] : {std::pair{SIGINT, SIGINT}, {SIGTERM, SIGINT}}) {
    SCOPED_TRACE(std::to_string(first) + " and " + std::to_string(second));
    const std::string parts = "parts" + std::to_string(first);
    // The evaluation after step 5 takes ten minutes, whatever it is asked.
    Running program({"run", (folder_ / "tiny.yaml").string(), "--out", (folder_ / parts).string(),
                     "--device", "cpu", "--threads", "1", "--set",
                     "stages.test.measure.milliseconds=600000", "--set",
                     "stages.test.measure.deaf=true"});
    ASSERT_TRUE(wait_for([&] { return fs::exists(run(parts) / "samples/fakes_000001.png"); }));
    program.send(first);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    ASSERT_FALSE(program.ended());  // one signal lets it finish what it does
    program.send(second);
    ASSERT_TRUE(wait_for([&] { return program.ended(); }));
    EXPECT_EQ(program.wait(), 130);
    EXPECT_EQ(steps_of(run(parts)).back(), 3U);  // nothing was saved on the way out
    const ToolResult result = resume(
        parts, "--set stages.test.measure.milliseconds=0 --set stages.test.measure.deaf=false");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_CONTAINS(result.err, "resuming after step 3");
    expect_equal(run("whole"), run(parts));
  }
}

/// An evaluator that training does not wait for may pass over snapshots, and one that is stopped in
/// the middle of it may be lost; but no step is there twice, each line is what an undisturbed run
/// would have written, and the last snapshot has one.
class ResumeBeside : public Resume {
 protected:
  void SetUp() override {
    configure(kDrawn);
    const ToolResult whole = start("whole");
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    for (const json& record : lines(run("whole") / "evaluation.jsonl")) {
      expected_[record["step"].get<std::uint64_t>()] = record;
    }
    ASSERT_EQ(expected_.size(), 3U);
  }
  void expect_scores(const std::string& parts) {
    std::uint64_t before = 0;
    for (const json& record : lines(run(parts) / "evaluation.jsonl")) {
      const auto step = record["step"].get<std::uint64_t>();
      EXPECT_GT(step, before);
      EXPECT_EQ(record, expected_[step]);
      before = step;
    }
    EXPECT_EQ(before, 15U);
    EXPECT_EQ(metrics(run(parts)), metrics(run("whole")));
  }

  std::map<std::uint64_t, json> expected_;
};

TEST_F(ResumeBeside, StoppedWhileItMeasuresTheLastSnapshotIsMeasuredOnResume) {
  for (const int signal : {SIGINT, SIGKILL}) {
    SCOPED_TRACE(signal);
    const std::string parts = "parts" + std::to_string(signal);
    Running program({"run", (folder_ / "tiny.yaml").string(), "--out", (folder_ / parts).string(),
                     "--device", "cpu", "--threads", "1", "--set",
                     "stages.test.measure.milliseconds=600000", "--set",
                     "stages.test.measure.blocking=false"});
    // The last step is done, step 5 is being measured and step 15 waits, or is about to.
    ASSERT_TRUE(wait_for([&] { return fs::exists(run(parts) / "samples/fakes_000003.png"); }));
    program.send(signal);
    EXPECT_EQ(program.wait(), signal == SIGKILL ? -SIGKILL : 130);
    EXPECT_FALSE(fs::exists(run(parts) / "evaluation.jsonl"));
    const ToolResult result = resume(parts,
                                     "--set stages.test.measure.milliseconds=0 --set "
                                     "stages.test.measure.blocking=false");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_scores(parts);
  }
}

TEST_F(ResumeBeside, KilledAnywhereNoScoreIsThereTwiceAndTheLastIsThere) {
  const std::string beside =
      "--threads 1 --set stages.test.measure.blocking=false "
      "--set stages.test.measure.milliseconds=";
  const std::size_t operations = operations_of("counted").size();
  constexpr std::size_t kPoints = 12;
  int killed = 0;
  int scores_before = 0;
  for (std::size_t point = 0; point < kPoints; ++point) {
    const std::string parts = "parts" + std::to_string(point);
    // From before the first step to the end; evaluations that take no time, or some steps'.
    const std::size_t at = 12 + (operations - 12) * point / kPoints;
    SCOPED_TRACE("killed at operation " + std::to_string(at));
    const ToolResult first = start(parts, beside + (point % 2 == 0 ? "0" : "40"),
                                   kInjector + ("FAULT_KILL=" + std::to_string(at)) + " ");
    killed += first.exit_code == kKilled ? 1 : 0;
    scores_before += fs::exists(run(parts) / "evaluation.jsonl") ? 1 : 0;
    const ToolResult result = resume(parts, "--set stages.test.measure.milliseconds=0");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_scores(parts);
    if (HasFailure()) break;
  }
  EXPECT_GE(killed, 10);
  EXPECT_GE(scores_before, 1);
}

TEST_F(Resume, TheBestCheckpointIsKeptBesideTheLast) {
  configure(kDrawn, "  - {use: test.measure, best: 9}\n");  // 5, 10 and 15 are evaluated
  ASSERT_EQ(start("run",
                  "--threads 1 --set stages.train.dcgan.epochs=5 --set "
                  "stages.train.dcgan.keep_best=distance")
                .exit_code,
            0);
  EXPECT_EQ(steps_of(run("run")), (std::vector<std::uint64_t>{10, 24, 25}));
  EXPECT_EQ(lines(run("run") / "evaluation.jsonl").size(), 5U);
  ASSERT_EQ(start("stopped",
                  "--threads 1 --max-steps 12 --set stages.train.dcgan.epochs=5 --set "
                  "stages.train.dcgan.keep_best=distance")
                .exit_code,
            0);
  ASSERT_EQ(resume("stopped").exit_code, 0);
  EXPECT_EQ(steps_of(run("stopped")), (std::vector<std::uint64_t>{10, 24, 25}));
}

TEST_F(Resume, AFullDiskWhileSavingKeepsTheCheckpointsBefore) {
  configure(kDrawn);
  ASSERT_EQ(start("whole").exit_code, 0);
  // Full from the middle on: the run goes on to its end, where it says what is missing.
  const auto operations = operations_of("counted");
  const ToolResult full =
      start("parts", "--threads 1",
            std::string(kInjector) + "FAULT_FULL=" + std::to_string(operations.size() / 2) + " ");
  EXPECT_EQ(full.exit_code, 5) << full.err;
  EXPECT_CONTAINS(full.err, "no checkpoint of step ");
  EXPECT_CONTAINS(full.err, "The training goes on");
  EXPECT_CONTAINS(full.err, "epoch 3/3");
  EXPECT_CONTAINS(full.err, "No space left on device");
  const ToolResult result = resume("parts");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err.find("using the checkpoint before"), std::string::npos) << result.err;
  expect_equal(run("whole"), run("parts"));
}

TEST_F(Resume, ALossThatIsNotFiniteIsHandledAsToldAndNeverSilent) {
  configure(kDrawn);
  ASSERT_EQ(start("run", "--threads 1 --max-steps 6").exit_code, 0);
  // The checkpoint gets a weight that no loss survives, and the digest that belongs to it.
  const fs::path file = checkpoint(run("run"), 6);
  std::string bytes = read_text(file);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const json names = json::parse(bytes.substr(8, header));
  const std::uint64_t offset = names["D.dense.weight"]["data_offsets"][0].get<std::uint64_t>();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(&bytes[8 + header + offset], &nan, sizeof nan);
  test::overwrite(file, bytes);
  const fs::path index = run("run") / "checkpoints/index.json";
  json list = json::parse(read_text(index));
  for (json& entry : list["checkpoints"]) {
    if (entry["step"] == 6) entry["sha256"] = sha256_file(file);
  }
  write_file(index, list.dump());
  const auto run_with = [&](const std::string& policy) {
    fs::remove_all(folder_ / policy);
    fs::copy(folder_ / "run", folder_ / policy, fs::copy_options::recursive);
    return resume(policy, "--set stages.train.dcgan.on_nan=" + policy +
                              " --set stages.train.dcgan.epochs=100");
  };
  ToolResult result = run_with("stop");
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_CONTAINS(result.err, "not finite at step 7");
  EXPECT_CONTAINS(result.err, "Its batch: ");
  result = run_with("skip");
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_CONTAINS(result.err, "not finite at step 7");
  EXPECT_CONTAINS(result.err, "the step is left out (10 such steps so far). Its batch: ");
  EXPECT_CONTAINS(result.err, "on_nan: skip did not help 10 times in a row");
  result = run_with("rollback");
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_CONTAINS(result.err, "went back to the state of step 6 (3 such steps so far)");
  EXPECT_CONTAINS(result.err, "on_nan: rollback did not help 3 times in a row");
  EXPECT_EQ(metrics(run("rollback")).back()["step"], 5);  // its last whole line
}

TEST_F(Resume, ExportWritesTheGeneratorAlone) {
  configure(kDrawn);
  ASSERT_EQ(start("run").exit_code, 0);
  const fs::path out = folder_ / "generator.safetensors";
  const ToolResult result =
      testing::run_tool("gan-pipeline", "export " + quoted(run("run")) + " --out " + quoted(out));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, out.string() + "\n");
  const std::string bytes = read_text(out);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const json names = json::parse(bytes.substr(8, header));
  for (const auto& [name, ignored] : names.items()) {
    EXPECT_TRUE(name.rfind("G.", 0) == 0 || name == "__metadata__") << name;
  }
  const json metadata = json::parse(names["__metadata__"]["gan_pipeline"].get<std::string>());
  EXPECT_EQ(metadata["model"]["latent"], 8);
  EXPECT_EQ(metadata["average"], true);
  EXPECT_EQ(metadata["step"], 15);
  EXPECT_EQ(testing::run_tool("gan-pipeline", "export " + quoted(run("run"))).exit_code, 2);
}

}  // namespace
}  // namespace gp
