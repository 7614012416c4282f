#include "pipeline/files.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>

#include "pipeline/error.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// Whether `write` throws RunError in a process whose files may have `bytes` at most, which stands
/// for a full disk.
bool fails_with_file_size_limit(rlim_t bytes, const std::function<void()>& write) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write();
    } catch (const RunError&) {
      _exit(0);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("gp_files_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(Files, WritesAndReadsBack) {
  write_file(folder_ / "a", std::string_view("one"));
  write_file(folder_ / "a", std::string_view("two\0three", 9));
  EXPECT_EQ(read_text(folder_ / "a"), std::string("two\0three", 9));
  EXPECT_EQ(read_file(folder_ / "a").size(), 9U);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(Files, AppendsLines) {
  append_line(folder_ / "log", "a");
  append_line(folder_ / "log", "b");
  EXPECT_EQ(read_text(folder_ / "log"), "a\nb\n");
}

TEST_F(Files, AppendingCutsOffALineThatACrashLeftTorn) {
  write_file(folder_ / "log", std::string_view("a\nhalf of b"));
  append_line(folder_ / "log", "c");
  EXPECT_EQ(read_text(folder_ / "log"), "a\nc\n");
  write_file(folder_ / "torn", std::string_view("half"));
  append_line(folder_ / "torn", "whole");
  EXPECT_EQ(read_text(folder_ / "torn"), "whole\n");
}

TEST_F(Files, AppendingToAFullDiskLeavesWholeLines) {
  append_line(folder_ / "log", std::string(600, 'a'));
  EXPECT_TRUE(fails_with_file_size_limit(
      1000, [&] { append_line(folder_ / "log", std::string(600, 'b')); }));
  EXPECT_EQ(read_text(folder_ / "log"), std::string(600, 'a') + "\n");
  append_line(folder_ / "log", "c");
  EXPECT_EQ(read_text(folder_ / "log"), std::string(600, 'a') + "\nc\n");
}

TEST_F(Files, FoldersThatCannotBeMadeSayWhatToDo) {
  make_folders(folder_ / "a/b");
  make_folders(folder_ / "a/b");
  EXPECT_TRUE(fs::is_directory(folder_ / "a/b"));
  write_file(folder_ / "file", std::string_view("x"));
  try {
    make_folders(folder_ / "file/b");
    FAIL();
  } catch (const RunError& error) {
    EXPECT_EQ(error.what(), (folder_ / "file/b").string() +
                                ": cannot make the folder: Not a directory; choose another place");
  }
  EXPECT_EQ(write_failure(ENOSPC), "No space left on device; make room, or choose another place");
}

TEST_F(Files, MissingFilesAndFoldersAreDataErrors) {
  EXPECT_THROW(read_file(folder_ / "none"), DataError);
  EXPECT_THROW(read_text(folder_ / "none"), DataError);
  EXPECT_THROW(read_file(folder_), DataError);
  EXPECT_THROW(read_text(folder_), DataError);
  EXPECT_THROW(write_file(folder_ / "no" / "such", std::string_view("x")), RunError);
}

TEST_F(Files, AFullDiskLeavesTheOldFileWhole) {
  write_file(folder_ / "a", std::string_view("old"));
  EXPECT_TRUE(
      fails_with_file_size_limit(1000, [&] { write_file(folder_ / "a", std::string(5000, 'x')); }));
  EXPECT_EQ(read_text(folder_ / "a"), "old");
}

TEST_F(Files, Sha256EqualsItsKnownAnswer) {
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write_file(folder_ / "abc", std::string_view("abc"));
  EXPECT_EQ(sha256_file(folder_ / "abc"), sha256_hex("abc"));
}

}  // namespace
}  // namespace gp
