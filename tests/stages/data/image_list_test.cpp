// Labels and names, through source.folder.

#include "stages/data/image_list.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/source_folder.hpp"
#include "stages/data/stages.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

class ImageList : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const std::string name : {"photos/a.jpg", "photos/b.png", "photos/sub/c, d.jpg"}) {
      write(name, "bytes of " + name);
    }
  }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  FolderSource open(const std::string& csv, Unlisted unlisted = Unlisted::kRefuse) {
    write("labels.csv", csv);
    FolderOptions options;
    options.label_file = folder_ / "labels.csv";
    options.unlisted = unlisted;
    return {folder_ / "photos", options};
  }
  /// "key=class number", one a line.
  static std::string labels(const FolderSource& source) {
    std::string text;
    for (std::uint64_t i = 0; i < source.size(); ++i) {
      text += source.key(i) + "=" + std::to_string(source.label(i)) + "\n";
    }
    return text;
  }
  /// Behind "PATH/labels.csv".
  std::string error(const std::string& csv, Unlisted unlisted = Unlisted::kRefuse) {
    try {
      open(csv, unlisted);
      return "";
    } catch (const DataError& failure) {
      const std::string text = failure.what();
      const std::string path = (folder_ / "labels.csv").string();
      EXPECT_EQ(text.rfind(path, 0), 0U) << text;
      return text.substr(path.size());
    }
  }
  std::string photos() const { return (folder_ / "photos").string(); }

  testing::TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(ImageList, LabelsComeFromACsvFile) {
  const FolderSource source = open("b.png,cat\n\"sub/c, d.jpg\",bird\n./a.jpg,cat\n");
  EXPECT_EQ(source.class_names(), (Names{"bird", "cat"}));
  EXPECT_EQ(labels(source), "a.jpg=1\nb.png=1\nsub/c, d.jpg=0\n");
}

TEST_F(ImageList, AFirstRowMayNameTheColumns) {
  const FolderSource source =
      open("\xEF\xBB\xBFsplit,Label,File\r\n1,cat,b.png\r\n1,bird,\"sub/c, d.jpg\"\r\n2,cat,a.jpg");
  EXPECT_EQ(labels(source), "a.jpg=1\nb.png=1\nsub/c, d.jpg=0\n");
}

TEST_F(ImageList, WholeNumbersAreSortedByValue) {
  EXPECT_EQ(open("a.jpg,10\nb.png,9\n\"sub/c, d.jpg\",0\n").class_names(), (Names{"0", "9", "10"}));
  EXPECT_EQ(open("a.jpg,10\nb.png,9\n\"sub/c, d.jpg\",x\n").class_names(), (Names{"10", "9", "x"}));
  EXPECT_EQ(open("a.jpg,10\nb.png,9\n\"sub/c, d.jpg\",07\n").class_names(),
            (Names{"07", "10", "9"}));
}

TEST_F(ImageList, ImagesWithoutARowAreRefusedSkippedOrKept) {
  const std::string csv = "b.png,cat\n";
  EXPECT_EQ(error(csv), ": no rows for 2 of the 3 images in " + photos() +
                            ", the first is 'a.jpg'; add rows, or set unlisted: skip to leave them "
                            "out or unlisted: keep to give them the label -1");
  EXPECT_EQ(labels(open(csv, Unlisted::kSkip)), "b.png=0\n");
  EXPECT_EQ(labels(open(csv, Unlisted::kKeep)), "a.jpg=-1\nb.png=0\nsub/c, d.jpg=-1\n");
  EXPECT_EQ(error("file,label\n", Unlisted::kSkip), ": names no image of " + photos());
}

TEST_F(ImageList, WrongRowsAreErrorsWithTheirLine) {
  const std::string rest = "\"sub/c, d.jpg\",bird\nb.png,cat\n";
  const std::map<std::string, std::string> cases = {
      {"", ": is empty, expected rows such as"},
      {rest + "a.jpg\n", ":3: 1 columns, expected 2, file and label, with commas between them"},
      {rest + "a.jpg;cat\n", ":3: 1 columns, expected 2"},
      {"x,file,label\n1,a.jpg,cat\n2,b.png\n",
       ":3: 2 columns, expected 3, as in the first row, with commas between them"},
      {"1,a.jpg,cat\n",
       ":1: 3 columns, expected 2, file and label, with commas between them; with "
       "more columns the first row must name those called file and label"},
      {rest + "a.jpg,\n", ":3: the label is empty"},
      {rest + "a.jpg, cat\n", ":3: the label ' cat' begins or ends with a blank; remove it"},
      {rest + "a.jpg,\"c\nat\"\n", ":3: the label holds control characters"},
      {rest + "a.jpg,cat\n\nb.png,cat\n", ":5: image 'b.png' is there already, in line 2"},
      {rest + "a.jpg,cat\nno.jpg,cat\nalso no.jpg,cat\n",
       ":4: there is no image 'no.jpg' in " + photos() +
           " (nor those of 1 more rows); expected paths below it, with '/' between folders"},
      {"name,class\n" + rest, ":1: there is no image 'name' in " + photos() +
                                  "; expected paths below it, with '/' between folders. If this "
                                  "row names the columns, call them file and label"},
      {rest + "a.jpg,\"cat\n", ":3: a quote is opened here and never closed"}};
  for (const auto& [csv, expected] : cases) {
    const std::string text = error(csv);
    EXPECT_EQ(text.rfind(expected, 0), 0U) << "got " << text << "\nfor " << csv;
  }
  FolderOptions options;
  options.label_file = folder_ / "none.csv";
  EXPECT_THROW(FolderSource(folder_ / "photos", options), DataError);
}

TEST_F(ImageList, DigestHoldsTheLabelsButNotHowTheFileIsWritten) {
  const std::string csv = "a.jpg,cat\nb.png,cat\n\"sub/c, d.jpg\",bird\n";
  const std::string digest = open(csv).digest();
  EXPECT_EQ(digest, sha256_hex("a.jpg\t21\nb.png\t21\nsub/c, d.jpg\t28\nbird\ncat\n1\n1\n0\n"));
  EXPECT_EQ(open("file,label\r\n" + csv).digest(), digest);
  EXPECT_NE(open("a.jpg,bird\nb.png,cat\n\"sub/c, d.jpg\",bird\n").digest(), digest);
  EXPECT_NE(open("a.jpg,cat\nb.png,cat\n", Unlisted::kSkip).digest(),
            open("a.jpg,cat\nb.png,cat\n", Unlisted::kKeep).digest());
}

TEST_F(ImageList, ParametersThatContradictEachOtherAreRefused) {
  write("labels.csv", "a.jpg,cat\n");
  const StageInfo info = source_folder_info();
  const auto error = [&](std::map<std::string, Value> given) {
    given["root"] = photos();
    try {
      info.create(make_params(info.params, given));
      return std::string();
    } catch (const ConfigError& failure) {
      return std::string(failure.what());
    }
  };
  const std::string file = (folder_ / "labels.csv").string();
  EXPECT_CONTAINS(error({{"label_file", file}, {"labels", std::string("none")}}),
                  "labels: none and a label_file exclude each other");
  EXPECT_CONTAINS(error({{"unlisted", std::string("skip")}}),
                  "unlisted: skip is about a label_file");
  EXPECT_EQ(error({{"label_file", file}, {"unlisted", std::string("keep")}}), "");
}

}  // namespace
}  // namespace gp
