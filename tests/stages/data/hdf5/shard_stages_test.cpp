// sink.shards writes, source.shards reads; in between everything that can go wrong.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "pipeline/log.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "stages/data/hdf5/shard_stages.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"

namespace gp {
namespace {

using test::contents;
using test::error_of;
using test::key_of;
using test::label_of;
using test::make_batches;
using test::noise;
using test::TemporaryFolder;

constexpr ImageShape kShape{8, 7};
const std::map<std::uint64_t, std::string> kRejected = {
    {0, "truncated"}, {11, "not an image"}, {12, "truncated"}};

/// What one build is given.
struct Build {
  std::uint64_t samples = 100;
  int batch_size = 16;
  int images_per_shard = 30;
  bool rebuild = false;
  std::map<std::uint64_t, std::string> rejected = kRejected;
  std::string preprocessing = "source.test {split: train}\nimage.resize {size: 8}\n";
  std::string digest = "d1";
  ImageShape shape = kShape;
  std::uint64_t max_steps = 0;
};

StreamInfo stream_info(const Build& build) {
  return {build.shape, build.batch_size, build.samples, {"one", "two", "three"}, build.digest};
}

void run_sink(const std::filesystem::path& root, const Build& build, BatchStream& batches,
              std::stop_token stop = {}) {
  const StageInfo info = sink_shards_info();
  const Params params =
      make_params(info.params, {{"root", root.string()},
                                {"images_per_shard", std::int64_t{build.images_per_shard}},
                                {"rebuild", build.rebuild}});
  const std::unique_ptr<Stage> stage = info.create(params);
  RunInfo run;
  run.preprocessing = build.preprocessing;
  Log log;
  log.set_quiet(true);
  EndContext context{run, stream_info(build), batches, log, stop, build.max_steps, {}};
  dynamic_cast<EndStage&>(*stage).run(context);
}

void run_sink(const std::filesystem::path& root, const Build& build = {}) {
  VectorBatchStream batches(
      make_batches(build.shape, build.samples, build.batch_size, build.rejected));
  run_sink(root, build, batches);
}

std::unique_ptr<SourceStage> open_source(const std::filesystem::path& root) {
  const StageInfo info = source_shards_info();
  std::unique_ptr<Stage> stage = info.create(make_params(info.params, {{"root", root.string()}}));
  auto* source = dynamic_cast<SourceStage*>(stage.release());
  if (source == nullptr) throw std::logic_error("source.shards is not a source");
  return std::unique_ptr<SourceStage>(source);
}

/// Takes one image, with `padding` bytes after every row.
class OneImage : public StageOutput {
 public:
  explicit OneImage(int padding = 0) : padding_(padding) {}
  ImageView image(int height, int width) override {
    height_ = height;
    width_ = width;
    stride_ = width * kChannels + padding_;
    bytes_.assign(static_cast<std::size_t>(height * stride_), 0xEE);
    return {bytes_.data(), height, width, stride_};
  }
  std::vector<std::uint8_t>& bytes() override { throw std::logic_error("not bytes"); }
  void pass_through() override { throw std::logic_error("nothing to pass through"); }
  void set_geometry(const Geometry&) override {}
  void drop(std::string) override { throw std::logic_error("nothing is dropped"); }
  void count(const std::string&) override {}

  std::vector<std::uint8_t> pixels() const {
    std::vector<std::uint8_t> rows;
    for (int y = 0; y < height_; ++y) {
      const auto* row = bytes_.data() + y * stride_;
      rows.insert(rows.end(), row, row + width_ * kChannels);
      for (int x = 0; x < padding_; ++x) EXPECT_EQ(row[width_ * kChannels + x], 0xEE);
    }
    return rows;
  }

 private:
  int padding_;
  int height_ = 0;
  int width_ = 0;
  int stride_ = 0;
  std::vector<std::uint8_t> bytes_;
};

/// Expects that the folder holds exactly the accepted images of `build`.
void expect_holds(const std::filesystem::path& root, const Build& build) {
  const std::unique_ptr<SourceStage> source = open_source(root);
  EXPECT_EQ(source->size(), build.samples - build.rejected.size());
  EXPECT_EQ(source->output_shape(), build.shape);
  EXPECT_EQ(source->class_names(), stream_info(build).class_names);
  std::uint64_t item = 0;
  for (std::uint64_t number = 0; number < build.samples; ++number) {
    if (build.rejected.count(number) > 0) continue;
    ASSERT_EQ(source->key(item), key_of(number));
    EXPECT_EQ(source->label(item), label_of(number));
    OneImage out(number % 2 == 0 ? 0 : 5);
    source->read(item, out);
    ASSERT_EQ(out.pixels(), noise(build.shape, number)) << "image " << number;
    ++item;
  }
}

TEST(ShardStages, GiveBackEveryImageInOrder) {
  const TemporaryFolder folder;
  const Build build;
  run_sink(folder / "new/train", build);
  EXPECT_EQ(test::names(folder / "new/train"),
            (std::vector<std::string>{"manifest.json", "rejects.jsonl", "shard-00000.h5",
                                      "shard-00001.h5", "shard-00002.h5", "shard-00003.h5"}));
  expect_holds(folder / "new/train", build);
  const Manifest manifest = read_manifest(folder / "new/train");
  EXPECT_EQ(manifest.read, 100U);
  EXPECT_EQ(manifest.images, 97U);
  EXPECT_EQ(manifest.rejected, (std::map<std::string, std::uint64_t>{{"image.decode", 3}}));
  EXPECT_EQ(manifest.shards.back().images, 7U);
}

TEST(ShardStages, RejectsAreKeptWithTheirReasons) {
  const TemporaryFolder folder;
  run_sink(folder / "s");
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text(folder / "s/rejects.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(
      lines[1],
      (nlohmann::json{{"key", key_of(11)}, {"stage", "image.decode"}, {"reason", "not an image"}}));
}

TEST(ShardStages, SameInputSameBytes) {
  const TemporaryFolder folder;
  Build build;
  run_sink(folder / "a", build);
  const auto expected = contents(folder / "a");
  build.batch_size = 7;
  run_sink(folder / "another place/b", build);
  EXPECT_TRUE(contents(folder / "another place/b") == expected);
  EXPECT_EQ(open_source(folder / "a")->digest(), open_source(folder / "another place/b")->digest());
  // Nothing in it tells where it was made.
  for (const auto& [name, text] : expected) {
    EXPECT_EQ(text.find(folder.path().string()), std::string::npos) << name;
  }
}

TEST(ShardStages, FinishedFolderIsLeftAlone) {
  const TemporaryFolder folder;
  const Build build;
  run_sink(folder / "s", build);
  // A second build would find no batches, and fail, if it read any.
  VectorBatchStream none({});
  EXPECT_NO_THROW(run_sink(folder / "s", build, none));
  // The parameter itself does not make it another configuration.
  Build flagged = build;
  flagged.preprocessing += "sink.shards {images_per_shard: 30, rebuild: false}\n";
  EXPECT_NO_THROW(run_sink(folder / "s", flagged, none));
}

TEST(ShardStages, AnotherConfigurationIsRefusedWithTheDifference) {
  const TemporaryFolder folder;
  Build build;
  run_sink(folder / "s", build);
  const auto before = contents(folder / "s");
  Build other = build;
  other.preprocessing = "source.test {split: train}\nimage.resize {size: 16}\n";
  const std::string text = error_of<ConfigError>([&] { run_sink(folder / "s", other); });
  EXPECT_CONTAINS(text, "\n  - image.resize {size: 8}\n  + image.resize {size: 16}\n");
  EXPECT_EQ(text.find("source.test"), std::string::npos) << "shows what did not change";
  EXPECT_CONTAINS(text, "--rebuild");

  other = build;
  other.images_per_shard = 31;
  EXPECT_CONTAINS(error_of<ConfigError>([&] { run_sink(folder / "s", other); }),
                  "+ sink.shards {images_per_shard: 31}");
  other = build;
  other.digest = "d2";
  EXPECT_CONTAINS(error_of<ConfigError>([&] { run_sink(folder / "s", other); }),
                  "- source data d1\n  + source data d2");
  EXPECT_TRUE(contents(folder / "s") == before) << "a refused build has changed something";
}

TEST(ShardStages, RebuildReplacesAndRemovesWhatIsLeftOver) {
  const TemporaryFolder folder;
  Build large;
  large.images_per_shard = 10;
  run_sink(folder / "s", large);
  test::overwrite(folder / "s/notes.txt", "mine");
  test::overwrite(folder / "s/shard-00077.h5.tmp", "stale");
  test::overwrite(folder / "s/shard-00078.h5.exact.tmp", "stale");
  Build small;
  small.images_per_shard = 50;
  small.rebuild = true;
  run_sink(folder / "s", small);
  EXPECT_EQ(test::names(folder / "s"),
            (std::vector<std::string>{"manifest.json", "notes.txt", "rejects.jsonl",
                                      "shard-00000.h5", "shard-00001.h5"}));
  expect_holds(folder / "s", small);
}

TEST(ShardStages, MissingShardIsWrittenAgain) {
  const TemporaryFolder folder;
  run_sink(folder / "s");
  const auto expected = contents(folder / "s");
  std::filesystem::remove(folder / "s/shard-00001.h5");
  run_sink(folder / "s");
  EXPECT_TRUE(contents(folder / "s") == expected);
}

TEST(ShardStages, SecondWriterIsKeptOut) {
  const TemporaryFolder folder;
  const FolderLock first(folder / "s");
  EXPECT_CONTAINS(error_of<RunError>([&] { run_sink(folder / "s"); }), "another process");
}

TEST(ShardStages, RefuseWhatTheyCannotDo) {
  const TemporaryFolder folder;
  Build build;
  build.max_steps = 3;
  EXPECT_CONTAINS(error_of<ConfigError>([&] { run_sink(folder / "s", build); }), "--max-steps");
  build = {};
  VectorBatchStream none({});
  build.shape = {0, 0};
  EXPECT_CONTAINS(error_of<ConfigError>([&] { run_sink(folder / "s", build, none); }),
                  "image.resize");
  build = {};
  build.samples = 2;
  build.rejected = {{0, "bad"}, {1, "bad"}};
  EXPECT_CONTAINS(error_of<DataError>([&] { run_sink(folder / "s", build); }), "none of 2 samples");
  EXPECT_FALSE(std::filesystem::exists(folder / "s/manifest.json"));
}

TEST(ShardStages, StreamThatLosesASampleIsNotPublished) {
  const TemporaryFolder folder;
  const Build build;
  auto batches = make_batches(kShape, build.samples, build.batch_size, kRejected);
  batches.erase(batches.begin() + 2);
  VectorBatchStream lossy(batches);
  EXPECT_CONTAINS(error_of<RunError>([&] { run_sink(folder / "s", build, lossy); }), "got lost");
  batches.pop_back();
  VectorBatchStream cut(batches);
  EXPECT_CONTAINS(error_of<RunError>([&] { run_sink(folder / "s", build, cut); }),
                  "before the epoch did");
  EXPECT_FALSE(std::filesystem::exists(folder / "s/manifest.json"));
}

TEST(ShardStages, StopLeavesAFolderThatIsNotTakenForComplete) {
  const TemporaryFolder folder;
  const Build build;
  std::stop_source stop;
  class Stopping : public VectorBatchStream {
   public:
    Stopping(std::vector<std::shared_ptr<const Batch>> batches, std::stop_source& source)
        : VectorBatchStream(std::move(batches)), stop_(source) {}
    std::shared_ptr<const Batch> next() override {
      if (++calls_ == 4) stop_.request_stop();
      return VectorBatchStream::next();
    }

   private:
    std::stop_source& stop_;
    int calls_ = 0;
  } batches(make_batches(kShape, build.samples, build.batch_size, kRejected), stop);
  run_sink(folder / "s", build, batches, stop.get_token());
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "s"); }), "is missing");
  EXPECT_TRUE(test::names(folder / "s").empty());
  run_sink(folder / "s", build);
  expect_holds(folder / "s", build);
}

TEST(ShardStages, MoreShardsThanOpenFiles) {
  const TemporaryFolder folder;
  Build build;
  build.images_per_shard = 1;
  build.samples = 300;
  build.shape = {2, 2};
  run_sink(folder / "s", build);
  expect_holds(folder / "s", build);
}

TEST(ShardSource, SaysHowToMakeMissingShards) {
  const TemporaryFolder folder;
  for (const char* name : {"none", "."}) {
    const std::string text = error_of<DataError>([&] { open_source(folder / name); });
    EXPECT_CONTAINS(text, "manifest.json");
    EXPECT_CONTAINS(text, "gan-prep build");
  }
}

TEST(ShardSource, RefusesAManifestThatIsNotOne) {
  const TemporaryFolder folder;
  run_sink(folder / "s");
  const std::filesystem::path file = folder / "s/manifest.json";
  const std::string good = read_text(file);
  test::overwrite(file, good.substr(0, good.size() / 2));
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "s"); }), "not a valid manifest");
  for (const char* other : {"[]", "{}", "3", "{\"format\": \"gan-pipeline shards\"}", ""}) {
    test::overwrite(file, other);
    EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "s"); }), file.string());
  }
  std::string version = good;
  version.replace(version.find("\"schema_version\": 1"), 19, "\"schema_version\": 9");
  test::overwrite(file, version);
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "s"); }), "schema version 9");
}

TEST(ShardSource, NoticesEveryChangedByteOfTheManifest) {
  const TemporaryFolder folder;
  run_sink(folder / "s");
  const std::string good = read_text(folder / "s/manifest.json");
  EXPECT_EQ(to_text(parse_manifest(good, "m")), good);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    EXPECT_THROW(parse_manifest(bad, "m"), DataError) << "byte " << at;
  }
}

TEST(ShardSource, RefusesShardsThatDoNotFitTheManifest) {
  const TemporaryFolder folder;
  Build build;
  run_sink(folder / "a", build);
  build.digest = "d2";
  run_sink(folder / "b", build);
  const auto copy = [&] {
    std::filesystem::remove_all(folder / "c");
    std::filesystem::copy(folder / "a", folder / "c");
    return folder / "c/shard-00001.h5";
  };
  std::filesystem::remove(copy());
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "c"); }),
                  "shard-00001.h5: is missing");
  const std::filesystem::path cut = copy();
  std::filesystem::resize_file(cut, std::filesystem::file_size(cut) - 1);
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "c"); }), "the manifest says");
  // Of the same size, but from other data.
  std::filesystem::copy_file(folder / "b/shard-00001.h5", copy(),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_CONTAINS(error_of<DataError>([&] { open_source(folder / "c"); }), "another set");
}

TEST(ShardSource, RefusesAShardInThePlaceOfAnother) {
  const TemporaryFolder folder;
  Build build;
  build.samples = 60;  // two shards of the same size
  build.rejected = {};
  run_sink(folder / "s", build);
  ASSERT_EQ(std::filesystem::file_size(folder / "s/shard-00000.h5"),
            std::filesystem::file_size(folder / "s/shard-00001.h5"));
  EXPECT_NO_THROW(open_source(folder / "s"));
  std::filesystem::copy_file(folder / "s/shard-00000.h5", folder / "s/shard-00001.h5",
                             std::filesystem::copy_options::overwrite_existing);
  const std::string text = error_of<DataError>([&] { open_source(folder / "s"); });
  EXPECT_CONTAINS(text, "shard-00001.h5: holds other keys, labels or checksums");
  EXPECT_CONTAINS(text, "gan-prep verify");
}

TEST(ShardSource, ReadsSetsWithoutAChecksumOfTheTables) {
  const TemporaryFolder folder;
  const Build build;
  run_sink(folder / "s", build);
  Manifest older = read_manifest(folder / "s");
  for (ShardEntry& shard : older.shards) shard.tables_crc32c.reset();
  write_file(folder / "s/manifest.json", to_text(older));
  expect_holds(folder / "s", build);
}

// Builds that die. Each child is killed somewhere else; the run after it must end with the same
// bytes as a build that was never disturbed.

/// Kills the process when batch number `fatal` is asked for.
class KillingStream : public VectorBatchStream {
 public:
  KillingStream(std::vector<std::shared_ptr<const Batch>> batches, int fatal)
      : VectorBatchStream(std::move(batches)), fatal_(fatal) {}
  std::shared_ptr<const Batch> next() override {
    if (calls_++ == fatal_) ::raise(SIGKILL);
    return VectorBatchStream::next();
  }

 private:
  int fatal_;
  int calls_ = 0;
};

/// Runs `body` in a child process and returns the signal that ended it, 0 for a normal end.
template <class Body>
int signal_of_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/// No core files, and SIGXFSZ as soon as a file grows beyond `bytes`.
void limit_files(std::uint64_t bytes) {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  const rlimit limit{bytes, bytes};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

class KilledBuild : public ::testing::Test {
 protected:
  void SetUp() override {
    run_sink(folder_ / "expected", build_);
    expected_ = contents(folder_ / "expected");
  }
  void expect_recovery(const std::filesystem::path& root) {
    if (!std::filesystem::exists(root / kManifestFile)) {
      EXPECT_THROW(open_source(root), DataError);
    }
    run_sink(root, build_);
    EXPECT_EQ(test::names(root), test::names(folder_ / "expected"));
    EXPECT_TRUE(contents(root) == expected_);
  }

  TemporaryFolder folder_;
  Build build_;
  std::map<std::string, std::string> expected_;
};

TEST_F(KilledBuild, BetweenBatches) {
  for (int fatal = 0; fatal <= 7; ++fatal) {
    const auto root = folder_ / ("batch" + std::to_string(fatal));
    EXPECT_EQ(signal_of_child([&] {
                KillingStream batches(
                    make_batches(kShape, build_.samples, build_.batch_size, kRejected), fatal);
                run_sink(root, build_, batches);
              }),
              SIGKILL);
    expect_recovery(root);
  }
}

TEST_F(KilledBuild, InTheMiddleOfAWrite) {
  const std::uint64_t shard = expected_.at("shard-00000.h5").size();
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, std::uint64_t{50}, shard / 3, shard / 2, shard - 700, shard - 1}) {
    const auto root = folder_ / ("bytes" + std::to_string(bytes));
    EXPECT_EQ(signal_of_child([&] {
                limit_files(bytes);
                run_sink(root, build_);
              }),
              SIGXFSZ);
    expect_recovery(root);
  }
}

TEST_F(KilledBuild, WhileItReplacesAnotherSet) {
  Build other = build_;
  other.digest = "older";
  other.images_per_shard = 9;
  run_sink(folder_ / "other", other);
  for (int fatal = 0; fatal < 6; fatal += 2) {
    const auto root = folder_ / ("other" + std::to_string(fatal));
    run_sink(root, other);
    Build rebuild = build_;
    rebuild.rebuild = true;
    EXPECT_EQ(signal_of_child([&] {
                KillingStream batches(
                    make_batches(kShape, build_.samples, build_.batch_size, kRejected), fatal);
                run_sink(root, rebuild, batches);
              }),
              SIGKILL);
    EXPECT_TRUE(contents(root) == contents(folder_ / "other")) << "the older set is whole";
    run_sink(root, rebuild);
    EXPECT_TRUE(contents(root) == expected_);
  }
}

TEST_F(KilledBuild, AtAnyTime) {
  for (int i = 0; i < 10; ++i) {
    const auto root = folder_ / ("time" + std::to_string(i));
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        run_sink(root, build_);
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 + i * i * 150));
    ::kill(child, SIGKILL);  // a child that was quicker is as good a case
    ::waitpid(child, nullptr, 0);
    std::filesystem::create_directory(root);
    expect_recovery(root);
  }
}

TEST_F(KilledBuild, FullDiskIsExplainedAndLeavesNoTemporary) {
  const auto root = folder_ / "full";
  const int signal = signal_of_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);  // write() fails instead: what a full disk looks like
    limit_files(expected_.at("shard-00000.h5").size() / 2);
    const std::string text = error_of<RunError>([&] { run_sink(root, build_); });
    const bool good = text.find("make room") != std::string::npos &&
                      text.find("File too large") != std::string::npos && test::names(root).empty();
    if (good) ::raise(SIGUSR1);  // tells the parent
  });
  EXPECT_EQ(signal, SIGUSR1);
  expect_recovery(root);
}

}  // namespace
}  // namespace gp
