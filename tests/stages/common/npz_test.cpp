#include "stages/common/npz.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/stages/data/archive_writer.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::ArchiveWriter;
using testing::TemporaryFolder;

const fs::path kFixtures = fs::path(GP_SOURCE_DIR) / "tests/stages/common/fixtures";
constexpr std::int64_t kMost = 1000;

/// A member of version 1 with this dictionary and data.
std::string member(const std::string& dictionary, const std::string& data) {
  std::string text("\x93NUMPY\1\0", 8);
  text += static_cast<char>(dictionary.size() % 256);
  text += static_cast<char>(dictionary.size() / 256);
  return text + dictionary + data;
}
std::string header(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}
std::string doubles(const std::vector<double>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)};
}

class NpzTest : public ::testing::Test {
 protected:
  fs::path zip(const std::vector<std::pair<std::string, std::string>>& members) const {
    const fs::path path = folder_ / "a.npz";
    ArchiveWriter writer(path, "zip");
    for (const auto& [name, data] : members) writer.file(name, data);
    writer.close();
    return path;
  }
  static std::string message(const fs::path& path, const std::string& name) {
    try {
      read_npz(path, {name}, kMost);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }
  std::string message_of(const std::string& data) const {
    return message(zip({{"x.npy", data}}), "x");
  }

  TemporaryFolder folder_;
};

TEST_F(NpzTest, ReadsWhatNumpySaves) {
  for (const char* file : {"saved.npz", "compressed.npz"}) {
    const Npz npz = read_npz(kFixtures / file, {"mu", "sigma", "note", "nothing"}, 9);
    ASSERT_EQ(npz.arrays.size(), 2U) << file;
    EXPECT_EQ(npz.arrays.at("mu").shape, (std::vector<std::int64_t>{3}));
    EXPECT_EQ(npz.arrays.at("mu").values, (std::vector<double>{0.5, -1.25, 1e-300}));
    EXPECT_EQ(npz.arrays.at("sigma").shape, (std::vector<std::int64_t>{3, 3}));
    EXPECT_EQ(npz.arrays.at("sigma").values,
              (std::vector<double>{2, 0.25, 0, 0.25, 1, -0.5, 0, -0.5, 3}));
  }
  EXPECT_EQ(read_npz(kFixtures / "compressed.npz", {"note"}, 9).texts.at("note"), "a note");
}

TEST_F(NpzTest, ReadsEitherByteOrderPrecisionAndMemoryOrder) {
  const Npz npz = read_npz(kFixtures / "odd.npz",
                           {"big_endian", "single", "fortran", "scalar", "empty"}, kMost);
  for (const char* name : {"big_endian", "single", "fortran"}) {
    EXPECT_EQ(npz.arrays.at(name).shape, (std::vector<std::int64_t>{2, 3})) << name;
    EXPECT_EQ(npz.arrays.at(name).values, (std::vector<double>{0, 1, 2, 3, 4, 5})) << name;
  }
  EXPECT_EQ(npz.arrays.at("scalar").shape, std::vector<std::int64_t>{});
  EXPECT_EQ(npz.arrays.at("scalar").values, std::vector<double>{7.5});
  EXPECT_EQ(npz.arrays.at("empty").shape, (std::vector<std::int64_t>{0, 4}));
}

TEST_F(NpzTest, RefusesWhatIsNoArrayOfNumbers) {
  const fs::path file = kFixtures / "refused.npz";
  EXPECT_CONTAINS(message(file, "objects"),
                  "refused.npz: objects.npy holds pickled Python objects");
  EXPECT_CONTAINS(message(file, "integers"), "integers.npy is of type <i8; expected float64");
  EXPECT_CONTAINS(message(file, "complex"), "is of type <c16");
  EXPECT_CONTAINS(message(file, "fields"), "does not describe one array of numbers");
  EXPECT_CONTAINS(message(file, "words"), "is of type <U1");
  EXPECT_CONTAINS(message(file, "cube"), "[2, 2, 2] in Fortran order");
  EXPECT_EQ(message(file, "nothing"), "");  // what nobody asks for does not matter
}

TEST_F(NpzTest, ReadsBackWhatItWrites) {
  const Npz npz{{{"mu", {{2}, {1.0 / 3, -5e300}}}, {"one", {{}, {4}}}, {"none", {{0}, {}}}},
                {{"made_with", "{\"count\": 3}"}}};
  const fs::path file = folder_ / "w.npz";
  write_npz(file, npz);
  const Npz read = read_npz(file, {"mu", "one", "none", "made_with"}, kMost);
  EXPECT_EQ(read.arrays.at("mu").values, npz.arrays.at("mu").values);
  EXPECT_EQ(read.arrays.at("one").shape, std::vector<std::int64_t>{});
  EXPECT_EQ(read.arrays.at("one").values, std::vector<double>{4});
  EXPECT_EQ(read.arrays.at("none").shape, std::vector<std::int64_t>{0});
  EXPECT_EQ(read.texts, npz.texts);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
}

// NumPy reads a .npz with Python's zipfile, and headers with ast.literal_eval.
TEST_F(NpzTest, WritesWhatPythonReads) {
  const fs::path file = folder_ / "w.npz";
  write_npz(file,
            {{{"sigma", {{2, 3}, {0, 1, 2, 3, 4, 5}}}, {"mu", {{2}, {6, 7}}}}, {{"t", "ab"}}});
  const auto result = testing::run_shell(
      "python3 -c '\n"
      "import ast, struct, sys, zipfile\n"
      "z = zipfile.ZipFile(sys.argv[1])\n"
      "assert z.testzip() is None\n"
      "for name in sorted(z.namelist()):\n"
      "    b = z.read(name)\n"
      "    assert b[:8] == b\"\\x93NUMPY\\x01\\x00\", b[:8]\n"
      "    n = 10 + struct.unpack(\"<H\", b[8:10])[0]\n"
      "    assert n % 64 == 0 and b[n - 1:n] == b\"\\n\"\n"
      "    h = ast.literal_eval(b[10:n].decode())\n"
      "    f = b[n:] if h[\"descr\"][1] == \"S\" else struct.unpack(f\"<{len(b[n:]) // 8}d\", "
      "b[n:])\n"
      "    print(name, h[\"descr\"], h[\"fortran_order\"], h[\"shape\"], f)\n"
      "' '" +
      file.string() + "'");
  EXPECT_EQ(result.out,
            "mu.npy <f8 False (2,) (6.0, 7.0)\n"
            "sigma.npy <f8 False (2, 3) (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)\n"
            "t.npy |S2 False () b'ab'\n")
      << result.err;
}

TEST_F(NpzTest, HeadersDecideBeforeMemoryIsTaken) {
  // Each claims more than there is memory for.
  for (const char* shape : {"(1001,)", "(4000000000, 4000000000)", "(9223372036854775807,)",
                            "(4294967296, 4294967296, 4)", "(0x10,)"}) {
    const std::string text = message_of(member(header("<f8", shape), ""));
    EXPECT_NE(text, "") << shape;
    EXPECT_EQ(text.find("ends within"), std::string::npos) << text;
  }
  EXPECT_CONTAINS(message_of(member(header("<f8", "(1001,)"), "")),
                  "has the shape [1001], more than the 1000 numbers that are expected at most");
  EXPECT_CONTAINS(message_of(member(header("|S70000", "()"), "")), "a text of at most 64 KiB");
  EXPECT_CONTAINS(message_of(member(header("|S-1", "()"), "")), "a text of at most 64 KiB");
  std::string long_header("\x93NUMPY\2\0\xff\xff\xff\xff", 12);
  EXPECT_CONTAINS(message_of(long_header), "has a header of 4294967295 bytes");
}

TEST_F(NpzTest, DamageIsNamed) {
  const std::string good = member(header("<f8", "(2,)"), doubles({1, 2}));
  EXPECT_EQ(message_of(good), "");
  EXPECT_CONTAINS(message_of(good.substr(0, good.size() - 1)),
                  "a.npz: x.npy ends within its numbers");
  EXPECT_CONTAINS(message_of(good.substr(0, 30)), "ends within its header");
  EXPECT_CONTAINS(message_of(good.substr(0, 5)), "ends within its header");
  EXPECT_CONTAINS(message_of(good + "x"), "goes on behind the array");
  EXPECT_CONTAINS(message_of(""), "ends within its header");
  EXPECT_CONTAINS(message_of("PK" + good), "does not begin as NumPy's arrays do");
  std::string version = good;
  version[6] = 9;
  EXPECT_CONTAINS(message_of(version), "of version 9");
  for (const std::string dictionary :
       {"", "{}", "{'descr': '<f8'}", "[1, 2]",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': (2,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)", "{'descr': '<f8",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)} + evil()"}) {
    EXPECT_CONTAINS(message_of(member(dictionary, doubles({1, 2}))), "does not describe one array");
  }
  EXPECT_CONTAINS(message(zip({{"x.npy", good}, {"x.npy", good}}), "x"), "is there twice");
}

TEST_F(NpzTest, FilesThatAreNoNpzAreNamed) {
  const std::string whole = read_text(kFixtures / "compressed.npz");
  for (const auto& [bytes, name] : std::vector<std::pair<std::string, const char*>>{
           {"", "empty"},
           {"no zip at all", "text"},
           {whole.substr(0, whole.size() / 2), "half"},
           {whole.substr(0, whole.size() - 30), "cut"}}) {
    const fs::path file = folder_ / (std::string(name) + ".npz");
    write_file(file, bytes);
    EXPECT_CONTAINS(message(file, "mu"), std::string(name) + ".npz: ");
    EXPECT_CONTAINS(message(file, "mu"), "expected a .npz as numpy.savez writes it, whole");
  }
  EXPECT_CONTAINS(message(folder_ / "nowhere.npz", "mu"), "nowhere.npz: ");
  // Every flipped byte of the compressed numbers is noticed.
  int noticed = 0;
  int flipped = 0;
  const std::size_t first = whole.find("mu.npy") + 30;  // behind the name and Zip64
  for (std::size_t at = first; at < first + 60; at += 7, ++flipped) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_file(folder_ / "flipped.npz", damaged);
    if (!message(folder_ / "flipped.npz", "mu").empty()) ++noticed;
  }
  EXPECT_EQ(noticed, flipped);
}

}  // namespace
}  // namespace gp
