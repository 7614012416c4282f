#include "stages/torch/statistics_cache.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/safetensors.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

class StatisticsCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log_.set_quiet(true);
    log_.open(folder_.path() / "log.txt");
    opening_ = read_text(folder_.path() / "log.txt").size();
  }
  std::string logged() const { return read_text(folder_.path() / "log.txt").substr(opening_); }

  testing::TemporaryFolder folder_;
  Log log_;
  std::size_t opening_ = 0;  ///< bytes that every log begins with
  StatisticsCache cache_{folder_.path() / "new" / "cache"};
  FeatureSet features_{{77, at::tensor({1.0, -2.5}, at::kDouble),
                        at::tensor({2.0, 0.1, 0.1, 3.0}, at::kDouble).view({2, 2})},
                       at::tensor({1.0F, 2.0F, 3.0F, 4.0F}).view({2, 2})};
};

TEST_F(StatisticsCacheTest, GivesBackWhatWasStoredUnderTheSameKeyOnly) {
  EXPECT_FALSE(cache_.load("a", log_));
  cache_.store("a", features_, log_);
  const auto read = cache_.load("a", log_);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->statistics.count, 77);
  EXPECT_TRUE(at::equal(read->statistics.mean, features_.statistics.mean));
  EXPECT_TRUE(at::equal(read->statistics.covariance, features_.statistics.covariance));
  EXPECT_TRUE(at::equal(read->vectors, features_.vectors));
  EXPECT_FALSE(cache_.load("b", log_));
  EXPECT_EQ(logged(), "");
  // One file, no temporary one left.
  const fs::path folder = cache_.file("a").parent_path();
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
}

TEST_F(StatisticsCacheTest, BrokenFilesAreMadeAgainWithAWarning) {
  cache_.store("a", features_, log_);
  const std::string good = read_text(cache_.file("a"));
  write_file(cache_.file("a"), good.substr(0, good.size() / 2));
  EXPECT_FALSE(cache_.load("a", log_));
  EXPECT_NE(logged().find("made again"), std::string::npos) << logged();

  for (const std::size_t from_end : {2, 20}) {  // a bit of the last, of others: only wrong
    std::string flipped = good;
    const std::size_t place = good.size() - from_end;
    flipped[place] = static_cast<char>(flipped[place] ^ 1);
    write_file(cache_.file("a"), flipped);
    EXPECT_FALSE(cache_.load("a", log_)) << from_end;
    EXPECT_NE(logged().find("checksum"), std::string::npos) << logged();
  }

  write_file(cache_.file("b"), good);  // another key's
  EXPECT_FALSE(cache_.load("b", log_));
  EXPECT_NE(logged().find("made for something else"), std::string::npos) << logged();

  Safetensors contents = {{{"mean", features_.statistics.mean}}, {{"key", "c"}}};
  write_safetensors(cache_.file("c"), contents);
  EXPECT_FALSE(cache_.load("c", log_));
  EXPECT_NE(logged().find("'count' is missing"), std::string::npos) << logged();

  write_file(cache_.file("a"), good);
  EXPECT_TRUE(cache_.load("a", log_));
}

TEST_F(StatisticsCacheTest, AFolderThatCannotBeWrittenIsAWarning) {
  write_file(folder_.path() / "file", std::string_view("in the way"));
  const StatisticsCache cache(folder_.path() / "file" / "cache");
  cache.store("a", features_, log_);
  EXPECT_NE(logged().find("could not be cached"), std::string::npos) << logged();
  EXPECT_FALSE(cache.load("a", log_));
}

TEST_F(StatisticsCacheTest, WithoutAFolderNothingIsKept) {
  const StatisticsCache cache{fs::path()};
  cache.store("a", features_, log_);
  EXPECT_FALSE(cache.load("a", log_));
  EXPECT_EQ(logged(), "");
}

TEST_F(StatisticsCacheTest, FindsItsFolder) {
  const testing::ScopedVariable home("HOME", "/home/somebody");
  {
    const testing::ScopedVariable own("GAN_PIPELINE_CACHE", "/somewhere");
    EXPECT_EQ(StatisticsCache::default_folder(), "/somewhere");
  }
  const testing::ScopedVariable own("GAN_PIPELINE_CACHE", nullptr);
  {
    const testing::ScopedVariable xdg("XDG_CACHE_HOME", "/xdg");
    EXPECT_EQ(StatisticsCache::default_folder(), "/xdg/gan-pipeline");
  }
  {
    const testing::ScopedVariable xdg("XDG_CACHE_HOME", "relative");
    EXPECT_EQ(StatisticsCache::default_folder(), "/home/somebody/.cache/gan-pipeline");
  }
  const testing::ScopedVariable xdg("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(StatisticsCache::default_folder(), "/home/somebody/.cache/gan-pipeline");
  const testing::ScopedVariable no_home("HOME", nullptr);
  EXPECT_EQ(StatisticsCache::default_folder(), "");
}

}  // namespace
}  // namespace gp
