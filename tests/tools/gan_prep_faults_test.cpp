// gan-prep killed, out of disk, and given damaged files: the real program, with faults put into its
// file operations one by one.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "pipeline/log.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "stages/data/hdf5/verify_shards.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"
#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Result = testing::ToolResult;
using test::contents;

constexpr ImageShape kShape{16, 12};
constexpr std::uint64_t kImages = 90;
constexpr int kKilled = 128 + SIGKILL;  // as a shell tells it

class GanPrepFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    {
      const FolderLock lock(folder_ / "from");
      ShardSetWriter writer(folder_ / "from", {kShape, {"a", "b", "c"}, "d", {"by hand"}, 40, 0});
      for (std::uint64_t number = 0; number < kImages; ++number) {
        const std::string key = test::key_of(number);
        const std::int32_t label = test::label_of(number);
        writer.append(test::noise(kShape, number), {&key, 1}, {&label, 1});
      }
      writer.finish(kImages);
    }
    // One image is damaged, so that there is a reject too.
    std::string bytes = read_text(folder_ / "from/shard-00000.h5");
    const auto image = test::noise(kShape, 3);
    bytes[bytes.find(std::string(image.begin(), image.end()))] ^= 1;
    test::overwrite(folder_ / "from/shard-00000.h5", bytes);
    test::overwrite(folder_ / "prep.yaml",
                    "name: prep\n"
                    "stages:\n"
                    "  - {use: source.shards, root: from}\n"
                    "  - {use: sink.shards, root: to, images_per_shard: 25}\n");
  }

  /// Builds into the folder `to`, with variables of the fault injector in front.
  Result build(const std::string& to, const std::string& more = "",
               const std::string& fault = "") const {
    const std::string injector =
        fault.empty() ? "" : "LD_PRELOAD='" GP_FAULT_INJECTOR "' " + fault + " ";
    return testing::run_shell("ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 " + injector +
                              testing::tool_path("gan-prep") + " build '" +
                              (folder_ / "prep.yaml").string() + "' --threads 1 " +
                              "--set stages.sink.shards.root='" + (folder_ / to).string() + "' " +
                              more);
  }
  /// The operations of an undisturbed build, in their order.
  std::vector<std::string> operations(const std::string& to, const std::string& more = "") const {
    const fs::path log = folder_ / (to + ".log");
    EXPECT_EQ(build(to, more, "FAULT_LOG='" + log.string() + "'").exit_code, 0);
    std::istringstream text(read_text(log));
    std::vector<std::string> names;
    for (std::string name; std::getline(text, name);) names.push_back(name);
    return names;
  }
  /// Copies the folder of a set of shards.
  fs::path copy(const std::string& from, const std::string& to) const {
    fs::copy(folder_ / from, folder_ / to);
    return folder_ / to;
  }
  std::vector<ShardProblem> verify(const fs::path& root) const {
    Log log;
    log.set_quiet(true);
    return verify_shards(root, log);
  }

  test::TemporaryFolder folder_;
};

/// A set of shards that is replaced: other settings, and more files.
const char kOther[] = "--set stages.sink.shards.images_per_shard=20";

TEST_F(GanPrepFaults, KilledAtAnyOfItsFileOperationsItEndsWithTheSameBytes) {
  const std::vector<std::string> into_nothing = operations("expected");
  const auto expected = contents(folder_ / "expected");
  ASSERT_EQ(build("other", kOther).exit_code, 0);
  copy("other", "replaced");
  const std::vector<std::string> over_another = operations("replaced", "--rebuild");
  EXPECT_TRUE(contents(folder_ / "replaced") == expected);
  const auto other = contents(folder_ / "other");

  Rng rng(1, "kills", 0);
  std::set<std::string> hit;
  constexpr int kPoints = 50;
  for (int point = 0; point < kPoints; ++point) {
    const bool replaces = point % 2 == 1;
    const std::vector<std::string>& all = replaces ? over_another : into_nothing;
    // One point in each of equal stretches, so that no phase is left out. Most operations are
    // writes: every fifth point is one of the others instead, a kind at a time.
    const std::size_t first = all.size() * static_cast<std::size_t>(point) / kPoints;
    const std::size_t last = all.size() * static_cast<std::size_t>(point + 1) / kPoints;
    std::size_t at = first + rng.below(static_cast<std::uint32_t>(last - first));
    if (point % 5 == 0) {
      const std::string kind = std::array{"remove", "rename", "fsync", "create",
                                          "mkdir"}[static_cast<std::size_t>(point / 5) % 5];
      std::vector<std::size_t> of_kind;
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i] == kind) of_kind.push_back(i);
      }
      ASSERT_FALSE(of_kind.empty()) << kind;
      at = of_kind[rng.below(static_cast<std::uint32_t>(of_kind.size()))];
    }
    SCOPED_TRACE("killed at operation " + std::to_string(at + 1) + " of " +
                 std::to_string(all.size()) + ", a " + all[at] +
                 (replaces ? ", while replacing another set" : ""));
    hit.insert(all[at]);
    const std::string to = "to" + std::to_string(point);
    const fs::path root = replaces ? copy("other", to) : folder_ / to;
    const std::string rebuild = replaces ? "--rebuild" : "";
    ASSERT_EQ(build(to, rebuild, "FAULT_KILL=" + std::to_string(at + 1)).exit_code, kKilled);
    if (fs::exists(root / kManifestFile)) {
      // What says that it is complete is complete: all of the old set, or all of the new.
      EXPECT_TRUE(verify(root).empty());
      EXPECT_TRUE(contents(root) ==
                  (read_manifest(root).images_per_shard == 25 ? expected : other));
    } else if (point % 10 == 4 && fs::exists(root)) {
      const std::size_t again = rng.below(static_cast<std::uint32_t>(all.size() / 2)) + 1;
      build(to, rebuild, "FAULT_KILL=" + std::to_string(again));
    }
    const Result recovered = build(to, rebuild);
    ASSERT_EQ(recovered.exit_code, 0) << recovered.err;
    EXPECT_FALSE(fs::exists(root / kUnfinishedFolder));
    EXPECT_TRUE(contents(root) == expected);
    fs::remove_all(root);
  }
  EXPECT_EQ(hit, (std::set<std::string>{"create", "fsync", "mkdir", "remove", "rename", "write"}));
}

TEST_F(GanPrepFaults, AFullDiskLeavesWhatWasThereWhole) {
  ASSERT_EQ(build("other", kOther).exit_code, 0);
  const auto other = contents(folder_ / "other");
  copy("other", "counted");
  const std::size_t all = operations("counted", "--rebuild").size();
  const auto expected = contents(folder_ / "counted");
  Rng rng(2, "full disks", 0);
  int failed = 0;
  for (int point = 0; point < 15; ++point) {
    const std::string to = "to" + std::to_string(point);
    const fs::path root = copy("other", to);
    const std::size_t at = rng.below(static_cast<std::uint32_t>(all)) + 1;
    SCOPED_TRACE("full from operation " + std::to_string(at) + " on");
    const Result full = build(to, "--rebuild", "FAULT_FULL=" + std::to_string(at));
    if (full.exit_code == 0) {
      EXPECT_TRUE(contents(root) == expected);  // all that was left to do needed no room
      continue;
    }
    ++failed;
    EXPECT_EQ(full.exit_code, 5) << full.err;
    EXPECT_CONTAINS(full.err, "No space left on device");
    EXPECT_TRUE(contents(root) == other);
  }
  EXPECT_GE(failed, 10);
  // The kernel's own limit, for writes that no interposed function sees.
  const Result limited = testing::run_shell(
      "ulimit -f 20; " + testing::tool_path("gan-prep") + " build '" +
      (folder_ / "prep.yaml").string() + "' --set stages.sink.shards.root='" +
      (folder_ / "other").string() + "' --set stages.sink.shards.images_per_shard=90 --rebuild");
  EXPECT_EQ(limited.exit_code, 5) << limited.err;
  EXPECT_TRUE(contents(folder_ / "other") == other);
}

TEST_F(GanPrepFaults, ASecondRunTouchesNothing) {
  ASSERT_EQ(build("to").exit_code, 0);
  const auto state = [&] {
    std::vector<std::string> lines;
    std::vector<fs::path> paths = {folder_ / "to"};
    for (const auto& entry : fs::directory_iterator(folder_ / "to")) paths.push_back(entry.path());
    for (const fs::path& path : paths) {
      struct stat status {};
      EXPECT_EQ(::stat(path.c_str(), &status), 0);
      lines.push_back(path.string() + " " + std::to_string(status.st_ino) + " " +
                      std::to_string(status.st_mtim.tv_sec) + "." +
                      std::to_string(status.st_mtim.tv_nsec) + " " +
                      std::to_string(status.st_ctim.tv_sec) + "." +
                      std::to_string(status.st_ctim.tv_nsec));
    }
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  const auto before = state();
  const fs::path log = folder_ / "log";
  const Result second = build("to", "", "FAULT_LOG='" + log.string() + "'");
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_CONTAINS(second.err, "nothing to do");
  EXPECT_EQ(state(), before);
  EXPECT_EQ(fs::exists(log) ? read_text(log) : "", "") << "it changed a file";
  const Result changed = build("to", kOther);
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_CONTAINS(changed.err, "- sink.shards {images_per_shard: 25}");
  EXPECT_CONTAINS(changed.err, "+ sink.shards {images_per_shard: 20}");
  EXPECT_EQ(state(), before);
}

TEST_F(GanPrepFaults, VerifyFindsEachOf200FlippedBytes) {
  ASSERT_EQ(build("to").exit_code, 0);
  const fs::path root = folder_ / "to";
  const auto files = contents(root);
  std::size_t total = 0;
  for (const auto& [name, text] : files) total += text.size();
  const auto run = [&] { return testing::run_tool("gan-prep", "verify '" + root.string() + "'"); };
  ASSERT_EQ(run().exit_code, 0);
  // Where the pixels of the accepted images are: file, place, number in the shard, key.
  struct Pixels {
    std::string file;
    std::size_t begin;
    std::string name;
  };
  std::vector<Pixels> images;
  std::uint64_t item = 0;
  for (std::uint64_t number = 0; number < kImages; ++number) {
    if (number == 3) continue;
    const auto pixels = test::noise(kShape, number);
    const std::string file = shard_name(item / 25);
    const std::size_t begin = files.at(file).find(std::string(pixels.begin(), pixels.end()));
    ASSERT_NE(begin, std::string::npos);
    images.push_back(
        {file, begin, "image " + std::to_string(item % 25) + " ('" + test::key_of(number) + "')"});
    ++item;
  }

  Rng rng(3, "flips", 0);
  std::map<std::string, int> kinds;
  for (int flip = 0; flip < 200; ++flip) {
    // Two in three over all bytes, the others over the files that are small.
    std::size_t at = rng.below(static_cast<std::uint32_t>(total));
    auto file = files.begin();
    while (at >= file->second.size()) at -= (file++)->second.size();
    if (flip % 3 == 2) {
      file = files.find(flip % 2 == 0 ? kManifestFile : kRejectsFile);
      at = rng.below(static_cast<std::uint32_t>(file->second.size()));
    }
    std::string damaged = file->second;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 + rng.below(255)));
    test::overwrite(root / file->first, damaged);
    const Result found = run();
    SCOPED_TRACE(file->first + ", byte " + std::to_string(at) + ": " + found.out + found.err);
    EXPECT_EQ(found.exit_code, 3);
    EXPECT_TRUE(found.out.starts_with(file->first + ": ")) << "names the file";
    EXPECT_CONTAINS(found.err, ": 1 problem;");
    const auto image = std::find_if(images.begin(), images.end(), [&](const Pixels& pixels) {
      return pixels.file == file->first && at >= pixels.begin && at < pixels.begin + kShape.bytes();
    });
    if (image != images.end()) {
      EXPECT_CONTAINS(found.out, image->name + " is damaged");
      ++kinds["image"];
    } else if (from_shard_name(file->first) >= 0) {
      EXPECT_CONTAINS(found.out, "metadata is damaged");
      ++kinds["metadata"];
    } else {
      ++kinds[file->first];
    }
    test::overwrite(root / file->first, file->second);
  }
  EXPECT_EQ(kinds.size(), 4U) << "images, metadata, manifest and rejects";
  EXPECT_EQ(run().exit_code, 0);
}

}  // namespace
}  // namespace gp
