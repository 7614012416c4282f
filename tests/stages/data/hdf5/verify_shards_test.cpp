#include "stages/data/hdf5/verify_shards.hpp"

#include <gtest/gtest.h>

#include "pipeline/log.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"

namespace gp {
namespace {

using test::key_of;
using test::label_of;
using test::noise;
using test::TemporaryFolder;

constexpr ImageShape kShape{12, 10};

/// `images` images, the first with number 0, and one reject.
void build(const std::filesystem::path& root, std::uint64_t images, int images_per_shard,
           ImageShape shape = kShape) {
  const FolderLock lock(root);
  ShardSetWriter writer(root,
                        {shape, {"a", "b"}, "d", {"image.resize {size: 8}"}, images_per_shard, 0});
  for (std::uint64_t number = 0; number < images; ++number) {
    const std::string key = key_of(number);
    const std::int32_t label = label_of(number);
    writer.append(noise(shape, number), {&key, 1}, {&label, 1});
  }
  writer.reject({"bad.jpg", "image.decode", "truncated", false});
  writer.finish(images + 1);
}

std::vector<ShardProblem> verify(const std::filesystem::path& root) {
  Log log;
  log.set_quiet(true);
  return verify_shards(root, log);
}

void flip(const std::filesystem::path& file, std::size_t byte, int bit) {
  std::string text = read_text(file);
  text.at(byte) = static_cast<char>(text[byte] ^ (1 << bit));
  test::overwrite(file, text);
}

/// Where in the shard the pixels of an image are.
std::size_t place_of(const std::string& shard, ImageShape shape, std::uint64_t number) {
  const std::vector<std::uint8_t> pixels = noise(shape, number);
  const std::size_t at = shard.find(std::string(pixels.begin(), pixels.end()));
  EXPECT_NE(at, std::string::npos);
  return at;
}

TEST(VerifyShards, FindsNothingWrongWithAFreshSet) {
  const TemporaryFolder folder;
  build(folder / "s", 25, 10);
  EXPECT_TRUE(verify(folder / "s").empty());
}

TEST(VerifyShards, FindsRandomFlippedBitsAndSaysWhere) {
  const TemporaryFolder folder;
  build(folder / "s", 25, 10);
  const auto files = test::contents(folder / "s");
  Rng rng(1, "flips", 0);
  // Every file a few times, and bytes of shards in proportion to their size.
  std::vector<std::string> targets = {"manifest.json", "manifest.json", "manifest.json",
                                      "rejects.jsonl", "rejects.jsonl"};
  for (int i = 0; i < 55; ++i) targets.push_back(shard_name(rng.below(3)));
  for (const std::string& name : targets) {
    const std::string& text = files.at(name);
    const std::size_t byte = rng.below(static_cast<std::uint32_t>(text.size()));
    flip(folder / ("s/" + name), byte, static_cast<int>(rng.below(8)));
    const std::vector<ShardProblem> problems = verify(folder / "s");
    ASSERT_EQ(problems.size(), 1U) << name << " byte " << byte;
    EXPECT_EQ(problems[0].file, name);
    std::int64_t image = -1;
    if (const std::int64_t shard = from_shard_name(name); shard >= 0) {
      const auto first = static_cast<std::uint64_t>(shard) * 10;
      const std::size_t start = place_of(text, kShape, first);
      const std::size_t images = shard == 2 ? 5 : 10;
      if (byte >= start && byte < start + images * kShape.bytes()) {
        image = static_cast<std::int64_t>((byte - start) / kShape.bytes());
        EXPECT_CONTAINS(problems[0].text, "image " + std::to_string(image));
        EXPECT_CONTAINS(problems[0].text, key_of(first + static_cast<std::uint64_t>(image)));
      } else {
        EXPECT_CONTAINS(problems[0].text, "metadata");
      }
    }
    EXPECT_EQ(problems[0].image, image) << name << " byte " << byte;
    test::overwrite(folder / ("s/" + name), text);
  }
  EXPECT_TRUE(verify(folder / "s").empty());
}

TEST(VerifyShards, FindsAFlippedBitInEveryByteOfASmallShard) {
  const TemporaryFolder folder;
  const ImageShape tiny{3, 3};
  build(folder / "s", 4, 4, tiny);
  const std::filesystem::path file = folder / "s/shard-00000.h5";
  const std::string good = read_text(file);
  const std::size_t start = place_of(good, tiny, 0);
  const std::size_t end = start + 4 * tiny.bytes();
  for (std::size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ (1 << (byte % 8)));
    test::overwrite(file, bad);
    const std::vector<ShardProblem> problems = verify(folder / "s");
    ASSERT_EQ(problems.size(), 1U) << "byte " << byte;
    const bool in_image = byte >= start && byte < end;
    EXPECT_EQ(problems[0].image,
              in_image ? static_cast<std::int64_t>((byte - start) / tiny.bytes()) : -1)
        << "byte " << byte << ": " << problems[0].text;
    EXPECT_EQ(problems[0].text.find("metadata") != std::string::npos, !in_image)
        << problems[0].text;
  }
}

TEST(VerifyShards, TellsADamagedChecksumFromADamagedImage) {
  const TemporaryFolder folder;
  build(folder / "s", 10, 10);
  const std::filesystem::path file = folder / "s/shard-00000.h5";
  const std::string good = read_text(file);
  // The table follows the pixels; its first byte is the only one whose flip is told as image 0's
  // checksum, so look for it from there on.
  bool found = false;
  for (std::size_t byte = place_of(good, kShape, 9) + kShape.bytes(); byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(~bad[byte]);
    test::overwrite(file, bad);
    const std::vector<ShardProblem> problems = verify(folder / "s");
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_EQ(problems[0].image, -1);
    if (problems[0].text.find("the checksum of image 0") == std::string::npos) continue;
    EXPECT_CONTAINS(problems[0].text, "pixels are intact");
    found = true;
    break;
  }
  EXPECT_TRUE(found);
}

TEST(VerifyShards, TellsAllProblemsTogether) {
  const TemporaryFolder folder;
  build(folder / "s", 40, 10);
  flip(folder / "s/shard-00000.h5", place_of(read_text(folder / "s/shard-00000.h5"), kShape, 2), 0);
  flip(folder / "s/shard-00000.h5", place_of(read_text(folder / "s/shard-00000.h5"), kShape, 7), 0);
  std::filesystem::remove(folder / "s/shard-00001.h5");
  std::filesystem::resize_file(folder / "s/shard-00002.h5", 100);
  std::filesystem::copy_file(folder / "s/shard-00003.h5", folder / "s/shard-00004.h5");
  std::filesystem::remove(folder / "s/rejects.jsonl");
  std::vector<std::string> told;
  for (const ShardProblem& problem : verify(folder / "s")) {
    told.push_back(problem.file + " " + std::to_string(problem.image));
  }
  EXPECT_EQ(told, (std::vector<std::string>{"shard-00000.h5 2", "shard-00000.h5 7",
                                            "shard-00001.h5 -1", "shard-00002.h5 -1",
                                            "rejects.jsonl -1", "shard-00004.h5 -1"}));
}

TEST(VerifyShards, NoManifestIsAnError) {
  const TemporaryFolder folder;
  build(folder / "s", 4, 4);
  std::filesystem::remove(folder / "s/manifest.json");
  EXPECT_THROW(verify(folder / "s"), DataError);
}

}  // namespace
}  // namespace gp
