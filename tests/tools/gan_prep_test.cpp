// gan-prep as a user runs it: the real program, a YAML file, the data module loaded by it.

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "stages/data/hdf5/shard_reader.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"
#include "tests/stages/data/list_file.hpp"
#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

using Result = testing::ToolResult;

class GanPrep : public ::testing::Test {
 protected:
  static constexpr ImageShape kShape{16, 12};
  static constexpr std::uint64_t kImages = 90;

  void SetUp() override {
    const FolderLock lock(folder_ / "from");
    ShardSetWriter writer(folder_ / "from", {kShape, {"a", "b", "c"}, "d", {"by hand"}, 40, 0});
    for (std::uint64_t number = 0; number < kImages; ++number) {
      const std::string key = test::key_of(number);
      const std::int32_t label = test::label_of(number);
      writer.append(test::noise(kShape, number), {&key, 1}, {&label, 1});
    }
    writer.finish(kImages);
    test::overwrite(folder_ / "prep.yaml",
                    "name: prep\n"
                    "stages:\n"
                    "  - {use: source.shards, root: from}\n"
                    "  - {use: sink.shards, root: to, images_per_shard: 25}\n");
  }

  Result run(const std::string& arguments) const {
    return testing::run_tool("gan-prep", arguments);
  }
  /// Flips a bit in the pixels of image `number` of the source.
  void damage(std::uint64_t number) const {
    const fs::path shard = folder_ / "from" / shard_name(number / 40);
    std::string bytes = read_text(shard);
    const auto image = test::noise(kShape, number);
    bytes[bytes.find(std::string(image.begin(), image.end()))] ^= 1;
    test::overwrite(shard, bytes);
  }
  std::string config() const { return "'" + (folder_ / "prep.yaml").string() + "'"; }
  std::string target() const { return "'" + (folder_ / "to").string() + "'"; }

  test::TemporaryFolder folder_;
};

TEST_F(GanPrep, BuildsShardsAndThenHasNothingToDo) {
  Result result = run("build " + config() + " --threads 2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, (folder_ / "to").string() + "\n");
  EXPECT_CONTAINS(result.err, "read 90, written 90 images in 4 shards");
  for (std::uint64_t number = 0; number < kImages; ++number) {
    const ShardReader shard(folder_ / ("to/" + shard_name(number / 25)));
    const int image = static_cast<int>(number % 25);
    std::vector<std::uint8_t> pixels(kShape.bytes());
    shard.read(image, pixels);
    ASSERT_EQ(pixels, test::noise(kShape, number));
    EXPECT_EQ(shard.key(image), test::key_of(number));
    EXPECT_EQ(shard.label(image), test::label_of(number));
  }
  const auto before = test::contents(folder_ / "to");
  result = run("build " + config());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_CONTAINS(result.err, "nothing to do");
  EXPECT_TRUE(test::contents(folder_ / "to") == before);
}

TEST_F(GanPrep, RefusesAChangedConfigurationUnlessToldToRebuild) {
  ASSERT_EQ(run("build " + config()).exit_code, 0);
  const std::string change = " --set stages.sink.shards.images_per_shard=50";
  const Result refused = run("build " + config() + change);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_CONTAINS(refused.err, "- sink.shards {images_per_shard: 25}");
  EXPECT_CONTAINS(refused.err, "+ sink.shards {images_per_shard: 50}");
  const Result rebuilt = run("build " + config() + change + " --rebuild");
  EXPECT_EQ(rebuilt.exit_code, 0) << rebuilt.err;
  EXPECT_EQ(read_manifest(folder_ / "to").shards.size(), 2U);
}

TEST_F(GanPrep, RefusesAChangedPlugin) {
  fs::create_directory(folder_ / "plugins");
  const fs::path plugin = folder_ / "plugins/augment_flip.so";
  fs::copy(fs::path(GP_BINARY_DIR) / "lib/gan-pipeline/plugins/augment_flip.so", plugin);
  test::overwrite(folder_ / "prep.yaml",
                  "plugins: [plugins/augment_flip.so]\n"
                  "stages:\n"
                  "  - {use: source.shards, root: from}\n"
                  "  - {use: augment.flip, p: 1}\n"
                  "  - {use: sink.shards, root: to}\n");
  ASSERT_EQ(run("build " + config()).exit_code, 0);
  EXPECT_CONTAINS(run("build " + config()).err, "nothing to do");
  const std::string before = sha256_file(plugin);
  test::overwrite(plugin, read_text(plugin) + "x");  // the loader does not look at what follows
  const Result refused = run("build " + config());
  EXPECT_EQ(refused.exit_code, 2);
  const std::string stage = "augment.flip {p: 1, direction: horizontal} [augment_flip 1.0.0, ";
  EXPECT_CONTAINS(refused.err, "- " + stage + "SHA-256 " + before + "]\n");
  EXPECT_CONTAINS(refused.err, "+ " + stage + "SHA-256 " + sha256_file(plugin) + "]\n");
  EXPECT_EQ(run("build " + config() + " --rebuild").exit_code, 0);
  EXPECT_CONTAINS(run("build " + config()).err, "nothing to do");
}

TEST_F(GanPrep, InfoTellsTheManifest) {
  ASSERT_EQ(run("build " + config()).exit_code, 0);
  const Result json = run("info " + target() + " --json");
  EXPECT_EQ(json.exit_code, 0);
  const auto parsed = nlohmann::json::parse(json.out);
  EXPECT_EQ(parsed["images"], 90);
  EXPECT_EQ(parsed["image_shape"], (nlohmann::json{16, 12, 3}));
  EXPECT_EQ(parsed["shards"].size(), 4U);
  const Result table = run("info " + target());
  EXPECT_EQ(table.exit_code, 0);
  for (const char* part : {"90 of 12x16 pixels", "classes        3", "shard-00003.h5"}) {
    EXPECT_CONTAINS(table.out, part);
  }
}

TEST_F(GanPrep, VerifyEndsWith3AndNamesWhatIsDamaged) {
  ASSERT_EQ(run("build " + config()).exit_code, 0);
  const Result good = run("verify " + target());
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_CONTAINS(good.out, "90 images in 4 shards");
  const fs::path shard = folder_ / "to/shard-00002.h5";
  std::string bytes = read_text(shard);
  const auto image = test::noise(kShape, 57);
  const std::size_t at = bytes.find(std::string(image.begin(), image.end()));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 100] ^= 1;
  test::overwrite(shard, bytes);
  const Result bad = run("verify " + target());
  EXPECT_EQ(bad.exit_code, 3);
  EXPECT_EQ(bad.out, "shard-00002.h5: image 7 ('" + test::key_of(57) +
                         "') is damaged: number 57 of the whole set\n");
  EXPECT_CONTAINS(bad.err, "1 problem");
}

TEST_F(GanPrep, UsesTheExitCodesOfEveryCommand) {
  EXPECT_EQ(run("").exit_code, 2);
  EXPECT_EQ(run("biuld " + config()).exit_code, 2);
  EXPECT_EQ(run("build").exit_code, 2);
  EXPECT_EQ(run("build " + config() + " --reb").exit_code, 2) << "abbreviations are off";
  EXPECT_EQ(run("info " + target()).exit_code, 3);
  EXPECT_EQ(run("verify " + target()).exit_code, 3);
  EXPECT_EQ(run("build --help").exit_code, 0);
  test::overwrite(folder_ / "train.yaml",
                  "name: t\nstages:\n  - {use: source.shards, root: from}\n"
                  "  - {use: batch, size: 4}\n  - {use: train.dcgan}\n");
  const Result training = run("build '" + (folder_ / "train.yaml").string() + "'");
  EXPECT_EQ(training.exit_code, 2);
  EXPECT_CONTAINS(training.err, "the last stage is 'train.dcgan'");
}

TEST_F(GanPrep, SummarizesRejectsByWhatTheirReasonsHaveInCommon) {
  for (const std::uint64_t number : {3, 5, 60}) damage(number);
  const Result result = run("build " + config() + " --set stages.source.shards.max_rejects=3");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "read 90, written 87 images in 4 shards");
  EXPECT_CONTAINS(
      result.err,
      "\n  3 x source.shards: shard-#.#, image # (..): is damaged: CRC-# is #, expected #");
  EXPECT_CONTAINS(result.err, "\n  one by one in ");
  const Result quiet = run("build " + config() + " --rebuild --quiet");
  EXPECT_EQ(quiet.exit_code, 0);
  EXPECT_EQ(quiet.err, "");
  const Result stopped =
      run("build " + config() + " --rebuild --quiet --set stages.source.shards.on_error=stop");
  EXPECT_EQ(stopped.exit_code, 3);
  EXPECT_TRUE(stopped.err.starts_with("gan-prep: ")) << stopped.err;
}

TEST_F(GanPrep, RefusesShardsThatAreDamagedAtTheSource) {
  // The engine's policy for bad samples applies to shards as to photographs.
  damage(3);
  const Result skipped = run("build " + config() + " --set stages.source.shards.on_error=skip");
  ASSERT_EQ(skipped.exit_code, 0) << skipped.err;
  EXPECT_CONTAINS(skipped.err, "rejected 1");
  EXPECT_EQ(read_manifest(folder_ / "to").images, kImages - 1);
  EXPECT_CONTAINS(read_text(folder_ / "to/rejects.jsonl"), "shard-00000.h5, image 3");
  const Result stopped =
      run("build " + config() + " --rebuild --set stages.source.shards.on_error=stop");
  EXPECT_EQ(stopped.exit_code, 3);
  EXPECT_CONTAINS(stopped.err, test::key_of(3));
  EXPECT_EQ(read_manifest(folder_ / "to").images, kImages - 1) << "the set before stays";
}

/// A folder of files that real collections contain and decoders stumble over, through every stage.
class GanPrepHostile : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(root_)) GTEST_SKIP() << "the hostile files are not at " << root_;
    test::overwrite(folder_ / "prep.yaml",
                    "name: hostile\nseed: 5\nstages:\n  - {use: source.folder, root: '" +
                        root_.string() +
                        "', extensions: 'jpg,jpeg,png,webp,bmp', max_rejects: 100%}\n"
                        "  - {use: image.decode}\n  - {use: image.resize, size: 24}\n"
                        "  - {use: sink.shards, root: to, images_per_shard: 50}\n");
  }
  Result build(int threads, const std::string& to, const std::string& policy = "") const {
    return testing::run_tool("gan-prep", "build '" + (folder_ / "prep.yaml").string() +
                                             "' --threads " + std::to_string(threads) +
                                             " --set stages.sink.shards.root='" +
                                             (folder_ / to).string() + "'" + policy);
  }

  const fs::path root_ = fs::path(GP_SOURCE_DIR) / "../shared/data/hostile";
  test::TemporaryFolder folder_;
};

TEST_F(GanPrepHostile, SameRejectsAndSameBytesForAnyThreadCount) {
  std::set<std::string> expected;
  for (const auto& row : read_table(GP_SOURCE_DIR "/tests/stages/data/fixtures/hostile.tsv")) {
    if (row[1] == "reject") expected.insert(row[0]);
  }
  for (const int threads : {1, 2, 8}) {
    const Result result = build(threads, std::to_string(threads));
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  const auto files = test::contents(folder_ / "1");
  std::set<std::string> rejected;
  std::istringstream lines(files.at("rejects.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto reject = nlohmann::json::parse(line);
    EXPECT_FALSE(reject.at("stage").get<std::string>().empty());
    EXPECT_FALSE(reject.at("reason").get<std::string>().empty());
    rejected.insert(reject.at("key").get<std::string>());
  }
  EXPECT_EQ(rejected, expected);
  EXPECT_EQ(read_manifest(folder_ / "1").images, 247 - expected.size());
  EXPECT_EQ(files.size(), 4U + 2) << "shards, rejects.jsonl, manifest.json";
  EXPECT_TRUE(test::contents(folder_ / "2") == files);
  EXPECT_TRUE(test::contents(folder_ / "8") == files);
}

TEST_F(GanPrepHostile, PolicyStopsAtTheSameFileForAnyThreadCount) {
  for (const std::string policy : {"on_error=stop", "max_rejects=20", "max_rejects=12.5%"}) {
    SCOPED_TRACE(policy);
    std::string first;
    for (const int threads : {1, 2, 8}) {
      const Result result = build(threads, "to", " --set stages.source.folder." + policy);
      EXPECT_EQ(result.exit_code, 3);
      const std::string message = result.err.substr(result.err.find("gan-prep: "));
      if (threads == 1) first = message;
      EXPECT_EQ(message, first);
      EXPECT_FALSE(fs::exists(folder_ / "to/manifest.json"));
    }
    // In the order of the paths: the first bad file, the 21st, the 31st (12.5 % of 247 are 30.9).
    EXPECT_CONTAINS(first, policy == "on_error=stop"    ? "exif/corrupted.jpg"
                           : policy == "max_rejects=20" ? "21 of 247"
                                                        : "31 of 247");
  }
}

}  // namespace
}  // namespace gp
