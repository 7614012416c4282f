// Damaged data, places that can't be written, full disks, and two at once, through the real
// programs: one clear message, the documented exit code, and nothing half-written under a final
// name.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::run_shell;
using testing::tool_path;
using testing::ToolResult;

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      files[fs::relative(entry.path(), folder).string()] = read_text(entry.path());
    }
  }
  return files;
}

/// A file system of its own at `folder`, for as long as it lives.
class MountedDisk {
 public:
  MountedDisk(fs::path folder, const std::string& options, unsigned long flags = 0)
      : folder_(std::move(folder)) {
    fs::create_directory(folder_);
    mounted_ = ::mount("none", folder_.c_str(), "tmpfs", flags, options.c_str()) == 0;
  }
  ~MountedDisk() {
    if (mounted_) {
      EXPECT_EQ(::umount(folder_.c_str()), 0);
    }
  }
  MountedDisk(const MountedDisk&) = delete;
  MountedDisk& operator=(const MountedDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  fs::path folder_;
  bool mounted_ = false;
};

class BadInput : public ::testing::Test {
 protected:
  BadInput() {
    write("train.yaml",
          "name: t\nstages:\n"
          "  - {use: source.synthetic, size: 16, draws: 64}\n"
          "  - {use: batch, size: 16}\n"
          "  - {use: train.dcgan, epochs: 1, channels: 4, max_channels: 8, sample_every: 1, "
          "save_every: 1}\n");
    write("shards.yaml",
          "name: t\nstages:\n"
          "  - {use: source.shards, root: shards}\n"
          "  - {use: batch, size: 16}\n"
          "  - {use: train.dcgan, epochs: 1, channels: 4, max_channels: 8}\n");
    write("prep.yaml",
          "stages:\n"
          "  - {use: source.synthetic, size: 16, draws: 300}\n"
          "  - {use: sink.shards, root: shards, images_per_shard: 100}\n");
  }

  void write(const std::string& name, const std::string& text) { write_file(folder_ / name, text); }
  /// `gan-pipeline` or `gan-prep` with arguments, in the test's folder; `before` comes first.
  ToolResult run(const std::string& command, const std::string& before = "true") const {
    const auto space = command.find(' ');
    return run_shell("cd '" + folder_.path().string() + "' && { " + before + "; } && " +
                     tool_path(command.substr(0, space)) + command.substr(space));
  }
  /// Expects the exit code and one message of the program that holds `part`.
  void expect(const ToolResult& result, int exit_code, const std::string& part) const {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_CONTAINS(result.err, part);
    int messages = 0;
    std::istringstream lines(result.err);
    for (std::string line; std::getline(lines, line);) {
      messages += line.starts_with("gan-pipeline: ") || line.starts_with("gan-prep: ") ? 1 : 0;
    }
    EXPECT_EQ(messages, exit_code == 0 ? 0 : 1) << result.err;
    EXPECT_EQ(result.err.find("terminate called"), std::string::npos) << result.err;
  }
  void build_shards() const { ASSERT_EQ(run("gan-prep build prep.yaml").exit_code, 0); }
  void expect_no_temporary_files() const {
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
    }
  }
  /// What index.json lists is there, and whole.
  void expect_checkpoints_whole(const fs::path& run_directory, std::size_t least) const {
    const fs::path index = run_directory / "checkpoints/index.json";
    if (least == 0 && !fs::exists(index)) return;
    const auto list = nlohmann::json::parse(read_text(index))["checkpoints"];
    EXPECT_GE(list.size(), least);
    for (const auto& checkpoint : list) {
      const fs::path file = run_directory / "checkpoints" / checkpoint["file"].get<std::string>();
      EXPECT_EQ(sha256_file(file), checkpoint["sha256"].get<std::string>());
    }
  }

  testing::TemporaryFolder folder_;
};

TEST_F(BadInput, DamagedShards) {
  build_shards();
  const std::string shard = "shards/shard-00001.h5";
  const struct {
    const char* damage;
    const char* message;
  } rows[] = {
      {"truncate -s 0 S", "shard-00001.h5: has 0 bytes, the manifest says"},
      {"truncate -s 1000 S", "shard-00001.h5: has 1000 bytes, the manifest says"},
      {"truncate -s 70000 S", "shard-00001.h5: has 70000 bytes, the manifest says"},
      {"echo text > S", "shard-00001.h5: has 5 bytes, the manifest says"},
      // As large as it should be, so that the file itself must be looked at.
      {"head -c $(stat -c %s S) /dev/zero > z && mv z S", "shard-00001.h5"},
      {"rm S", "shard-00001.h5: is missing"},
      {"rm S && mkdir S", "shard-00001.h5: is not a regular file"},
      {"rm shards/manifest.json", "manifest.json: is missing although the folder holds shards"},
      {"echo { > shards/manifest.json", "manifest.json: is not a valid manifest"},
      {"sed -i 's/\"schema_version\": 1/\"schema_version\": 99/' shards/manifest.json",
       "has schema version 99; this program reads version 1"},
  };
  for (const auto& row : rows) {
    std::string damage = "rm -rf shards && cp -r good shards && " + std::string(row.damage);
    for (auto at = damage.find(" S"); at != std::string::npos; at = damage.find(" S", at + 1)) {
      const auto end = at + 2;
      if (end == damage.size() || damage[end] == ' ' || damage[end] == ')') {
        damage.replace(at + 1, 1, shard);
      }
    }
    if (!fs::exists(folder_ / "good")) fs::copy(folder_ / "shards", folder_ / "good");
    SCOPED_TRACE(damage);
    expect(run("gan-pipeline run shards.yaml", damage), 3, row.message);
    EXPECT_FALSE(fs::exists(folder_ / "runs"));  // refused before anything was made
    EXPECT_EQ(run("gan-prep verify shards").exit_code, 3);
  }
}

TEST_F(BadInput, ADamagedImageIsARejectAndThePolicyApplies) {
  build_shards();
  const std::string damage =
      "printf XXXX | dd of=shards/shard-00001.h5 bs=1 seek=30000 conv=notrunc 2>/dev/null";
  expect(run("gan-pipeline run shards.yaml", damage), 0, "run directory");
  const std::string rejects = read_text(folder_ / "runs/00000-t/rejects.jsonl");
  EXPECT_CONTAINS(rejects, "\"stage\":\"source.shards\"");
  EXPECT_CONTAINS(rejects, "CRC-32C");
  expect(run("gan-pipeline run shards.yaml --set stages.source.shards.on_error=stop"), 3,
         "CRC-32C");
}

TEST_F(BadInput, PreparingNothingButBadImagesIsTheDatasFault) {
  fs::create_directory(folder_ / "photos");
  for (const char* name : {"a.jpg", "b.jpg"}) write("photos/" + std::string(name), "no picture");
  write("x.yaml",
        "stages:\n  - {use: source.folder, root: photos, max_rejects: 100%}\n"
        "  - {use: image.decode}\n  - {use: image.resize, size: 16}\n"
        "  - {use: sink.shards, root: shards}\n");
  expect(run("gan-prep build x.yaml"), 3, "none of 2 samples");
}

TEST_F(BadInput, PipesAreNotWaitedFor) {
  build_shards();
  fs::remove(folder_ / "shards/manifest.json");
  ASSERT_EQ(::mkfifo((folder_ / "shards/manifest.json").c_str(), 0600), 0);
  expect(run("gan-prep info shards"), 3, "is not a regular file");
  expect(run("gan-pipeline run shards.yaml"), 3, "is not a regular file");
}

TEST_F(BadInput, FoldersWithoutImages) {
  fs::create_directory(folder_ / "empty");
  const auto with = [&](const std::string& source) {
    write("x.yaml", "stages:\n  - {use: " + source +
                        "}\n  - {use: image.decode}\n  - {use: image.resize, size: 16}\n"
                        "  - {use: batch, size: 4}\n  - {use: train.dcgan}\n");
    return run("gan-pipeline run x.yaml");
  };
  expect(with("source.folder, root: empty"), 3, "no images in");
  expect(with("source.folder, root: nowhere"), 3, "there is no folder");
  expect(with("source.folder, root: train.yaml"), 3, "there is no folder");
  expect(with("source.fgvc, root: empty"), 3, "FGVC-Aircraft is not there");
  write("x.yaml", read_text(folder_ / "shards.yaml"));
  expect(run("gan-pipeline run x.yaml --set stages.source.shards.root=empty"), 3,
         "this is not a folder of shards");
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(BadInput, SizesThatDoNotFit) {
  for (const std::string size : {"100", "24", "8"}) {
    for (const char* more : {"", " --dry-run"}) {
      expect(run("gan-pipeline run train.yaml --set stages.source.synthetic.size=" + size + more),
             2,
             "train.yaml:5:11: train.dcgan: the images are " + size + "x" + size +
                 "; expected squares of a power of two from 16 to 512 pixels");
    }
  }
  expect(run("gan-pipeline run train.yaml --set stages.source.synthetic.draws=10"), 3,
         "the source has 10 samples, fewer than one batch of 16");
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(BadInput, PlacesThatCannotBeWritten) {
  for (const char* place : {"train.yaml/x", "/dev/null/x", "/proc/x"}) {
    SCOPED_TRACE(place);
    const std::string name = place;
    expect(run("gan-pipeline run train.yaml --out " + name), 5, ": cannot make the folder: ");
    expect(run("gan-prep build prep.yaml --set stages.sink.shards.root=" + name), 5, name);
  }
  const ToolResult trained = run("gan-pipeline run train.yaml");
  expect(trained, 0, "run directory");
  for (const char* file : {"train.yaml/x.png", "nowhere/x.png", "/proc/x.png"}) {
    expect(run("gan-pipeline sample runs/00000-t --out " + std::string(file)), 5,
           std::string(file) + ": cannot create");
  }
  // A file must not take a pipe's place (as root not a device's either).
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  expect(run("gan-pipeline sample runs/00000-t --out pipe"), 5, "is no regular file");
  EXPECT_TRUE(fs::is_fifo(folder_ / "pipe"));
  expect_no_temporary_files();
}

TEST_F(BadInput, AReadOnlyDisk) {
  const MountedDisk disk(folder_ / "disk", "", MS_RDONLY);
  if (!disk.mounted()) GTEST_SKIP() << "mounting a read-only disk needs root";
  expect(run("gan-pipeline run train.yaml --out disk"), 5,
         "cannot make the run directory: Read-only file system; choose another place");
  expect(run("gan-prep build prep.yaml --set stages.sink.shards.root=disk/shards"), 5,
         "disk/shards: cannot make the folder: Read-only file system; choose another place");
}

TEST_F(BadInput, ADiskWithoutRoomForAFolder) {
  const MountedDisk disk(folder_ / "disk", "nr_inodes=1");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small disk needs root";
  const std::string full = "No space left on device; make room, or choose another place";
  expect(run("gan-pipeline run train.yaml --out disk"), 5,
         "disk/00000-t: cannot make the run directory: " + full);
  expect(run("gan-pipeline run train.yaml --out disk/runs"), 5,
         "disk/runs: cannot make the folder: " + full);
  expect(run("gan-prep build prep.yaml --set stages.sink.shards.root=disk/shards"), 5, full);
}

TEST_F(BadInput, EmptyArguments) {
  const std::pair<const char*, const char*> rows[] = {
      {"gan-pipeline run ''", "CONFIG is empty"},
      {"gan-pipeline run train.yaml --out ''", "--out is empty"},
      {"gan-pipeline evaluate ''", "A is empty"},
      {"gan-pipeline sample '' --out x.png", "CHECKPOINT is empty"},
      {"gan-pipeline sample runs/00000-t --out ''", "--out is empty"},
      {"gan-pipeline inspect ''", "STAGE is empty"},
      {"gan-pipeline inspect --plugin ''", "--plugin is empty"},
      {"gan-pipeline graph train.yaml --format ''", "--format is empty"},
      {"gan-prep info ''", "SHARD_DIR is empty"},
  };
  for (const auto& [command, message] : rows) {
    SCOPED_TRACE(command);
    expect(run(command), 2, message);
  }
}

// What is read at the first evaluation only, hours later.
TEST_F(BadInput, HeldOutDataThatAreNotThere) {
  const fs::path weights = fs::path(GP_SOURCE_DIR) / ".deps/efficientnet_lite0.safetensors";
  if (!fs::exists(weights)) GTEST_SKIP() << weights << " does not exist; run tools/bootstrap";
  build_shards();
  fs::create_directory(folder_ / "empty");
  const struct {
    const char* overrides;
    int exit_code;
    const char* message;
  } rows[] = {
      {"held_out: {root: nowhere}", 3, "there is no such folder"},
      {"held_out: {root: empty}", 3, "this is not a folder of shards"},
      {"reference: {root: nowhere}", 3, "there is no such folder"},
      {"held_out: {fraction: 0.0001}", 3, "selects 0 of at least 2 images"},
  };
  for (const auto& row : rows) {
    write("x.yaml", read_text(folder_ / "shards.yaml") + "  - {use: evaluate.quality, weights: '" +
                        weights.string() + "', " + row.overrides + "}\n");
    for (const char* more : {"", " --dry-run"}) {
      SCOPED_TRACE(row.overrides + std::string(more));
      const ToolResult result = run("gan-pipeline run x.yaml" + std::string(more));
      expect(result, row.exit_code, row.message);
      const std::string overrides = row.overrides;
      EXPECT_CONTAINS(result.err, "x.yaml:6:11: 'evaluate.quality': " +
                                      overrides.substr(0, overrides.find(':')) + " = {");
    }
  }
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(BadInput, ImagesOfDifferentSizes) {
  fs::create_directory(folder_ / "photos");
  for (const char* name : {"a.png", "b.png"}) write("photos/" + std::string(name), "not looked at");
  const std::string source =
      "stages:\n  - {use: source.folder, root: photos}\n"
      "  - {use: image.decode}\n";
  write("x.yaml", source + "  - {use: batch, size: 2}\n  - {use: train.dcgan}\n");
  write("p.yaml", source + "  - {use: sink.shards, root: shards}\n");
  const char* message = "takes images of one size, and these have different ones; put image.resize";
  expect(run("gan-pipeline run x.yaml"), 2, message);
  expect(run("gan-pipeline run x.yaml --dry-run"), 2, message);
  expect(run("gan-prep build p.yaml"), 2, message);
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
  EXPECT_FALSE(fs::exists(folder_ / "shards"));
}

TEST_F(BadInput, ResultsThatNobodyGotAreNoSuccess) {
  if (!fs::is_character_file("/dev/full")) GTEST_SKIP() << "/dev/full is no device here";
  for (const char* command : {"gan-pipeline inspect image.resize", "gan-pipeline graph train.yaml",
                              "gan-pipeline validate train.yaml", "gan-pipeline version"}) {
    expect(run(std::string(command) + " >/dev/full"), 5,
           "cannot write the results to standard output");
  }
}

TEST_F(BadInput, AFullDiskWhileTraining) {
  // In blocks of 1 KiB (the message needs one too); each stops at another file: config.yaml,
  // run.json, a picture, a checkpoint.
  for (const int blocks : {1, 2, 8, 40, 100}) {
    SCOPED_TRACE(blocks);
    const std::string place = "full" + std::to_string(blocks);
    // dash counts in units of 512 bytes, so ask bash.
    const ToolResult result = run_shell(
        "cd '" + folder_.path().string() + "' && bash -c 'ulimit -f " + std::to_string(blocks) +
        "; " + tool_path("gan-pipeline") + " run train.yaml --out " + place + "'");
    expect(result, 5, "File too large; make room, or choose another place");
    expect_checkpoints_whole(folder_ / place / "00000-t", 0);
  }
  expect_no_temporary_files();
}

TEST_F(BadInput, ADiskThatFillsUpKeepsTheEarlierCheckpoint) {
  const MountedDisk disk(folder_ / "disk", "size=700k");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small disk needs root";
  const ToolResult result =
      run("gan-pipeline run train.yaml --out disk --set stages.train.dcgan.epochs=30"
          " --set stages.train.dcgan.keep_last=30");
  expect(result, 5, "No space left on device; make room, or choose another place");
  const ToolResult sample = run("gan-pipeline sample disk/00000-t --out sample.png");
  EXPECT_EQ(sample.exit_code, 0) << sample.err;
  expect_checkpoints_whole(folder_ / "disk/00000-t", 1);
  expect_no_temporary_files();
}

TEST_F(BadInput, AFullDiskWhilePreparing) {
  build_shards();
  const auto whole = files_of(folder_ / "shards");
  for (const int blocks : {1, 50}) {
    SCOPED_TRACE(blocks);
    fs::remove_all(folder_ / "shards");
    const ToolResult result =
        run_shell("cd '" + folder_.path().string() + "' && bash -c 'ulimit -f " +
                  std::to_string(blocks) + "; " + tool_path("gan-prep") + " build prep.yaml'");
    expect(result, 5, "File too large; make room, or choose another place");
    EXPECT_EQ(result.err.find("HDF5 says"), std::string::npos) << result.err;
    EXPECT_EQ(run("gan-prep info shards").exit_code, 3);  // not taken for whole
    build_shards();
    EXPECT_EQ(files_of(folder_ / "shards"), whole);
  }
}

TEST_F(BadInput, KilledBuildsEndWithTheSameShards) {
  build_shards();
  const auto whole = files_of(folder_ / "shards");
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    fs::remove_all(folder_ / "shards");
    // It takes a few tenths of a second, most of them to load its libraries.
    const std::string seconds = std::to_string(0.02 + 0.02 * i);
    const ToolResult result = run_shell("cd '" + folder_.path().string() + "' && timeout -s KILL " +
                                        seconds + " " + tool_path("gan-prep") + " build prep.yaml");
    killed += result.exit_code != 0 ? 1 : 0;
    build_shards();
    EXPECT_EQ(files_of(folder_ / "shards"), whole);
  }
  EXPECT_GT(killed, 0);
}

TEST_F(BadInput, TwoAtOnce) {
  ToolResult results[2];
  const auto both = [&](const std::string& command) {
    std::thread other([&] { results[1] = run(command); });
    results[0] = run(command);
    other.join();
  };
  both("gan-pipeline run train.yaml --out two --threads 1");
  expect(results[0], 0, "run directory");
  expect(results[1], 0, "run directory");
  EXPECT_NE(results[0].out, results[1].out);
  for (const char* directory : {"two/00000-t", "two/00001-t"}) {
    expect_checkpoints_whole(folder_ / directory, 1);
  }
  both("gan-prep build prep.yaml --set stages.source.synthetic.draws=5000");
  // One does it; the other is told so, or comes when all is done.
  for (const ToolResult& result : results) {
    if (result.exit_code != 0)
      expect(result, 5, "another process is writing shards here; wait for it");
  }
  EXPECT_TRUE(results[0].exit_code == 0 || results[1].exit_code == 0);
  EXPECT_EQ(run("gan-prep verify shards").exit_code, 0);
}

TEST_F(BadInput, CheckpointsThatAreDamaged) {
  expect(run("gan-pipeline run train.yaml"), 0, "run directory");
  const std::string file = "runs/00000-t/checkpoints/step-00000004.safetensors";
  ASSERT_TRUE(fs::exists(folder_ / file));
  fs::copy(folder_ / "runs", folder_ / "good", fs::copy_options::recursive);
  const std::pair<std::string, const char*> rows[] = {
      {"truncate -s 1000 " + file, "the checkpoint has 1000 bytes, index.json says"},
      {"echo text > " + file, "the checkpoint has 5 bytes, index.json says"},
      {"printf X | dd of=" + file + " bs=1 seek=5000 conv=notrunc 2>/dev/null", "SHA-256"},
      {"echo {} > runs/00000-t/checkpoints/index.json", "not an index of checkpoints"},
      {"rm -r runs/00000-t/checkpoints", "no checkpoint here"},
  };
  for (const auto& [damage, message] : rows) {
    SCOPED_TRACE(damage);
    expect(run("gan-pipeline sample runs/00000-t --out x.png",
               "rm -rf runs && cp -r good runs && " + damage),
           3, message);
  }
  EXPECT_FALSE(fs::exists(folder_ / "x.png"));
  expect(run("gan-pipeline evaluate good/00000-t", "echo 'a: [' > good/00000-t/config.yaml"), 2,
         "not valid YAML");
  expect(run("gan-pipeline evaluate good/00000-t", "rm good/00000-t/config.yaml"), 3,
         "is neither a run directory nor a checkpoint in one");
}

TEST_F(BadInput, ConfigurationsThatAreNoFiles) {
  expect(run("gan-pipeline validate ."), 2, "this is a folder; expected a YAML file");
  expect(run("gan-pipeline validate /dev/zero"), 2, "larger than 1 MiB");
  expect(run("gan-pipeline validate /dev/null"), 2, "there is nothing in it");
  expect(run("gan-pipeline validate nowhere.yaml"), 2, "there is no such file");
  expect(run("gan-prep info train.yaml"), 3, "there is no such folder");
}

}  // namespace
}  // namespace gp
