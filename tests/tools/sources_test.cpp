// Sources of images and labels as a user runs them: the real program, a YAML file, the data module
// loaded by it, shards at the end.

#include <gtest/gtest.h>

#include <fstream>

#include "stages/common/png.hpp"
#include "stages/data/hdf5/shard_reader.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "tests/stages/data/archive_writer.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::ArchiveWriter;
using testing::ToolResult;

/// A picture whose every pixel tells where it is and which picture it is of.
Image picture(int height, int width, int number) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      std::uint8_t* pixel = image.view().row(y) + x * kChannels;
      pixel[0] = static_cast<std::uint8_t>(x);
      pixel[1] = static_cast<std::uint8_t>(y);
      pixel[2] = static_cast<std::uint8_t>(number);
    }
  }
  return image;
}

std::string png(int height, int width, int number) {
  const auto bytes = encode_png(picture(height, width, number).view());
  return {bytes.begin(), bytes.end()};
}

class SourcesOfImages : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  ToolResult build(const std::string& source, const std::string& to, const std::string& crop = "") {
    write("prep.yaml",
          "name: prep\nstages:\n  - {use: " + source + "}\n  - {use: image.decode}\n" + crop +
              "  - {use: image.resize, size: 16}\n  - {use: sink.shards, root: " + to + "}\n");
    return testing::run_tool("gan-prep", "build '" + (folder_ / "prep.yaml").string() + "'");
  }
  /// What the shards hold: key, class and pixels of each image.
  struct Shown {
    std::string key;
    std::string label;
    std::vector<std::uint8_t> pixels;
    bool operator==(const Shown&) const = default;
  };
  std::vector<Shown> shown(const std::string& shards) {
    const ShardReader shard(folder_ / (shards + "/" + shard_name(0)));
    std::vector<Shown> all;
    for (int i = 0; i < shard.count(); ++i) {
      Shown one{shard.key(i), shard.label(i) < 0 ? "" : shard.info().class_names[shard.label(i)],
                std::vector<std::uint8_t>(shard.info().shape.bytes())};
      shard.read(i, one.pixels);
      all.push_back(std::move(one));
    }
    return all;
  }
  testing::TemporaryFolder folder_;
};

TEST_F(SourcesOfImages, ShardsFromArchivesAreThoseFromTheFolder) {
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < 20; ++i) {
    files.emplace_back((i % 3 == 0 ? "cat/" : "dog/") + std::to_string(i) + ".png", png(40, 50, i));
  }
  files.emplace_back("dog/broken.png", png(40, 50, 99).substr(0, 60));
  for (const auto& [name, bytes] : files) write("photos/" + name, bytes);
  ToolResult result = build("source.folder, root: photos", "from_folder");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<Shown> expected = shown("from_folder");
  ASSERT_EQ(expected.size(), 20U);
  EXPECT_EQ(expected.front().key, "cat/0.png");
  EXPECT_EQ(expected.front().label, "cat");
  for (const auto& [name, format, filter] :
       std::vector<std::array<std::string, 3>>{{"photos.zip", "zip", "none"},
                                               {"photos.tar", "ustar", "none"},
                                               {"photos.tar.gz", "pax", "gzip"}}) {
    SCOPED_TRACE(name);
    ArchiveWriter writer(folder_ / name, format, filter);
    for (auto file = files.rbegin(); file != files.rend(); ++file) {
      writer.file("photos/" + file->first, file->second);
    }
    writer.close();
    result = build("source.archive, root: " + name + ", folder: photos", name + "_shards");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_CONTAINS(result.err, "read 21, written 20 images");
    EXPECT_TRUE(shown(name + "_shards") == expected);
  }
  fs::resize_file(folder_ / "photos.zip", 500);
  result = build("source.archive, root: photos.zip", "cut");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "'source.archive': " + (folder_ / "photos.zip").string() +
                                  ": the directory at the end of the zip is missing");
}

TEST_F(SourcesOfImages, LabelsFromACsvFileBesideTheConfiguration) {
  for (int i = 0; i < 4; ++i) write("photos/" + std::to_string(i) + ".png", png(30, 30, i));
  write("train.csv", "file,label\r\n3.png,\"cat, small\"\r\n0.png,dog\r\n");
  const std::string source = "source.folder, root: photos, label_file: train.csv";
  ToolResult result = build(source, "shards");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "no rows for 2 of the 4 images");
  result = build(source + ", unlisted: skip", "shards");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto images = shown("shards");
  ASSERT_EQ(images.size(), 2U);
  EXPECT_EQ(images[0].key + " " + images[0].label, "0.png dog");
  EXPECT_EQ(images[1].key + " " + images[1].label, "3.png cat, small");
  // Labels are part of the data: the same images with others are not the same shards.
  write("train.csv", "file,label\n3.png,dog\n0.png,dog\n");
  EXPECT_EQ(build(source + ", unlisted: skip", "shards").exit_code, 2);
  write("train.csv", "3.png,dog\n4.png,dog\n");
  result = build(source, "others");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "train.csv:2: there is no image '4.png' in ");
}

TEST_F(SourcesOfImages, BoxesOfFgvcMeetTheBannerInSourcePixels) {
  write("data/variants.txt", "747-200\n");
  write("data/images_variant_train.txt", "0000001 747-200\n0000002 747-200\n");
  write("data/images/0000001.jpg", png(120, 100, 1));
  write("data/images/0000002.jpg", png(120, 100, 2));
  // From 1, inclusive: columns 20 to 51 and rows 30 to 61; the other one ends within the banner.
  write("data/images_box.txt", "0000002 21 89 52 120\n0000001 21 31 52 62\n");
  const std::string source = "source.fgvc, root: ., split: train, crop_to_box: true";
  ToolResult result = build(source, "shards", "  - {use: image.crop, bottom: 16}\n");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto images = shown("shards");
  ASSERT_EQ(images.size(), 2U);
  for (int y = 0; y < 16; ++y) {
    for (int x = 0; x < 16; ++x) {
      const std::size_t at = static_cast<std::size_t>(y * 16 + x) * kChannels;
      // The mean of two columns and rows, x + 1/2, may be rounded either way.
      EXPECT_NEAR(images[0].pixels[at], 20 + 2 * x + 0.5, 0.5);
      EXPECT_NEAR(images[0].pixels[at + 1], 30 + 2 * y + 0.5, 0.5);
      // Of rows 88 to 119 those up to 103 are above the banner.
      EXPECT_NEAR(images[1].pixels[at], 20 + 2 * x + 0.5, 0.5);
      EXPECT_NEAR(images[1].pixels[at + 1], 88 + y, 0);
    }
  }
  write("data/images_box.txt", "0000002 21 89 52 120\n0000001 21 31 52\n");
  result = build(source, "others");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err, "images_box.txt:2: '0000001 21 31 52': expected an image's number");
  // A box that lies in the banner altogether is a bad sample.
  write("data/images_box.txt", "0000002 21 107 52 120\n0000001 21 31 52 62\n");
  result = build(source, "one", "  - {use: image.crop, bottom: 16}\n");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_CONTAINS(result.err,
                  "sample '0000002', stage 'image.crop': crop of left 0, top 0, right "
                  "0, bottom 16 leaves nothing of an area of 32x14 source pixels");
}

TEST_F(SourcesOfImages, AreExplained) {
  const ToolResult archive = testing::run_tool("gan-pipeline", "inspect source.archive");
  EXPECT_EQ(archive.exit_code, 0) << archive.err;
  for (const std::string text : {"max_unpacked", "label_file", "unlisted", "folder", "zip"}) {
    EXPECT_CONTAINS(archive.out, text);
  }
  EXPECT_CONTAINS(testing::run_tool("gan-pipeline", "inspect source.fgvc").out, "crop_to_box");
  write("wrong.yaml",
        "stages:\n  - {use: source.archive, root: x.zip, label: a.csv, unlisted: drop}\n"
        "  - {use: image.decode}\n  - {use: sink.shards, root: y}\n");
  const ToolResult wrong =
      testing::run_tool("gan-prep", "build '" + (folder_ / "wrong.yaml").string() + "'");
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_CONTAINS(wrong.err,
                  "wrong.yaml:2:40: stages[0] 'source.archive': unknown parameter 'label'");
  EXPECT_CONTAINS(wrong.err, "unlisted = drop is not one of refuse, skip, keep");
}

}  // namespace
}  // namespace gp
