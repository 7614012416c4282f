#include "stages/data/archive.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "stages/data/byte_reader.hpp"
#include "tests/stages/data/archive_writer.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using testing::ArchiveWriter;
using Contents = std::map<std::string, std::string>;

constexpr std::int64_t kEnough = std::int64_t{1} << 30;

std::string noise(std::size_t size, std::uint64_t number) {
  Rng rng(5, "archive test", number);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.next_u32() >> 9);
  return bytes;
}

/// Files of many sizes and names.
Contents samples() {
  Contents files = {{"a.jpg", "first"},
                    {"empty.jpg", ""},
                    {"caf\xC3\xA9/\xF0\x9F\x9B\xA9.jpg", "beyond ASCII"},
                    {"text/long.txt", std::string(70000, 'x')},
                    {std::string(90, 'p') + "/" + std::string(90, 'q') + ".png", "long name"}};
  for (std::uint64_t i = 0; i < 12; ++i) {
    files["noise/" + std::to_string(i) + ".png"] = noise(i * 5000 + 511 + i, i);
  }
  return files;
}

Contents contents(const Archive& archive) {
  Contents files;
  std::vector<std::uint8_t> bytes;
  for (const Archive::Member& member : archive.members()) {
    archive.read(member, bytes);
    EXPECT_EQ(member.size, static_cast<std::int64_t>(bytes.size()));
    files[member.path].assign(bytes.begin(), bytes.end());
  }
  return files;
}

std::string error(const fs::path& path, std::int64_t max_unpacked = kEnough) {
  try {
    Archive::open(path, max_unpacked);
    return "";
  } catch (const DataError& failure) {
    return failure.what();
  }
}

class Archives : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  fs::path pack(const std::string& name, const Contents& files, const std::string& format,
                const std::string& filter = "none", const std::string& options = "") {
    ArchiveWriter writer(folder_ / name, format, filter, options);
    for (const auto& [path, data] : files) writer.file(path, data);
    writer.close();
    return folder_ / name;
  }
  testing::TemporaryFolder folder_;
};

TEST_F(Archives, TarsOfEveryFormatAndCompression) {
  const Contents files = samples();
  for (const std::string format : {"ustar", "pax", "gnutar"}) {
    for (const std::string filter : {"none", "gzip", "bzip2", "xz", "zstd", "lz4"}) {
      SCOPED_TRACE(format + " " + filter);
      const fs::path path = pack(format + filter, files, format, filter);
      EXPECT_EQ(contents(*Archive::open(path, kEnough)), files);
    }
  }
  EXPECT_EQ(contents(*Archive::open(pack("v7", {{"a.jpg", "1"}}, "v7tar"), kEnough)),
            (Contents{{"a.jpg", "1"}}));
}

TEST_F(Archives, ZipsStoredAndCompressed) {
  const Contents files = samples();
  for (const std::string how : {"store", "deflate"}) {
    SCOPED_TRACE(how);
    const fs::path path = pack(how, files, "zip", "none", "zip:compression=" + how);
    EXPECT_EQ(contents(*Archive::open(path, kEnough)), files);
  }
}

TEST_F(Archives, WhatPythonWrites) {
  const testing::ToolResult made = testing::run_shell("cd '" + folder_.path().string() + R"(' &&
python3 - <<'PY'
import io, tarfile, zipfile
files = {"a/1.png": b"one" * 1000, "caf\u00e9.png": b"two", "d" * 120 + "/3.png": b"three" * 9999}
for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED),
                     ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
    with zipfile.ZipFile(name + ".zip", "w", method) as archive:
        archive.writestr("a/", b"")
        for path, data in files.items():
            archive.writestr(path, data)
        archive.comment = b"PK\x05\x06 is how the end of a zip begins" + b"." * 100
with zipfile.ZipFile("zip64.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for path, data in files.items():
        with archive.open(path, "w", force_zip64=True) as member:
            member.write(data)
class Pipe(io.RawIOBase):  # cannot seek: sizes follow behind the data
    def __init__(self, file): self.file = file
    def writable(self): return True
    def write(self, data): return self.file.write(data)
for name, method in (("pipe_stored", zipfile.ZIP_STORED), ("pipe_deflated", zipfile.ZIP_DEFLATED)):
    with open(name + ".zip", "wb") as file, zipfile.ZipFile(Pipe(file), "w", method) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
for name, form in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
    with tarfile.open(name + ".tar", "w", format=form) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
PY)");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  std::string three;
  for (int i = 0; i < 9999; ++i) three += "three";
  std::string one;
  for (int i = 0; i < 1000; ++i) one += "one";
  const Contents files = {
      {"a/1.png", one}, {"caf\xC3\xA9.png", "two"}, {std::string(120, 'd') + "/3.png", three}};
  int tried = 0;
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    SCOPED_TRACE(entry.path().string());
    EXPECT_EQ(contents(*Archive::open(entry.path(), kEnough)), files);
    ++tried;
  }
  EXPECT_EQ(tried, 9);
}

/// `bytes` as a number in the least significant byte first.
std::string number(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

TEST_F(Archives, ZipWhoseSizesAndPlacesTakeSixtyFourBits) {
  // A whole member, and a directory as it is written for files beyond 4 GiB.
  const std::string data = "the picture";
  const std::string first = read_text(pack("a.zip", {{"0.jpg", "another"}, {"1.jpg", data}}, "zip",
                                           "none", "zip:compression=store"));
  const std::size_t header = first.rfind("PK\3\4");
  const std::string members = first.substr(0, first.find("PK\1\2"));
  const auto zip = [&](const std::string& extra, std::uint64_t place) {
    const std::string entry = "PK\1\2" + number(45, 2) + number(45, 2) + std::string(12, '\0') +
                              number(0xFFFFFFFF, 4) + number(0xFFFFFFFF, 4) + number(5, 2) +
                              number(extra.size(), 2) + std::string(10, '\0') + number(place, 4) +
                              "1.jpg" + extra;
    return members + entry + "PK\5\6" + std::string(4, '\0') + number(1, 2) + number(1, 2) +
           number(entry.size(), 4) + number(members.size(), 4) + number(0, 2);
  };
  const std::string sizes = number(data.size(), 8) + number(data.size(), 8);
  const std::string other = number(0x5455, 2) + number(5, 2) + "times";
  const std::string all = number(1, 2) + number(24, 2) + sizes + number(header, 8);
  for (const std::string& good :
       {zip(other + all, 0xFFFFFFFF), zip(number(1, 2) + number(16, 2) + sizes + other, header)}) {
    EXPECT_EQ(contents(*Archive::open(write("64.zip", good), kEnough)),
              (Contents{{"1.jpg", data}}));
    fs::remove(folder_ / "64.zip");
  }
  for (const std::string& bad :
       {zip("", 0xFFFFFFFF), zip(other, 0xFFFFFFFF), zip(all.substr(0, 20), 0xFFFFFFFF),
        zip(number(1, 2) + number(16, 2) + sizes, 0xFFFFFFFF),
        zip(number(1, 2) + number(24, 2) + sizes + number(std::uint64_t{1} << 60, 8),
            0xFFFFFFFF)}) {
    EXPECT_CONTAINS(error(write("64.zip", bad)), "the zip's directory is damaged");
  }
}

TEST_F(Archives, ZipWithMoreMembersThanZipHasNumbersFor) {
  Contents files;
  for (int i = 0; i < 70000; ++i) files[std::to_string(i) + ".png"] = std::to_string(i * 7);
  const fs::path path = pack("many.zip", files, "zip", "none", "zip:compression=store");
  EXPECT_EQ(contents(*Archive::open(path, kEnough)), files);
}

TEST_F(Archives, AnyOrderAndManyThreads) {
  const Contents files = samples();
  for (const fs::path& path : {pack("a.tar", files, "pax"), pack("a.tgz", files, "pax", "gzip"),
                               pack("a.zip", files, "zip", "none", "zip:compression=deflate")}) {
    const auto archive = Archive::open(path, kEnough);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        Rng rng(1, "threads", t);
        std::vector<std::uint8_t> bytes;
        for (int i = 0; i < 200; ++i) {
          const auto& member = archive->members()[rng.next_u32() % archive->members().size()];
          archive->read(member, bytes);
          if (std::string(bytes.begin(), bytes.end()) != files.at(member.path)) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
  }
}

TEST_F(Archives, PathsLeadNowhereAboveTheRoot) {
  const Contents files = {{"../../up.jpg", "1"}, {"/abs.jpg", "2"},        {"./dot//x.jpg", "3"},
                          {"a/../b.jpg", "4"},   {"a/./../../c.jpg", "5"}, {"d/..", "6"}};
  const Contents expected = {
      {"up.jpg", "1"}, {"abs.jpg", "2"}, {"dot/x.jpg", "3"}, {"b.jpg", "4"}, {"c.jpg", "5"}};
  EXPECT_EQ(contents(*Archive::open(pack("a.tar", files, "gnutar"), kEnough)), expected);
  EXPECT_EQ(contents(*Archive::open(pack("a.zip", files, "zip"), kEnough)), expected);
  const fs::path windows = pack("w.zip", {{"dir\\sub\\x.jpg", "1"}}, "zip");
  EXPECT_EQ(contents(*Archive::open(windows, kEnough)), (Contents{{"dir/sub/x.jpg", "1"}}));
}

TEST_F(Archives, OfEqualNamesTheLastOneCounts) {
  for (const std::string format : {"pax", "zip"}) {
    ArchiveWriter writer(folder_ / format, format);
    writer.file("a.jpg", "first");
    writer.file("b.jpg", "b");
    writer.file("./a.jpg", "second");
    writer.folder("a.jpg.d");
    writer.file("a.jpg", "the last");
    writer.close();
    const auto archive = Archive::open(folder_ / format, kEnough);
    EXPECT_EQ(archive->members().size(), 2U);
    EXPECT_EQ(contents(*archive), (Contents{{"a.jpg", "the last"}, {"b.jpg", "b"}}));
  }
}

TEST_F(Archives, LinksStandForWhatTheyLeadTo) {
  for (const std::string filter : {"none", "gzip"}) {
    ArchiveWriter writer(folder_ / filter, "pax", filter);
    writer.folder("a");
    writer.file("a/1.jpg", "the image");
    writer.hard_link("hard.jpg", "a/1.jpg");
    writer.symbolic_link("b/soft.jpg", "../a/1.jpg");
    writer.symbolic_link("b/again.jpg", "soft.jpg");
    writer.symbolic_link("b/hard.jpg", "../hard.jpg");
    writer.symbolic_link("bad/absolute.jpg", "/etc/passwd");
    writer.symbolic_link("bad/above.jpg", "../../../..");
    writer.symbolic_link("bad/none.jpg", "none.png");
    writer.symbolic_link("bad/loop1.jpg", "loop2.jpg");
    writer.symbolic_link("bad/loop2.jpg", "loop1.jpg");
    writer.hard_link("bad/self.jpg", "bad/self.jpg");
    writer.close();
    const auto archive = Archive::open(folder_ / filter, kEnough);
    std::vector<std::uint8_t> bytes;
    int bad = 0;
    int good = 0;
    for (const Archive::Member& member : archive->members()) {
      SCOPED_TRACE(member.path);
      if (member.path.rfind("bad/", 0) == 0) {
        EXPECT_EQ(member.size, -1);
        EXPECT_THROW(archive->read(member, bytes), SampleError);
        ++bad;
      } else {
        archive->read(member, bytes);
        EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "the image");
        ++good;
      }
    }
    EXPECT_EQ(bad, 6);
    EXPECT_EQ(good, 5);
  }
}

TEST_F(Archives, SparseFilesAreBadSamplesUnlessTheyAreUnpacked) {
  const testing::ToolResult made = testing::run_shell(
      "cd '" + folder_.path().string() +
      "' && printf start > a.jpg && truncate -s 300000 a.jpg && printf x >> a.jpg && "
      "truncate -s 400000 a.jpg && tar --sparse -cf s.tar a.jpg && gzip -k s.tar");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  std::vector<std::uint8_t> bytes;
  const auto plain = Archive::open(folder_ / "s.tar", kEnough);
  EXPECT_THROW(plain->read(plain->members().at(0), bytes), SampleError);
  const auto packed = Archive::open(folder_ / "s.tar.gz", kEnough);
  packed->read(packed->members().at(0), bytes);
  EXPECT_EQ(bytes, read_file(folder_ / "a.jpg"));
}

TEST_F(Archives, CutOffAnywhereIsAnErrorAndNotASmallerCollection) {
  const Contents files = {{"1.jpg", noise(700, 1)}, {"2.jpg", noise(1300, 2)}, {"3.jpg", "3"}};
  for (const auto& [format, filter] : std::vector<std::pair<std::string, std::string>>{
           {"ustar", "none"}, {"pax", "gzip"}, {"gnutar", "zstd"}, {"zip", "none"}}) {
    const std::string whole = read_text(pack("whole", files, format, filter));
    int refused = 0;
    int complete = 0;
    for (std::size_t size = 0; size < whole.size(); size += 37) {
      SCOPED_TRACE(format + " " + filter + " of " + std::to_string(size) + " bytes");
      const fs::path path = write("cut", whole.substr(0, size));
      const std::string text = error(path);
      if (text.empty()) {
        // Blocks of zeros end a tar; it is whole without them. Between two members nothing tells.
        const Contents found = contents(*Archive::open(path, kEnough));
        for (const auto& [name, data] : found) EXPECT_EQ(files.at(name), data);
        complete += found == files ? 1 : 0;
        EXPECT_TRUE(found == files || (format == "ustar" && size % 512 == 0)) << found.size();
      } else {
        EXPECT_EQ(text.rfind(path.string() + ": ", 0), 0U) << text;
        ++refused;
      }
      fs::remove(path);
    }
    EXPECT_GT(refused, 10);
    EXPECT_EQ(complete > 0, format == "ustar") << complete;
  }
  const fs::path path =
      write("cut.tar", read_text(pack("whole.tar", files, "ustar")).substr(0, 2500));
  EXPECT_CONTAINS(error(path), "after 2 members: the archive is damaged or was not copied whole");
  EXPECT_CONTAINS(
      error(write("cut.zip", read_text(pack("whole.zip", files, "zip")).substr(0, 1800))),
      "the directory at the end of the zip is missing: the file was not copied whole");
}

/// Every way in which one byte may be wrong: refused, a bad sample, or (in what only describes)
/// without effect, and never another picture.
TEST_F(Archives, DamagedZipsGiveNoOtherPictures) {
  const Contents files = {{"1.png", std::string(300, 'a')}, {"2.png", noise(200, 3)}};
  for (const std::string how : {"store", "deflate"}) {
    const std::string whole =
        read_text(pack("whole.zip", files, "zip", "none", "zip:compression=" + how));
    int bad_samples = 0;
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const int flip : {0x01, 0x80, 0xFF}) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ flip);
        const fs::path path = write("d.zip", damaged);
        try {
          const auto archive = Archive::open(path, kEnough);
          std::vector<std::uint8_t> bytes;
          for (const Archive::Member& member : archive->members()) {
            try {
              archive->read(member, bytes);
              const std::string data(bytes.begin(), bytes.end());
              // A broken name or place in the directory may show another member whole.
              EXPECT_TRUE(data == files.at("1.png") || data == files.at("2.png"))
                  << how << " byte " << at << " flipped by " << flip;
            } catch (const SampleError&) {
              ++bad_samples;
            }
          }
        } catch (const DataError&) {
        }
        fs::remove(path);
      }
    }
    EXPECT_GT(bad_samples, 500) << how;
  }
}

/// Tars have checksums of headers only, so that other bytes may come out, but nothing else may.
TEST_F(Archives, DamagedTarsAreRefusedOrRead) {
  const Contents files = {{"1.png", noise(300, 4)}, {std::string(120, 'n') + ".png", "2"}};
  for (const auto& [format, filter] : std::vector<std::pair<std::string, std::string>>{
           {"pax", "none"}, {"gnutar", "none"}, {"pax", "gzip"}, {"gnutar", "zstd"}}) {
    const std::string whole = read_text(pack("whole.tar", files, format, filter));
    int refused = 0;
    int opened = 0;
    for (std::size_t at = 0; at < whole.size(); at += filter == "none" ? 5 : 1) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (at % 3 == 0 ? 0x80 : 0x01));
      const fs::path path = write("d.tar", damaged);
      try {
        const auto archive = Archive::open(path, 1 << 20);
        std::vector<std::uint8_t> bytes;
        for (const Archive::Member& member : archive->members()) {
          archive->read(member, bytes);
          EXPECT_LE(bytes.size(), std::size_t{1} << 20);
        }
        ++opened;
      } catch (const DataError&) {
        ++refused;
      } catch (const SampleError&) {
        ++opened;
      }
      fs::remove(path);
    }
    EXPECT_GT(refused, 20) << format << " " << filter;
    EXPECT_GT(opened + refused, 100);
  }
}

TEST_F(Archives, OddFilesOfAnyKindAreRefusedOrRead) {
  const fs::path odd = GP_SOURCE_DIR "/../shared/data/hostile";
  if (!fs::exists(odd)) GTEST_SKIP() << odd << " does not exist";
  int tried = 0;
  for (const auto& entry : fs::recursive_directory_iterator(odd)) {
    if (!entry.is_regular_file()) continue;
    SCOPED_TRACE(entry.path().string());
    EXPECT_NE(error(entry.path(), 1 << 20), "");
    ++tried;
  }
  EXPECT_GT(tried, 100);
}

/// Where the central directory's entry of the first member begins.
std::size_t directory_entry(const std::string& zip) { return zip.find("PK\1\2"); }

TEST_F(Archives, EncryptedZipsAreRefused) {
  std::string zip = read_text(pack("a.zip", {{"1.jpg", "data"}}, "zip"));
  zip[directory_entry(zip) + 8] = static_cast<char>(zip[directory_entry(zip) + 8] | 1);
  EXPECT_CONTAINS(error(write("e.zip", zip)),
                  "e.zip: '1.jpg' is encrypted; unpack the zip with its password");
}

TEST_F(Archives, DeclaredSizesTakeNoMemory) {
  const std::string zip = read_text(
      pack("a.zip", {{"1.jpg", std::string(5000, 'x')}}, "zip", "none", "zip:compression=deflate"));
  for (const std::uint32_t size : {0x3FFFFFFFU, 0x40000001U, 0xFFFFFFFEU, 4999U, 0U}) {
    std::string lying = zip;
    for (int i = 0; i < 4; ++i) {
      lying[directory_entry(zip) + 24 + static_cast<std::size_t>(i)] =
          static_cast<char>(size >> (8 * i));
    }
    const auto archive = Archive::open(write("l.zip", lying), kEnough);
    std::vector<std::uint8_t> bytes;
    EXPECT_THROW(archive->read(archive->members().at(0), bytes), SampleError) << size;
    EXPECT_LT(bytes.capacity(), 100000U);
    fs::remove(folder_ / "l.zip");
  }
  // A tar that says one terabyte in its (octal) header.
  std::string tar = read_text(pack("a.tar", {{"1.jpg", "x"}}, "gnutar"));
  tar.replace(124, 12, "\x80\0\0\0\0\0\0\x01\0\0\0\0"s);  // base 256
  unsigned sum = 0;
  for (std::size_t i = 0; i < 512; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(tar[i]);
  }
  char octal[8];
  std::snprintf(octal, sizeof octal, "%06o", sum);
  tar.replace(148, 8, octal + "\0 "s);
  EXPECT_CONTAINS(error(write("t.tar", tar)), "was not copied whole");
}

TEST_F(Archives, CompressedTarsHaveALimit) {
  const fs::path path = pack("bomb.tgz", {{"0.jpg", std::string(1 << 24, '\0')}}, "pax", "gzip");
  EXPECT_LT(fs::file_size(path), 100000U);
  const std::string text = error(path, 1 << 20);
  EXPECT_CONTAINS(text, "bomb.tgz: unpacked it is larger than max_unpacked = 0.000976562 GiB");
  EXPECT_CONTAINS(text, "unpack it yourself (`tar -xf`) and use source.folder");
  EXPECT_EQ(error(path, 1 << 24), "");
  // A plain tar is read where it is.
  EXPECT_EQ(error(pack("plain.tar", {{"0.jpg", std::string(1 << 21, '\0')}}, "pax"), 1 << 20), "");
}

TEST_F(Archives, WhatIsNoArchiveIsRefused) {
  for (const auto& [name, bytes] :
       std::map<std::string, std::string>{{"text", "Just some text\n"},
                                          {"photo", "\xFF\xD8\xFF\xE0" + noise(5000, 9)},
                                          {"noise", noise(20000, 10)},
                                          {"rar", "Rar!\x1A\x07\x01" + noise(600, 11)},
                                          {"7z", "7z\xBC\xAF\x27\x1C" + noise(600, 12)},
                                          {"short zip", "PK\3\4"}}) {
    const std::string text = error(write(name, bytes));
    EXPECT_TRUE(text.find("is neither a zip nor a tar") != std::string::npos ||
                text.find("was not copied whole") != std::string::npos)
        << name << ": " << text;
  }
  const testing::ToolResult made = testing::run_shell(
      "cd '" + folder_.path().string() + "' && echo no tar | gzip > text.gz && mkfifo pipe");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_CONTAINS(error(folder_ / "text.gz"), "is neither a zip nor a tar");
  EXPECT_CONTAINS(error(folder_ / "pipe"), "is not a regular file");
  EXPECT_CONTAINS(error(folder_ / "none"), "cannot open: No such file");
  EXPECT_CONTAINS(error(folder_.path()), "is a folder, expected a file");
  EXPECT_EQ(Archive::open(write("zeros.tar", std::string(10240, '\0')), 1)->members().size(), 0U);
  EXPECT_EQ(Archive::open(pack("empty.zip", {}, "zip"), 1)->members().size(), 0U);
}

TEST_F(Archives, WhoeverOpensAnArchiveThatIsOpenSharesIt) {
  const fs::path path = pack("a.tgz", {{"1.jpg", "1"}}, "pax", "gzip");
  auto first = Archive::open(path, kEnough);
  EXPECT_EQ(Archive::open(path, kEnough), first);
  pack("a.tgz", {{"1.jpg", "changed"}}, "pax", "gzip");
  const auto second = Archive::open(path, kEnough);
  EXPECT_NE(second, first);
  EXPECT_EQ(contents(*second), (Contents{{"1.jpg", "changed"}}));
  EXPECT_EQ(contents(*first), (Contents{{"1.jpg", "1"}}));  // was unpacked before
}

TEST_F(Archives, AnArchiveThatShrinksUnderwayGivesBadSamples) {
  const fs::path path = pack("a.tar", {{"1.jpg", noise(4000, 1)}}, "pax");
  const auto archive = Archive::open(path, kEnough);
  fs::resize_file(path, 2000);
  std::vector<std::uint8_t> bytes;
  EXPECT_THROW(archive->read(archive->members().at(0), bytes), SampleError);
}

TEST_F(Archives, NothingIsLeftInTheTemporaryFolder) {
  fs::create_directory(folder_ / "tmp");
  const testing::ScopedVariable variable("TMPDIR", (folder_ / "tmp").c_str());
  const fs::path path = pack("a.tgz", {{"1.jpg", "1"}}, "pax", "gzip");
  const auto archive = Archive::open(path, kEnough);
  EXPECT_TRUE(fs::is_empty(folder_ / "tmp"));
  EXPECT_EQ(contents(*archive), (Contents{{"1.jpg", "1"}}));
}

TEST_F(Archives, NoPlaceToUnpackToIsSaid) {
  const fs::path path = pack("a.tgz", {{"1.jpg", "1"}}, "pax", "gzip");
  const testing::ScopedVariable variable("TMPDIR", (folder_ / "none").c_str());
  EXPECT_THROW(Archive::open(path, kEnough), RunError);
}

}  // namespace
}  // namespace gp
