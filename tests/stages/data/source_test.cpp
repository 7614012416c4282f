#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/source_fgvc.hpp"
#include "stages/data/source_folder.hpp"
#include "stages/data/stages.hpp"
#include "tests/stages/data/memory_output.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// An empty folder of its own, removed at the end.
class Sources : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "gp_source_test_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  /// A small FGVC-Aircraft.
  void write_fgvc() {
    write("data/variants.txt", "747-200\nF/A-18\nMetroliner III\n");
    write("data/images_variant_trainval.txt",
          "0448006 747-200\n1170013 F/A-18\n0099999 Metroliner III\n0448007 747-200\n");
    for (const std::string id : {"0448006", "1170013", "0448007"}) {
      write("data/images/" + id + ".jpg", "bytes of " + id);
    }
  }
  /// The text of the DataError that opening the small FGVC-Aircraft gives; "" for none.
  std::string fgvc_error(const std::string& split = "trainval",
                         const std::string& labels = "variant") const {
    try {
      FgvcSource(root_, split, labels);
      return "";
    } catch (const DataError& error) {
      return error.what();
    }
  }
  std::string folder_error(const FolderOptions& options = {}) const {
    try {
      FolderSource(root_, options);
      return "";
    } catch (const DataError& error) {
      return error.what();
    }
  }
  static std::vector<std::string> keys(const SourceStage& source) {
    std::vector<std::string> all;
    for (std::uint64_t i = 0; i < source.size(); ++i) all.push_back(source.key(i));
    return all;
  }
  static bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  fs::path root_;
};

using Keys = std::vector<std::string>;

// source.fgvc -------------------------------------------------------------------------------------

TEST_F(Sources, FgvcFollowsItsLists) {
  write_fgvc();
  const FgvcSource source(root_, "trainval", "variant");
  EXPECT_EQ(keys(source), (Keys{"0448006", "1170013", "0099999", "0448007"}));
  EXPECT_EQ(source.class_names(), (Keys{"747-200", "F/A-18", "Metroliner III"}));
  EXPECT_EQ(source.label(0), 0);
  EXPECT_EQ(source.label(1), 1);
  EXPECT_EQ(source.label(2), 2);
  EXPECT_EQ(source.label(3), 0);
  MemoryOutput out;
  source.read(1, out);
  EXPECT_EQ(std::string(out.data.begin(), out.data.end()), "bytes of 1170013");
  // Listed, but not there: a bad sample, not the end.
  EXPECT_THROW(source.read(2, out), SampleError);
}

TEST_F(Sources, FgvcReadsWindowsLineEnds) {
  write_fgvc();
  const std::string digest = FgvcSource(root_, "trainval", "variant").digest();
  write("data/variants.txt", "747-200\r\nF/A-18\r\nMetroliner III\r\n");
  write("data/images_variant_trainval.txt", "1170013 F/A-18\r\n0448006 747-200");
  const FgvcSource source(root_, "trainval", "variant");
  EXPECT_EQ(source.class_names()[1], "F/A-18");
  EXPECT_EQ(keys(source), (Keys{"1170013", "0448006"}));
  EXPECT_NE(source.digest(), digest);
}

TEST_F(Sources, FgvcSaysWhatIsMissingAndWhereToGetIt) {
  for (const std::string& error :
       {fgvc_error(), (write_fgvc(), fgvc_error("test")), fgvc_error("trainval", "family")}) {
    EXPECT_TRUE(contains(error, "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/")) << error;
    EXPECT_TRUE(contains(error, "fgvc-aircraft-2013b.tar.gz"));
    EXPECT_TRUE(contains(error, "--set stages.source.fgvc.root=ROOT"));
    EXPECT_TRUE(contains(error, "ROOT/data/images/*.jpg"));
  }
  EXPECT_TRUE(contains(fgvc_error("test"),
                       "the list of images " + (root_ / "data/images_variant_test.txt").string()));
  EXPECT_TRUE(contains(fgvc_error("trainval", "family"), "families.txt is missing"));
  fs::remove_all(root_ / "data/images");
  EXPECT_TRUE(contains(fgvc_error(), "the folder " + (root_ / "data/images").string()));
  try {
    FgvcSource(root_ / "nowhere", "trainval", "variant");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kData);
    EXPECT_TRUE(contains(error.what(), "there is no folder " + (root_ / "nowhere").string()));
  }
}

TEST_F(Sources, FgvcSeesThatTheRootIsOneTooDeep) {
  write_fgvc();
  try {
    FgvcSource(root_ / "data", "trainval", "variant");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_TRUE(contains(error.what(), "is the root the folder above, " + root_.string() + "?"));
  }
}

TEST_F(Sources, FgvcNamesTheLineThatIsBroken) {
  write_fgvc();
  const std::string list = (root_ / "data/images_variant_trainval.txt").string();
  const std::map<std::string, std::string> cases = {
      {"0448006 747-200\n0448007\n", ":2: '0448007': expected an image's number and its class"},
      {"0448006 747-200\n\n1170013 F/A-18\n", ":2: '': expected"},
      {" 747-200\n", ":1: ' 747-200': expected"},
      {"../../etc/passwd 747-200\n", ":1: '../../etc/passwd 747-200': expected"},
      {"0448006 747-300\n", ":1: class '747-300' is not in "},
      {"0448006 747-200 \n", ":1: class '747-200 ' is not in "},
      {"0448006 747-200\n1170013 F/A-18\n0448006 F/A-18\n",
       ":3: image 0448006 is there already, in line 1"},
      {"", ": is empty, expected one image a line"}};
  for (const auto& [text, expected] : cases) {
    write("data/images_variant_trainval.txt", text);
    EXPECT_EQ(fgvc_error().rfind(list + expected, 0), 0U) << fgvc_error();
  }
  write("data/variants.txt", "747-200\nF/A-18\n747-200\n");
  EXPECT_TRUE(
      contains(fgvc_error(), "variants.txt:3: class '747-200' is there already, in line 1"));
}

TEST_F(Sources, FgvcDigestChangesWithTheDataOnly) {
  write_fgvc();
  const auto digest = [this] { return FgvcSource(root_, "trainval", "variant").digest(); };
  const std::string first = digest();
  EXPECT_EQ(first.size(), 64U);
  EXPECT_EQ(digest(), first);
  // By hand: keys sorted, with sizes; then both lists.
  EXPECT_EQ(first, sha256_hex("0099999\t-1\n0448006\t16\n0448007\t16\n1170013\t16\n" +
                              read_text(root_ / "data/variants.txt") +
                              read_text(root_ / "data/images_variant_trainval.txt")));
  const fs::path moved = root_.string() + "_moved";
  fs::rename(root_, moved);
  EXPECT_EQ(FgvcSource(moved, "trainval", "variant").digest(), first);
  fs::rename(moved, root_);
  write("data/images/0448007.jpg", "other bytes, and more of them");
  EXPECT_NE(digest(), first);
}

TEST_F(Sources, FgvcLabelsAreVariantsFamiliesOrManufacturers) {
  write_fgvc();
  write("data/families.txt", "Boeing 747\nF/A-18\n");
  write("data/images_family_test.txt", "0448006 Boeing 747\n1170013 F/A-18\n");
  write("data/manufacturers.txt", "McDonnell Douglas\nBoeing\n");
  write("data/images_manufacturer_test.txt", "1170013 McDonnell Douglas\n0448006 Boeing\n");
  const FgvcSource families(root_, "test", "family");
  EXPECT_EQ(families.class_names(), (Keys{"Boeing 747", "F/A-18"}));
  EXPECT_EQ(keys(families), (Keys{"0448006", "1170013"}));
  EXPECT_EQ(families.label(1), 1);
  const FgvcSource manufacturers(root_, "test", "manufacturer");
  EXPECT_EQ(manufacturers.class_names(), (Keys{"McDonnell Douglas", "Boeing"}));
  EXPECT_EQ(manufacturers.label(1), 1);
  EXPECT_NE(manufacturers.digest(), families.digest());
}

TEST_F(Sources, FgvcGivesBoxes) {
  write_fgvc();
  // The list is of all splits, in any order. Pixels from 1, the last ones included.
  write("data/images_box.txt",
        "0448007 1 1 1 1\n7654321 5 5 9 9\n0448006 11 168 991 433\n0099999 0 3 4 5\r\n"
        "1170013 1 2 1024 700\n");
  const FgvcSource source(root_, "trainval", "variant", true);
  const std::vector<RectF> expected = {
      {10, 167, 981, 266}, {0, 1, 1024, 699}, {-1, 2, 5, 3}, {0, 0, 1, 1}};
  write("data/images/0099999.jpg", "bytes");
  for (const std::uint64_t item : {0, 1, 2, 3}) {
    MemoryOutput out;
    source.read(item, out);
    ASSERT_TRUE(out.geometry.has_value());
    EXPECT_EQ(out.geometry->region, expected[item]);
    EXPECT_FALSE(out.data.empty());
  }
  const FgvcSource whole(root_, "trainval", "variant");
  MemoryOutput out;
  whole.read(0, out);
  EXPECT_FALSE(out.geometry.has_value());
  EXPECT_NE(whole.digest(), source.digest());
  const std::string digest = source.digest();
  write("data/images_box.txt", read_text(root_ / "data/images_box.txt") + "7654322 1 1 2 2\n");
  EXPECT_NE(FgvcSource(root_, "trainval", "variant", true).digest(), digest);
  EXPECT_EQ(keys(source), keys(whole));
}

TEST_F(Sources, FgvcNamesTheBoxThatIsMissingOrBroken) {
  write_fgvc();
  const auto error = [this] {
    try {
      FgvcSource(root_, "trainval", "variant", true);
      return std::string();
    } catch (const DataError& failure) {
      return std::string(failure.what());
    }
  };
  EXPECT_TRUE(contains(error(), "the list of boxes " + (root_ / "data/images_box.txt").string()));
  const std::string good = "0448006 1 1 9 9\n1170013 1 1 9 9\n0099999 1 1 9 9\n0448007 1 1 9 9\n";
  write("data/images_box.txt", good);
  EXPECT_EQ(error(), "");
  const std::string list = (root_ / "data/images_box.txt").string();
  for (const std::string broken :
       {"0448008 1 1 9", "0448008 1 1 9 9 9", "0448008 1 1 9 x", "0448008", "0448008 5 1 4 9",
        "0448008 1 5 9 4", "0448008  1 1 9 9", "0448008 1 1 9 9 ", "", "0448008 -1 1 9 9",
        "0448008 1.5 1 9 9", "../x 1 1 9 9", "0448008 1 1 9 99999999999"}) {
    write("data/images_box.txt", good + broken + "\n");
    EXPECT_EQ(
        error().rfind(list + ":5: '" + broken + "': expected an image's number and its box", 0), 0U)
        << error();
  }
  write("data/images_box.txt", good + "1170013 1 1 8 8\n");
  EXPECT_EQ(error(), list + ":5: image 1170013 has a box already, in line 2");
  write("data/images_box.txt", "0448006 1 1 9 9\n1170013 1 1 9 9\n0448007 1 1 9 9\n");
  EXPECT_EQ(error(), (root_ / "data/images_variant_trainval.txt").string() +
                         ":3: image 0099999 has no box in " + list +
                         "; add one, or set crop_to_box: false");
}

TEST_F(Sources, FgvcReal) {
  const fs::path root = GP_SOURCE_DIR "/../shared/data/fgvc-aircraft-2013b";
  if (!fs::exists(root)) GTEST_SKIP() << "FGVC-Aircraft is not at " << root;
  std::set<std::string> seen;
  for (const std::string split : {"train", "val", "test"}) {
    const FgvcSource source(root, split, "variant");
    ASSERT_GT(source.size(), 0U);
    for (const std::string& key : keys(source)) EXPECT_TRUE(seen.insert(key).second);
    MemoryOutput out;
    source.read(source.size() - 1, out);
    EXPECT_GT(out.data.size(), 1000U);
  }
  const FgvcSource both(root, "trainval", "manufacturer");
  for (const std::string& key : keys(both)) EXPECT_EQ(seen.count(key), 1U);
  EXPECT_EQ(FgvcSource(root, "trainval", "family", true).size(), both.size());
}

TEST_F(Sources, FgvcStageTakesItsParameters) {
  write_fgvc();
  const StageInfo info = source_fgvc_info();
  const auto stage = info.create(make_params(info.params, {{"root", root_.string()}}));
  EXPECT_EQ(dynamic_cast<SourceStage&>(*stage).size(), 4U);
  EXPECT_THROW(make_params(info.params, {{"root", root_.string()}, {"split", std::string("all")}}),
               ConfigError);
}

// source.folder -----------------------------------------------------------------------------------

TEST_F(Sources, FolderSortsByBytesAndLabelsByFolder) {
  for (const std::string path :
       {"b/2.png", "b/10.JPG", "a/x/deep.jpeg", "Z/1.webp", "top.bmp", "a.tif", "b/notes.txt",
        "b/jpg", "empty_of_images/readme.md", ".hidden/1.jpg", "b/._2.png"}) {
    write(path, path);
  }
  const FolderSource source(root_, {});
  EXPECT_EQ(keys(source),
            (Keys{"Z/1.webp", "a.tif", "a/x/deep.jpeg", "b/10.JPG", "b/2.png", "top.bmp"}));
  EXPECT_EQ(source.class_names(), (Keys{"Z", "a", "b"}));
  std::vector<int> labels;
  for (std::uint64_t i = 0; i < source.size(); ++i) labels.push_back(source.label(i));
  EXPECT_EQ(labels, (std::vector<int>{0, -1, 1, 2, 2, -1}));
  MemoryOutput out;
  source.read(2, out);
  EXPECT_EQ(std::string(out.data.begin(), out.data.end()), "a/x/deep.jpeg");

  FolderOptions options;
  options.labels = false;
  const FolderSource plain(root_, options);
  EXPECT_TRUE(plain.class_names().empty());
  EXPECT_EQ(plain.label(0), -1);
  EXPECT_NE(plain.digest(), source.digest());
  options.recursive = false;
  options.extensions = {"bmp"};
  EXPECT_EQ(keys(FolderSource(root_, options)), (Keys{"top.bmp"}));
}

TEST_F(Sources, FolderWithoutImagesIsAnError) {
  EXPECT_TRUE(
      contains(folder_error(), "no images in " + root_.string() + " (looked for jpg, jpeg"));
  write("sub/a.jpg", "");
  FolderOptions options;
  options.recursive = false;
  EXPECT_TRUE(contains(folder_error(options), "recursive is false"));
  EXPECT_THROW(FolderSource(root_ / "none", {}), DataError);
  EXPECT_THROW(FolderSource(root_ / "sub/a.jpg", {}), DataError);
}

TEST_F(Sources, FolderFollowsLinksButNotInCircles) {
  write("data/a.jpg", "a");
  fs::create_directory_symlink(root_ / "data", root_ / "alias");
  EXPECT_EQ(keys(FolderSource(root_, {})), (Keys{"alias/a.jpg", "data/a.jpg"}));
  fs::create_directory_symlink(root_, root_ / "data/up");
  EXPECT_TRUE(contains(folder_error(), "is a link back to")) << folder_error();
  fs::remove(root_ / "data/up");
  fs::create_symlink("self.jpg", root_ / "self.jpg");
  fs::create_symlink("nowhere", root_ / "zz.png");
  const FolderSource source(root_, {});
  EXPECT_EQ(keys(source), (Keys{"alias/a.jpg", "data/a.jpg", "self.jpg", "zz.png"}));
  MemoryOutput out;
  EXPECT_THROW(source.read(2, out), SampleError);
  EXPECT_THROW(source.read(3, out), SampleError);
  EXPECT_EQ(source.digest().size(), 64U);
}

TEST_F(Sources, FolderPassesOverWhatWouldBlock) {
  write("a.jpg", "a");
  ASSERT_EQ(::mkfifo((root_ / "pipe.jpg").c_str(), 0600), 0);
  const FolderSource source(root_, {});
  EXPECT_EQ(keys(source), (Keys{"a.jpg"}));
  // And where a file turns into something else later on.
  fs::remove(root_ / "a.jpg");
  ASSERT_EQ(::mkfifo((root_ / "a.jpg").c_str(), 0600), 0);
  MemoryOutput out;
  EXPECT_THROW(source.read(0, out), SampleError);
}

TEST_F(Sources, FolderNamesThatCannotBeWrittenDown) {
  write("caf\xC3\xA9/\xF0\x9F\x9B\xA9.jpg", "fine");
  EXPECT_EQ(folder_error(), "");
  for (const std::string name : {"caf\xE9.jpg", "tab\there.jpg", "line\nend.jpg", "\xC0\xAF.jpg",
                                 "\xED\xA0\x80.jpg", "\xF5\x80\x80\x80.jpg", "\xE2\x82.jpg"}) {
    write(name, "");
    EXPECT_TRUE(contains(folder_error(), "is not UTF-8 or holds control characters"));
    fs::remove(root_ / name);
  }
}

TEST_F(Sources, FolderThatCannotBeReadIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  write("a.jpg", "a");
  fs::create_directory(root_ / "closed");
  fs::permissions(root_ / "closed", fs::perms::none);
  EXPECT_TRUE(contains(folder_error(), "cannot read the folder"));
  fs::permissions(root_ / "closed", fs::perms::owner_all);
}

TEST_F(Sources, FolderStageTakesItsParameters) {
  write("a.JPG", "");
  write("b.png", "");
  const StageInfo info = source_folder_info();
  const auto size = [&](const std::string& extensions) {
    const auto stage = info.create(
        make_params(info.params, {{"root", root_.string()}, {"extensions", extensions}}));
    return dynamic_cast<SourceStage&>(*stage).size();
  };
  EXPECT_EQ(size("jpg, .PNG"), 2U);
  EXPECT_EQ(size("png"), 1U);
  EXPECT_THROW(size(" , "), ConfigError);
}

TEST_F(Sources, LargeFilesAreBadSamples) {
  write("a.jpg", "");
  fs::resize_file(root_ / "a.jpg", (std::uintmax_t{1} << 30) + 1);  // sparse
  MemoryOutput out;
  EXPECT_THROW(FolderSource(root_, {}).read(0, out), SampleError);
}

}  // namespace
}  // namespace gp
