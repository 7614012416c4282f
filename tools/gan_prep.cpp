#include <cstdio>
#include <iostream>

#include "pipeline/config.hpp"
#include "pipeline/error.hpp"
#include "pipeline/runner.hpp"
#include "stages/data/hdf5/manifest.hpp"
#include "stages/data/hdf5/verify_shards.hpp"
#include "tools/commands.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr char kSink[] = "sink.shards";

std::string megabytes(std::uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

/// Refuses configurations for training before their modules (libtorch) are loaded.
void check_builds_shards(const ConfigFile& file) {
  const std::vector<std::string> names = file.stage_names();
  if (!names.empty() && names.back() == kSink) return;
  throw ConfigError(file.path().string() + ": the last stage is " +
                    (names.empty() ? "missing" : "'" + names.back() + "'") +
                    ", gan-prep build needs {use: " + kSink +
                    ", root: FOLDER} there; `gan-pipeline run` is for training");
}

int build(const std::vector<std::string>& arguments) {
  Options options("gan-prep build CONFIG [options]",
                  "Sends the images of a configuration through its stages once and writes them as\n"
                  "HDF5 shards, for many quick trainings. Interrupted, it starts again; finished,\n"
                  "it does nothing; made with other settings, it is refused with the difference.\n"
                  "Shards that are there already stay as they are until all new ones are written.");
  options.positional("CONFIG").with_config_options();
  options.add()("rebuild", "replace shards that are there already")(
      "threads", po::value<int>()->value_name("N"), "threads to prepare with (default: all)")(
      "quiet", "say nothing but warnings and errors");
  if (!options.parse(arguments)) return 0;
  std::vector<std::string> overrides = options.list("set");
  if (options.has("threads")) {
    overrides.push_back("run.threads=" + std::to_string(options.get<int>("threads")));
  }
  const fs::path path = options.get<std::string>("CONFIG");
  check_builds_shards(ConfigFile::read(path, overrides));
  const StopOnSignal signals;
  const auto loaded = LoadedConfig::load(path, overrides, options.paths("plugin-path"));
  StageConfig& sink = loaded->config.stages.back();
  if (options.has("rebuild")) sink.params.set("rebuild", true);
  Log log;
  log.set_quiet(options.has("quiet"));
  RunRequest request;
  request.out.clear();  // the result is the folder of shards, there is no run to keep
  request.stop = signals.token();
  run_pipeline(*loaded, request, log);
  std::cout << sink.params.text("root") << '\n';
  return 0;
}

void print_table(const fs::path& root, const Manifest& manifest) {
  std::cout << "folder         " << root.string() << '\n'
            << "images         " << manifest.images << " of " << manifest.shape.width << "x"
            << manifest.shape.height << " pixels, RGB, 8 bits\n"
            << "classes        " << manifest.class_names.size() << '\n'
            << "read           " << manifest.read << ", of which rejected "
            << manifest.total_rejected() << ", dropped " << manifest.total_dropped() << '\n';
  for (const auto& [stage, count] : manifest.rejected) {
    std::cout << "  rejected by " << stage << ": " << count << '\n';
  }
  for (const auto& [stage, count] : manifest.dropped) {
    std::cout << "  dropped by " << stage << ": " << count << '\n';
  }
  std::cout << "source digest  " << manifest.source_digest << '\n'
            << "config digest  " << manifest.config_digest << '\n'
            << "made by\n";
  for (const std::string& line : manifest.preprocessing) std::cout << "  " << line << '\n';
  std::cout << "shards         " << manifest.shards.size() << ", "
            << megabytes(manifest.shard_bytes()) << '\n';
  for (const ShardEntry& shard : manifest.shards) {
    char line[160];
    std::snprintf(line, sizeof line, "  %-16s %5llu images from %-8llu %10s  %.12s..\n",
                  shard.file.c_str(), static_cast<unsigned long long>(shard.images),
                  static_cast<unsigned long long>(shard.first), megabytes(shard.bytes).c_str(),
                  shard.sha256.c_str());
    std::cout << line;
  }
}

int info(const std::vector<std::string>& arguments) {
  Options options("gan-prep info SHARD_DIR [--json]", "Tells what a folder of shards holds.");
  options.positional("SHARD_DIR");
  options.add()("json", "print the manifest");
  if (!options.parse(arguments)) return 0;
  const fs::path root = options.get<std::string>("SHARD_DIR");
  const Manifest manifest = read_manifest(root);
  if (options.has("json")) {
    std::cout << to_text(manifest);
  } else {
    print_table(root, manifest);
  }
  return 0;
}

int verify(const std::vector<std::string>& arguments) {
  Options options("gan-prep verify SHARD_DIR",
                  "Reads every byte of a folder of shards and compares it with its checksums.\n"
                  "Exit code 3 when anything differs; each difference is a line.");
  options.positional("SHARD_DIR");
  if (!options.parse(arguments)) return 0;
  const fs::path root = options.get<std::string>("SHARD_DIR");
  std::vector<ShardProblem> problems;
  {
    Log log;  // its destructor wipes the progress line off a terminal
    problems = verify_shards(root, log);
  }
  for (const ShardProblem& problem : problems) {
    std::cout << problem.file << ": " << problem.text << '\n';
  }
  std::cout.flush();
  if (!problems.empty()) {
    throw DataError(root.string() + ": " + std::to_string(problems.size()) +
                    (problems.size() == 1 ? " problem" : " problems") +
                    "; restore the files from a good copy, or make them again: gan-prep build "
                    "CONFIG --rebuild");
  }
  const Manifest manifest = read_manifest(root);
  std::cout << root.string() << ": " << manifest.images << " images in " << manifest.shards.size()
            << " shards, " << megabytes(manifest.shard_bytes()) << ": all as written\n";
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  return gp::run_command(
      "gan-prep", "Prepares images once, as HDF5 shards for gan-pipeline.",
      {{"build", "make shards: CONFIG [--set K=V].. [--rebuild]", gp::build},
       {"info", "tell what a folder of shards holds", gp::info},
       {"verify", "find damage in a folder of shards", gp::verify},
       {"preview", "images of shards side by side in a PNG", gp::preview_command}},
      argc, argv);
}
