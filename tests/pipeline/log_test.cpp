#include "pipeline/log.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

TEST(Log, WritesToItsFileOnceItIsOpen) {
  const testing::TemporaryFolder folder;
  Log log;
  log.set_quiet(true);
  log.info("before");
  log.open(folder / "log.txt");
  log.info("one");
  EXPECT_EQ(read_text(folder / "log.txt"), GP_BUILD_ID "\none\n");
  EXPECT_THROW(log.open(folder / "nowhere/log.txt"), RunError);
}

// A limit on the file size stands for a disk that fills up and gets room again.
TEST(Log, GoesOnWithoutItsFileAndSaysSoOnce) {
  const testing::TemporaryFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen((folder / "stderr").c_str(), "w", stderr) == nullptr) _exit(1);
    signal(SIGXFSZ, SIG_IGN);
    Log log;
    log.set_quiet(true);
    log.open(folder / "log.txt");
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 1000;
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 3; ++i) log.info(std::string(2000, 'x'));
    limit.rlim_cur = before;
    setrlimit(RLIMIT_FSIZE, &limit);
    log.info("later");
    std::fflush(stderr);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  const std::string said = read_text(folder / "stderr");
  EXPECT_CONTAINS(said, "warning: the log has gaps from here on: " + (folder / "log.txt").string() +
                            ": cannot write: File too large; make room");
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  const std::string text = read_text(folder / "log.txt");
  EXPECT_EQ(text.find("xx"), std::string::npos) << "half a line";
  EXPECT_TRUE(text.ends_with("\nlater\n")) << text;
}

}  // namespace
}  // namespace gp
