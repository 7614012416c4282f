#include <gtest/gtest.h>

#include <fstream>

#include "pipeline/error.hpp"
#include "stages/data/source_folder.hpp"
#include "stages/data/stages.hpp"
#include "tests/stages/data/archive_writer.hpp"
#include "tests/stages/data/memory_output.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::ArchiveWriter;
using Files = std::vector<std::pair<std::string, std::string>>;
using Names = std::vector<std::string>;

class ArchiveSources : public ::testing::Test {
 protected:
  fs::path pack(const std::string& name, const Files& files, const std::string& format = "pax",
                const std::string& filter = "none") {
    ArchiveWriter writer(folder_ / name, format, filter);
    for (const auto& [path, data] : files) writer.file(path, data);
    writer.close();
    return folder_ / name;
  }
  static std::unique_ptr<SourceStage> open(const fs::path& path,
                                           std::map<std::string, Value> given = {}) {
    const StageInfo info = source_archive_info();
    given["root"] = path.string();
    std::unique_ptr<Stage> stage = info.create(make_params(info.params, given));
    return std::unique_ptr<SourceStage>(&dynamic_cast<SourceStage&>(*stage.release()));
  }
  static std::string error(const fs::path& path, const std::map<std::string, Value>& given = {}) {
    try {
      open(path, given);
      return "";
    } catch (const DataError& failure) {
      return failure.what();
    }
  }
  static Names keys(const SourceStage& source) {
    Names all;
    for (std::uint64_t i = 0; i < source.size(); ++i) all.push_back(source.key(i));
    return all;
  }
  testing::TemporaryFolder folder_;
};

TEST_F(ArchiveSources, AreWhatSourceFolderIsOnceUnpacked) {
  const Files files = {{"b/2.png", "two"},        {"top.bmp", "top"},    {"b/10.JPG", "ten"},
                       {"a/x/deep.jpeg", "deep"}, {"b/notes.txt", "no"}, {"Z/1.webp", ""},
                       {".hidden/1.jpg", "no"},   {"b/._2.png", "no"},   {"a/.x/1.jpg", "no"},
                       {"b/jpg", "no"},           {"a.tif", "a"}};
  for (const auto& [path, data] : files) {
    fs::create_directories((folder_ / ("plain/" + path)).parent_path());
    std::ofstream(folder_ / ("plain/" + path)) << data;
  }
  const FolderSource plain(folder_ / "plain", {});
  EXPECT_EQ(keys(plain),
            (Names{"Z/1.webp", "a.tif", "a/x/deep.jpeg", "b/10.JPG", "b/2.png", "top.bmp"}));
  for (const fs::path& path : {pack("a.tar", files), pack("a.tar.zst", files, "pax", "zstd"),
                               pack("a.zip", files, "zip")}) {
    SCOPED_TRACE(path.string());
    const auto source = open(path);
    EXPECT_EQ(keys(*source), keys(plain));
    EXPECT_EQ(source->class_names(), plain.class_names());
    EXPECT_EQ(source->digest(), plain.digest());
    for (std::uint64_t i = 0; i < source->size(); ++i) {
      EXPECT_EQ(source->label(i), plain.label(i));
      MemoryOutput from_archive;
      MemoryOutput from_folder;
      source->read(i, from_archive);
      plain.read(i, from_folder);
      EXPECT_EQ(from_archive.data, from_folder.data);
    }
    EXPECT_TRUE(open(path, {{"labels", std::string("none")}})->class_names().empty());
    EXPECT_EQ(keys(*open(path, {{"extensions", std::string("tif")}})), (Names{"a.tif"}));
  }
}

TEST_F(ArchiveSources, AFolderWithinMayBeTheRoot) {
  const fs::path path = pack("a.tar", {{"set/img/cat/1.jpg", "1"},
                                       {"set/img/dog/1.jpg", "2"},
                                       {"set/img.jpg", "3"},
                                       {"set/imgs/1.jpg", "4"}});
  for (const std::string folder : {"set/img", "set/img/"}) {
    const auto source = open(path, {{"folder", folder}});
    EXPECT_EQ(keys(*source), (Names{"cat/1.jpg", "dog/1.jpg"}));
    EXPECT_EQ(source->class_names(), (Names{"cat", "dog"}));
    MemoryOutput out;
    source->read(1, out);
    EXPECT_EQ(std::string(out.data.begin(), out.data.end()), "2");
  }
  EXPECT_EQ(open(path)->class_names(), (Names{"set"}));
  EXPECT_CONTAINS(error(path, {{"folder", std::string("img")}}),
                  "no images in " + path.string() +
                      " below 'img/' (looked for jpg, jpeg, png, webp, bmp, tif, tiff among 4 "
                      "files)");
}

TEST_F(ArchiveSources, TakeLabelsFromACsvFile) {
  const fs::path path = pack("a.zip", {{"1.jpg", "1"}, {"2.jpg", "2"}, {"3.jpg", "3"}}, "zip");
  std::ofstream(folder_ / "labels.csv") << "3.jpg,cat\n2.jpg,dog\n";
  const std::string labels = (folder_ / "labels.csv").string();
  EXPECT_CONTAINS(error(path, {{"label_file", labels}}), "no rows for 1 of the 3 images");
  const auto source = open(path, {{"label_file", labels}, {"unlisted", std::string("skip")}});
  EXPECT_EQ(keys(*source), (Names{"2.jpg", "3.jpg"}));
  EXPECT_EQ(source->label(0), 1);
  MemoryOutput out;
  source->read(0, out);  // of those that are left, not of all
  EXPECT_EQ(std::string(out.data.begin(), out.data.end()), "2");
}

TEST_F(ArchiveSources, DanglingLinksAreBadSamples) {
  ArchiveWriter writer(folder_ / "a.tar", "pax");
  writer.file("1.jpg", "1");
  writer.symbolic_link("2.jpg", "none.jpg");
  writer.close();
  const auto source = open(folder_ / "a.tar");
  EXPECT_EQ(source->size(), 2U);
  MemoryOutput out;
  try {
    source->read(1, out);
    FAIL();
  } catch (const SampleError& failure) {
    EXPECT_STREQ(failure.what(), "it is a link to something that is not in the archive (in a.tar)");
  }
}

TEST_F(ArchiveSources, SayWhatIsWrong) {
  EXPECT_CONTAINS(error(folder_ / "none.zip"),
                  "there is no archive " + (folder_ / "none.zip").string() +
                      "; give one by 'root:' or --set stages.source.archive.root=FILE");
  EXPECT_CONTAINS(error(folder_.path()),
                  "is a folder, expected a tar or zip; for folders there is");
  EXPECT_CONTAINS(error(pack("text.tar", {{"a.txt", "x"}})), "no images in ");
  EXPECT_CONTAINS(error(pack("name.tar", {{"caf\xE9.jpg", "x"}}, "gnutar")),
                  "is not UTF-8 or holds control characters; pack the images again");
  EXPECT_EQ(error(pack("other.tar", {{"caf\xE9.txt", "x"}, {"a.jpg", "x"}}, "gnutar")), "");
  std::ofstream(folder_ / "photo.jpg") << "\xFF\xD8\xFF\xE0 and so on";
  EXPECT_CONTAINS(error(folder_ / "photo.jpg"), "is neither a zip nor a tar");
  EXPECT_CONTAINS(error(pack("a.tgz", {{"a.jpg", std::string(2 << 20, 'x')}}, "pax", "gzip"),
                        {{"max_unpacked", 0.001}}),
                  "larger than max_unpacked = 0.001 GiB");
}

}  // namespace
}  // namespace gp
