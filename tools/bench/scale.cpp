// How cost and memory grow with the number of images: shards of N drawn images are built with the
// real gan-prep and read as a trainer reads them, each in a process of its own.

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/runner.hpp"
#include "stages/common/plot.hpp"
#include "tools/options.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr int kSide = 8;  // the smallest picture that source.synthetic draws

double now(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Reading, in the child ---------------------------------------------------------------------------

/// Stands where a trainer would; the stream is read here.
class NoTrainer : public TrainStage {
 public:
  void run(EndContext&) override {}
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo&, const fs::path&) override { return {}; }
};

/// Reads a folder of shards for some epochs, in the shuffled order, on one data thread. `started`:
/// when the process was, on the monotonic clock.
Json read_shards(const fs::path& shards, std::uint32_t epochs, double started) {
  const ConfigFile file =
      ConfigFile::parse("stages:\n  - {use: source.shards, root: " + shards.string() +
                            "}\n  - {use: batch, size: 64, last: keep}\n  - {use: train.none}\n",
                        shards / "scale.yaml");
  StageRegistry registry;
  add_built_in_stages(registry);
  StageInfo end;
  end.name = "train.none";
  end.in = Kind::kBatch;
  end.out = Kind::kSnapshot;
  end.create = [](const Params&) { return std::make_unique<NoTrainer>(); };
  registry.add(end);
  PluginLoader loader;
  loader.load_modules_for(file.stage_names(), registry);
  const double loaded = now(CLOCK_MONOTONIC);
  const Pipeline pipeline(check_config(file, registry));
  const double opened = now(CLOCK_MONOTONIC);
  GraphOptions options;
  options.batch_size = 64;
  options.keep_last = true;
  options.epochs = epochs;
  GraphStream stream(*pipeline.data().source, *pipeline.data().chain, pipeline.data().order,
                     options);
  std::uint64_t images = 0;
  double first_batch = 0;
  double cpu_at_first_batch = 0;
  double epoch_ended = 0;
  double longest_stall = 0;
  while (const auto batch = stream.next()) {
    const double time = now(CLOCK_MONOTONIC);
    if (first_batch == 0) {
      first_batch = time;
      cpu_at_first_batch = now(CLOCK_PROCESS_CPUTIME_ID);
    }
    if (epoch_ended > 0) longest_stall = std::max(longest_stall, time - epoch_ended);
    epoch_ended = batch->end_of_epoch ? time : 0;
    images += static_cast<std::uint64_t>(batch->count);
  }
  const double cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu_at_first_batch;
  return {{"load_modules_s", loaded - started},
          {"open_s", opened - loaded},
          {"first_batch_s", first_batch - started},
          {"first_batch_cpu_s", cpu_at_first_batch},
          {"read_us_per_image", 1e6 * cpu / static_cast<double>(images)},
          {"between_epochs_s", longest_stall}};
}

// Measuring, in the parent ------------------------------------------------------------------------

struct TemporaryFolder {
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "gp_scale_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw RunError(name + ": cannot make a folder");
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  fs::path path;
};

struct Measured {
  double cpu_s = 0;
  double peak_mb = 0;  ///< resident
};

/// Runs a program to its end, with its stdout in `out`. Throws RunError when it fails.
Measured run_program(const std::vector<std::string>& arguments, const fs::path& out) {
  std::fflush(stdout);  // or the child would print it again
  const pid_t child = ::fork();
  if (child < 0) throw RunError("cannot fork");
  if (child == 0) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) {
      pointers.push_back(const_cast<char*>(argument.c_str()));
    }
    pointers.push_back(nullptr);
    if (std::freopen(out.c_str(), "w", stdout) != nullptr) ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  int status = 0;
  rusage used{};
  if (::wait4(child, &status, 0, &used) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw RunError(arguments[0] + " " + arguments[1] + " failed; its own message stands above");
  }
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return {seconds(used.ru_utime) + seconds(used.ru_stime),
          static_cast<double>(used.ru_maxrss) * 1024 / 1e6};
}

Measured build_shards(std::uint64_t images, const fs::path& folder, int threads) {
  write_file(folder / "build.yaml",
             "name: scale\nstages:\n  - {use: source.synthetic, views: side, size: " +
                 std::to_string(kSide) + ", draws: " + std::to_string(images) +
                 "}\n  - {use: sink.shards, root: shards}\n");
  return run_program({fs::canonical("/proc/self/exe").parent_path() / "gan-prep", "build",
                      folder / "build.yaml", "--rebuild", "--threads", std::to_string(threads)},
                     folder / "build.out");
}

/// The run whose first batch came soonest: that is what the machine's other work disturbs most.
Json read_best_of(int runs, std::uint64_t images, const fs::path& folder) {
  const std::uint64_t epochs = std::clamp<std::uint64_t>(200'000 / images, 3, 200);
  Json best;
  for (int run = 0; run < runs; ++run) {
    char started[32];
    std::snprintf(started, sizeof started, "%.6f", now(CLOCK_MONOTONIC));
    const Measured measured = run_program({fs::canonical("/proc/self/exe"), "read",
                                           folder / "shards", std::to_string(epochs), started},
                                          folder / "read.json");
    Json read = Json::parse(read_text(folder / "read.json"));
    read["peak_mb"] = measured.peak_mb;
    if (best.is_null() || read["first_batch_s"] < best["first_batch_s"]) best = read;
  }
  return best;
}

void draw(const Json& rows, const fs::path& folder) {
  const auto series = [&rows](const char* name, const char* part, const char* key, double factor) {
    PlotSeries line{name, {}, {}};
    for (const Json& row : rows) {
      line.x.push_back(std::log10(row["images"].get<double>()));
      line.y.push_back(factor * row[part][key].get<double>());
    }
    return line;
  };
  const std::string x = "log10 of the number of images";
  write_plot(folder / "scale_cost.png",
             {"Processor time for one image of 8x8 pixels",
              x,
              "microseconds",
              {series("gan-prep: draw, write", "build", "us_per_image", 1),
               series("read from shards, shuffled", "read", "read_us_per_image", 1)},
              true});
  write_plot(folder / "scale_start.png",
             {"Start and memory",
              x,
              "milliseconds, or megabytes",
              {series("first batch from shards (ms)", "read", "first_batch_s", 1000),
               series("peak memory of gan-prep (MB)", "build", "peak_mb", 1),
               series("peak memory of reading (MB)", "read", "peak_mb", 1)},
              true});
}

int measure(const std::vector<std::string>& arguments) {
  Options options(
      "bench_scale run [options]",
      "Builds shards of 1,000 to 1,000,000 drawn images of 8x8 pixels with gan-prep and\n"
      "reads them shuffled. Prints a table; needs up to 0.3 GB of disk.");
  options.add()("images", po::value<std::vector<std::uint64_t>>()->multitoken()->value_name("N.."),
                "how many images (default: 1000 10000 100000 1000000)")(
      "threads", po::value<int>()->value_name("N"), "of gan-prep (default: 2)")(
      "repeat", po::value<int>()->value_name("N"),
      "readings, of which the best counts (default: 3)")(
      "json", po::value<std::string>()->value_name("FILE"), "write the figures")(
      "plots", po::value<std::string>()->value_name("FOLDER"), "draw scale_*.png there");
  if (!options.parse(arguments)) return 0;
  const auto counts =
      options.get_or<std::vector<std::uint64_t>>("images", {1'000, 10'000, 100'000, 1'000'000});
  const int threads = options.get_or("threads", 2);
  const TemporaryFolder temporary;
  const fs::path& folder = temporary.path;
  const Measured start_up = build_shards(1, folder, threads);

  std::printf("%9s | %-20s | %s\n", "", "gan-prep build", "reading, shuffled");
  std::printf("%9s | %11s %8s | %8s %11s %8s %11s %10s %8s\n", "images", "us an image", "peak MB",
              "open s", "1st batch s", "its CPU", "us an image", "between s", "peak MB");
  Json rows = Json::array();
  for (const std::uint64_t images : counts) {
    const Measured build = build_shards(images, folder, threads);
    Json row;
    row["images"] = images;
    row["build"] = {{"us_per_image", 1e6 * std::max(0.0, build.cpu_s - start_up.cpu_s) /
                                         static_cast<double>(images)},
                    {"peak_mb", build.peak_mb}};
    row["read"] = read_best_of(options.get_or("repeat", 3), images, folder);
    const auto read = [&row](const char* key) { return row["read"][key].get<double>(); };
    std::printf("%9llu | %11.2f %8.1f | %8.3f %11.3f %8.3f %11.2f %10.3f %8.1f\n",
                static_cast<unsigned long long>(images), row["build"]["us_per_image"].get<double>(),
                build.peak_mb, read("open_s"), read("first_batch_s"), read("first_batch_cpu_s"),
                read("read_us_per_image"), read("between_epochs_s"), read("peak_mb"));
    std::fflush(stdout);
    rows.push_back(row);
  }
  if (options.has("json")) write_file(options.get<std::string>("json"), rows.dump(2) + "\n");
  if (options.has("plots")) {
    make_folders(options.get<std::string>("plots"));
    draw(rows, options.get<std::string>("plots"));
  }
  return 0;
}

int read(const std::vector<std::string>& arguments) {
  if (arguments.size() != 3) throw ConfigError("read is what `bench_scale run` calls");
  std::cout << read_shards(arguments[0], static_cast<std::uint32_t>(std::stoul(arguments[1])),
                           std::stod(arguments[2]))
                   .dump()
            << '\n';
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  return gp::run_command("bench_scale", "how cost and memory grow with the number of images",
                         {{"run", "measures and prints a table", gp::measure},
                          {"read", "reads shards once (what run calls)", gp::read}},
                         argc, argv);
}
