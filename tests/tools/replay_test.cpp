// `gan-pipeline replay` and `gan-prep preview` show, byte for byte, what a trainer gets.

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pipeline/runner.hpp"
#include "tests/stages/common/decode_png.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"
#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Result = testing::ToolResult;
using testing::run_tool;

const fs::path kPhotos = fs::path(GP_SOURCE_DIR) / "../shared/data/fgvc-aircraft-2013b";
constexpr std::uint32_t kEpochs = 3;

const char kHead[] =
    "name: seen\nseed: 11\n"
    "plugins: [augment_flip, augment_affine, augment_noise, augment_grayscale]\n"
    "modules: ['" GP_TRAINS_NOTHING "']\nstages:\n";
const char kPrepare[] =
    "  - {use: image.decode}\n"
    "  - {use: image.crop, bottom: 20}\n"
    "  - {use: image.resize, size: 48}\n";
/// Geometric neighbours in front, a choice, and geometric ones at the end.
const char kAugment[] =
    "  - {use: augment.flip, p: 0.5}\n"
    "  - {use: augment.affine, translate: 0.05, rotate: 10, scale: 0.05}\n"
    "  - {use: augment.one_of, p: 0.7, stages: [{use: augment.noise, sigma: 20}, "
    "{use: augment.grayscale, p: 1}]}\n"
    "  - {use: augment.flip, name: second_flip, p: 0.5}\n"
    "  - {use: augment.affine, name: second_affine, rotate: 20}\n";
const char kTrain[] =
    "  - {use: batch, size: 8, last: keep}\n"
    "  - {use: test.train, epochs: 3}\n";

class Replay : public ::testing::Test {
 protected:
  /// Writes a configuration and returns its path in quotes.
  std::string config(const std::string& yaml) const {
    test::overwrite(folder_ / "seen.yaml", kHead + yaml);
    return "'" + (folder_ / "seen.yaml").string() + "'";
  }
  std::unique_ptr<LoadedConfig> load() const {
    return LoadedConfig::load(folder_ / "seen.yaml", {}, {});
  }
  /// A folder with a few photographs, one of them cut off.
  std::string photographs() const {
    fs::create_directories(folder_ / "photos");
    std::vector<fs::path> photos;
    for (const auto& entry : fs::directory_iterator(kPhotos / "data/images")) {
      photos.push_back(entry.path());
    }
    std::sort(photos.begin(), photos.end());
    for (int i = 0; i < 20; ++i) {
      fs::copy_file(photos[i], folder_ / "photos" / photos[i].filename());
    }
    const fs::path broken = folder_ / "photos" / photos[3].filename();
    fs::resize_file(broken, fs::file_size(broken) / 2);
    broken_ = broken.filename().string();
    return "  - {use: source.folder, root: photos, max_rejects: 100%}\n";
  }

  /// What a trainer gets: pixels by epoch (from 1) and key.
  std::map<std::pair<std::uint32_t, std::string>, std::vector<std::uint8_t>> trained() const {
    std::map<std::pair<std::uint32_t, std::string>, std::vector<std::uint8_t>> all;
    const auto loaded = load();
    const Pipeline pipeline(loaded->config);
    const auto stream = pipeline.open_stream(2);
    while (const auto batch = stream->next()) {
      for (int i = 0; i < batch->count; ++i) {
        const auto* begin = batch->image(i).data;
        all[{batch->epoch + 1, batch->keys[i]}] = {begin, begin + batch->shape.bytes()};
      }
    }
    return all;
  }
  Result replay(const std::string& config, const std::string& key, std::uint32_t epoch,
                const std::string& more = "") const {
    return run_tool("gan-pipeline", "replay " + config + " --key '" + key + "' --epoch " +
                                        std::to_string(epoch) + " --out '" +
                                        (folder_ / "out").string() + "' " + more);
  }
  json record() const { return json::parse(read_text(folder_ / "out/replay.json")); }
  Image picture(const std::string& file) const {
    return decode_png(read_file(folder_ / "out" / file));
  }

  /// Replays every sample of every epoch in-process, a few of them through the program, and
  /// compares each with its batch.
  void expect_replays_equal_batches(const std::string& config) {
    const auto all = trained();
    ASSERT_GE(all.size(), 19U * kEpochs);
    int number = 0;
    for (const auto& [sample, pixels] : all) {
      if (number++ % 6 != 0) continue;  // all kinds of choices are among them
      const auto& [epoch, key] = sample;
      SCOPED_TRACE(key + ", epoch " + std::to_string(epoch));
      const Result result = replay(config, key, epoch);
      ASSERT_EQ(result.exit_code, 0) << result.err;
      const json told = record();
      std::string last;
      for (const json& stage : told["stages"]) {
        if (stage.contains("file")) last = stage["file"];
        if (stage["stage"] == "augment.one_of") {
          EXPECT_TRUE(stage["chosen"].is_null());
          chosen_.insert("none");
        } else if (stage.contains("chosen_by")) {
          EXPECT_EQ(stage["chosen_by"], "augment.one_of");
          chosen_.insert(stage["stage"]);
        }
      }
      EXPECT_EQ(last.substr(last.find('-')), "-second_affine.png");
      EXPECT_EQ(picture(last).pixels(), pixels);
      EXPECT_EQ(told["key"], key);
      EXPECT_EQ(told["epoch"], epoch);
      EXPECT_TRUE(told["rejected"].is_null());
    }
    EXPECT_EQ(chosen_, (std::set<std::string>{"augment.one_of.augment.grayscale",
                                              "augment.one_of.augment.noise", "none"}));
  }

  test::TemporaryFolder folder_;
  mutable std::string broken_;
  std::set<std::string> chosen_;
};

TEST_F(Replay, LastPictureFromJpegsIsTheOneInTheBatch) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const std::string yaml = config(photographs() + kPrepare + kAugment + kTrain);
  expect_replays_equal_batches(yaml);

  // The source's file is there as it is, and every stage has a picture of its size.
  const json told = record();
  EXPECT_EQ(told["stages"][0]["file"], "00-source.folder.jpg");
  EXPECT_EQ(read_file(folder_ / "out/00-source.folder.jpg"),
            read_file(folder_ / "photos" / told["key"].get<std::string>()));
  EXPECT_EQ(told["stages"][3]["file"], "03-image.resize.png");
  for (const json& stage : told["stages"]) {
    if (!stage.contains("shape")) continue;
    const Image image = picture(stage["file"]);
    EXPECT_EQ(stage["shape"], (json{image.shape().height, image.shape().width, 3}));
  }
  // The crop is seen: its picture is lower than the decoded one, as its region says.
  EXPECT_LT(told["stages"][2]["shape"][0].get<int>(), told["stages"][1]["shape"][0].get<int>());
  const json& decoded = told["stages"][1];
  const json& cropped = told["stages"][2]["region"];
  EXPECT_EQ(cropped["height"].get<int>() + 20,
            (decoded.contains("region") ? decoded["region"]["height"] : cropped["of_height"]));
  EXPECT_EQ(told["samples"], 20);

  // The position is that of the epoch's order.
  const auto loaded = load();
  const Pipeline pipeline(loaded->config);
  pipeline.data().order->start_epoch(told["epoch"].get<std::uint32_t>() - 1);
  EXPECT_EQ(pipeline.data().source->key(
                pipeline.data().order->at(told["position"].get<std::uint64_t>()).item),
            told["key"]);
}

TEST_F(Replay, LastPictureFromShardsIsTheOneInTheBatch) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const std::string build =
      config(photographs() + kPrepare + "  - {use: sink.shards, root: shards}\n");
  ASSERT_EQ(run_tool("gan-prep", "build " + build).exit_code, 0);
  const std::string yaml =
      config(std::string("  - {use: source.shards, root: shards}\n") + kAugment + kTrain);
  expect_replays_equal_batches(yaml);
  EXPECT_EQ(record()["stages"][0]["file"], "00-source.shards.png");
}

TEST_F(Replay, TellsWhatIsWrong) {
  const std::string source = "  - {use: source.synthetic, size: 16, draws: 30}\n";
  const std::string yaml = config(source + kTrain);
  Result result = replay(yaml, "00000007", 1);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "not among the 30");
  EXPECT_CONTAINS(result.err, "did you mean 'synthetic/1/00000007'?");
  result = replay(yaml, "synthetic/1/0000008", 1);
  EXPECT_CONTAINS(result.err, "did you mean 'synthetic/1/0000000");
  result = replay(yaml, "synthetic/1/00000007", 4);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "the epochs 1 to 3");
  fs::create_directories(folder_ / "out");
  test::overwrite(folder_ / "out/mine.txt", "mine");
  result = replay(yaml, "synthetic/1/00000007", 1);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "holds other files");
  EXPECT_EQ(test::names(folder_ / "out"), std::vector<std::string>{"mine.txt"});

  const std::string held_out =
      config(source + kTrain + "  - {use: test.evaluate, held_out: {fraction: 0.5}}\n");
  int held = 0;
  for (int i = 0; i < 10; ++i) {
    fs::remove_all(folder_ / "out");
    result = replay(held_out, "synthetic/1/0000000" + std::to_string(i), 1);
    if (result.exit_code == 0) continue;
    ++held;
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_CONTAINS(result.err, "is held out");
  }
  EXPECT_GT(held, 0);
  EXPECT_LT(held, 10);
}

TEST_F(Replay, ShowsARejectUpToWhereItFailed) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const std::string yaml = config(photographs() + kPrepare + kAugment + kTrain);
  const Result result = replay(yaml, broken_, 2);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_CONTAINS(result.err, "rejected by 'image.decode'");
  const json told = record();
  EXPECT_EQ(told["stages"].size(), 1U);
  EXPECT_EQ(told["rejected"]["stage"], "image.decode");
  EXPECT_EQ(test::names(folder_ / "out"),
            (std::vector<std::string>{"00-source.folder.jpg", "replay.json"}));
  // A second replay takes the place of the first.
  std::string other;
  for (const auto& photo : fs::directory_iterator(folder_ / "photos")) {
    if (photo.path().filename() != broken_) other = photo.path().filename().string();
  }
  ASSERT_EQ(replay(yaml, other, 2).exit_code, 0);
  EXPECT_GE(test::names(folder_ / "out").size(), 9U);
  ASSERT_EQ(replay(yaml, broken_, 2).exit_code, 0);
  EXPECT_EQ(test::names(folder_ / "out").size(), 2U);
}

TEST_F(Replay, AsksForThePhaseOfASchedule) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const std::string yaml = config(photographs() + kPrepare +
                                  "  - {use: batch, size: 8, last: keep}\n"
                                  "  - {use: test.train, small_images: 20}\n");
  std::string key;
  for (const auto& photo : fs::directory_iterator(folder_ / "photos")) {
    if (photo.path().filename() != broken_) key = photo.path().filename().string();
  }
  Result result = replay(yaml, key, 1);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "--phase 1..2");
  ASSERT_EQ(replay(yaml, key, 1, "--phase 1").exit_code, 0);
  EXPECT_EQ(record()["stages"].back()["shape"], (json{16, 16, 3}));
  ASSERT_EQ(replay(yaml, key, 1, "--phase 2").exit_code, 0);
  EXPECT_EQ(record()["stages"].back()["shape"], (json{48, 48, 3}));
  EXPECT_EQ(replay(yaml, key, 1, "--phase 3").exit_code, 2);
}

/// The image in row and column of a grid with gaps of two pixels.
std::vector<std::uint8_t> cell(const Image& grid, ImageShape shape, int row, int column) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < shape.height; ++y) {
    const std::uint8_t* begin =
        grid.view().row(row * (shape.height + 2) + y) + column * (shape.width + 2) * kChannels;
    pixels.insert(pixels.end(), begin, begin + shape.width * kChannels);
  }
  return pixels;
}

class Preview : public Replay {
 protected:
  Result preview(const std::string& arguments) const {
    return run_tool("gan-prep",
                    "preview " + arguments + " --out '" + (folder_ / "grid.png").string() + "'");
  }
  Image grid() const { return decode_png(read_file(folder_ / "grid.png")); }
  std::string shards() const { return "'" + (folder_ / "shards").string() + "'"; }
};

TEST_F(Preview, ShowsShardsAsTheyAreAndAsTrainingSeesThem) {
  const std::string source = "  - {use: source.synthetic, size: 16, draws: 30}\n";
  ASSERT_EQ(
      run_tool("gan-prep", "build " + config(source + "  - {use: sink.shards, root: shards}\n"))
          .exit_code,
      0);
  constexpr ImageShape kShape{16, 16};
  const auto key = [](int number) {
    return "synthetic/1/000000" + std::string(number < 10 ? "0" : "") + std::to_string(number);
  };

  const std::string yaml = config(source + kAugment + kTrain);
  const auto trained_images = trained();
  for (const int epoch : {1, 3}) {
    const std::string of_epoch = " --grid 3x4 --epoch " + std::to_string(epoch);
    // The same from the shards, and from the configuration's own data.
    for (const std::string& data : {shards() + " --config " + yaml, yaml}) {
      const Result result = preview(data + of_epoch);
      ASSERT_EQ(result.exit_code, 0) << result.err;
      ASSERT_EQ(grid().shape(), (ImageShape{3 * 18 - 2, 4 * 18 - 2}));
      for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(cell(grid(), kShape, i / 4, i % 4),
                  trained_images.at({static_cast<std::uint32_t>(epoch), key(i)}))
            << i;
      }
    }
  }

  config(source + kTrain);
  const auto plain = trained();
  ASSERT_EQ(preview(shards() + " --grid 2x5").exit_code, 0);
  EXPECT_EQ(cell(grid(), kShape, 1, 4), plain.at({1, key(9)}));
  // A choice that belongs to a number.
  ASSERT_EQ(preview(shards() + " --grid 2x5 --shuffle 4").exit_code, 0);
  const Image first = grid();
  ASSERT_EQ(preview(shards() + " --grid 2x5 --shuffle 4").exit_code, 0);
  EXPECT_EQ(grid().pixels(), first.pixels());
  ASSERT_EQ(preview(shards() + " --grid 2x5 --shuffle 5").exit_code, 0);
  EXPECT_NE(grid().pixels(), first.pixels());
  // Fewer images than places: as many rows as are needed.
  ASSERT_EQ(preview(shards() + " --grid 9x8").exit_code, 0);
  EXPECT_EQ(grid().shape(), (ImageShape{4 * 18 - 2, 8 * 18 - 2}));
}

TEST_F(Preview, TellsWhatIsWrong) {
  const std::string yaml = config(
      "  - {use: source.synthetic, size: 16, draws: 30}\n  - {use: batch, size: 4}\n"
      "  - {use: train.dcgan, epochs: 2}\n  - {use: evaluate.quality}\n");
  // A trainer is not loaded for this, so it may be missing.
  EXPECT_EQ(preview(yaml).exit_code, 0);
  Result result = preview(yaml + " --grid 3");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "ROWSxCOLUMNS");
  result = preview(yaml + " --config " + yaml);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_CONTAINS(result.err, "is a configuration itself");
  EXPECT_EQ(preview(yaml + " --epoch 0").exit_code, 2);
  EXPECT_EQ(preview("'" + folder_.path().string() + "'").exit_code, 3);
  EXPECT_EQ(run_tool("gan-prep", "preview " + yaml).exit_code, 2);
}

}  // namespace
}  // namespace gp
