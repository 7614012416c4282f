#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <optional>

#include "pipeline/build_id.hpp"
#include "pipeline/config.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/graph_builder.hpp"
#include "pipeline/graph_text.hpp"
#include "pipeline/plugin_examiner.hpp"
#include "pipeline/runner.hpp"
#include "stages/common/png.hpp"
#include "tools/commands.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

int run(const std::vector<std::string>& arguments) {
  Options options(
      "gan-pipeline run CONFIG [options], or run --resume RUN_DIR [options]",
      "Trains: reads the configuration, checks all of it, then streams the data into\n"
      "its last stages. Everything it makes goes to a new run directory, or with\n"
      "--resume to that of a run that was stopped, which goes on as if it had not been.");
  options.positional("CONFIG", false).with_config_options();
  add_device_options(options);
  options.add()("out", po::value<std::string>()->value_name("DIR"),
                "parent of the run directory (default: runs)")(
      "resume", po::value<std::string>()->value_name("RUN_DIR"),
      "go on with this run after its newest checkpoint, with its own configuration")(
      "dry-run", "load and check everything, take one sample through every stage, and stop")(
      "max-steps", po::value<std::int64_t>()->value_name("N"), "stop training after N steps")(
      "trace", po::value<std::string>()->value_name("FILE"),
      "write what every thread did when, to be opened in Perfetto or chrome://tracing");
  if (!options.parse(arguments)) return 0;
  const std::int64_t max_steps = options.get_or<std::int64_t>("max-steps", 0);
  if (options.has("max-steps") && max_steps < 1) {
    throw ConfigError("--max-steps " + std::to_string(max_steps) + ": expected 1 or more");
  }
  const bool resumes = options.has("resume");
  if (resumes == options.has("CONFIG")) {
    throw ConfigError(resumes ? "--resume takes the configuration from the run directory; leave '" +
                                    options.get<std::string>("CONFIG") + "' out"
                              : "missing CONFIG, or --resume RUN_DIR");
  }
  if (resumes && options.has("out")) {
    throw ConfigError("--out and --resume exclude each other: a run goes on where it is");
  }
  const StopOnSignal signals;
  RunRequest request;
  request.out = options.get_or<std::string>("out", "runs");
  if (resumes) {
    request.resume = options.get<std::string>("resume");
    if (!fs::is_regular_file(request.resume / "config.yaml")) {
      throw DataError(request.resume.string() +
                      ": is no run directory (no config.yaml in it); expected one such as "
                      "runs/00000-aircraft");
    }
  }
  const auto loaded =
      resumes ? LoadedConfig::load(request.resume / "config.yaml", config_overrides(options),
                                   options.paths("plugin-path"))
              : load_config(options);
  if (options.has("dry-run")) {
    std::cout << dry_run(*loaded);
    return 0;
  }
  Log log;
  request.max_steps = static_cast<std::uint64_t>(max_steps);
  request.stop = signals.token();
  request.trace = options.get_or<std::string>("trace", "");
  const fs::path directory = run_pipeline(*loaded, request, log);
  std::cout << directory.string() << '\n';
  return 0;
}

int validate(const std::vector<std::string>& arguments) {
  Options options("gan-pipeline validate CONFIG [options]",
                  "Checks a configuration without opening its data; prints every error at once.");
  options.positional("CONFIG").with_config_options();
  options.add()("explain", "print every value with the place that it comes from");
  if (!options.parse(arguments)) return 0;
  const auto loaded = load_config(options);
  if (options.has("explain")) {
    std::cout << loaded->config.explain();
    return 0;
  }
  try_stages(loaded->config);
  std::cout << loaded->config.path.string() << ": valid, " << loaded->config.stages.size()
            << " stages\n";
  return 0;
}

int inspect(const std::vector<std::string>& arguments) {
  Options options("gan-pipeline inspect [STAGE] [options]",
                  "Lists every stage that can be used, or tells all about one.");
  options.positional("STAGE", false).with_config_options();
  options.add()("json", "machine-readable")(
      "schema", "print the JSON Schema of configurations, which editors complete and check by")(
      "plugin", po::value<std::string>()->value_name("FILE"),
      "examine this plugin, in a process of its own, and try its stages");
  if (!options.parse(arguments)) return 0;
  if (options.has("plugin")) {
    std::cout << examine_plugin(options.get<std::string>("plugin"), options.has("json"));
    return 0;
  }
  StageRegistry registry;
  add_built_in_stages(registry);
  PluginLoader loader(options.paths("plugin-path"));
  const std::string name = options.get_or<std::string>("STAGE", "");
  if (options.has("schema") && !name.empty()) {
    throw ConfigError("--schema is about all stages; leave out '" + name + "'");
  }
  if (name.empty()) {
    for (const char* family : {"source.", "train."}) {
      try {
        loader.load_modules_for({family}, registry);
      } catch (const PluginError& error) {  // a build without libtorch has all others
        std::cerr << "gan-pipeline: warning: stages are missing below: " << error.what() << '\n';
      }
    }
  } else {
    // One stage is looked for where it would be, so that data stages do not load libtorch.
    loader.load_modules_for({name}, registry);
  }
  if (registry.find(name) == nullptr) {
    for (const std::string& plugin : loader.available_plugins()) {
      loader.load_plugin(plugin, registry);
    }
  }
  const StageInfo* info = registry.find(name);
  if (!name.empty() && info == nullptr) {
    std::vector<std::string> names;
    for (const StageInfo* known : registry.list()) names.push_back(known->name);
    const std::string near = nearest_name(name, names);
    throw ConfigError("no stage is called '" + name + "'" +
                      (near.empty() ? "" : "; did you mean '" + near + "'?") +
                      " `gan-pipeline inspect` lists all of them.");
  }
  if (options.has("schema")) {
    std::cout << config_schema(registry);
  } else if (options.has("json")) {
    std::cout << describe_json(registry, info) << '\n';
  } else {
    std::cout << (info != nullptr ? describe_stage(*info) : describe_stages(registry));
  }
  return 0;
}

int graph(const std::vector<std::string>& arguments) {
  Options options("gan-pipeline graph CONFIG [--format dot|mermaid]",
                  "Prints the graph of a configuration.");
  options.positional("CONFIG").with_config_options();
  options.add()("format", po::value<std::string>()->default_value("dot")->value_name("F"),
                "dot (Graphviz) or mermaid");
  if (!options.parse(arguments)) return 0;
  const std::string format = options.get<std::string>("format");
  if (format != "dot" && format != "mermaid") {
    throw ConfigError("--format " + format + ": expected dot or mermaid");
  }
  const auto loaded = load_config(options);
  std::cout << (format == "dot" ? graph_to_dot(loaded->config) : graph_to_mermaid(loaded->config));
  return 0;
}

/// A trainer to read checkpoints with, without a configuration: any reads those of all models.
class TrainModule {
 public:
  TrainModule() {
    loader_.load_module("torch", registry_);
    const StageInfo* info = registry_.find("train.dcgan");
    stage_ = info->create(make_params(info->params));
  }
  TrainStage& trainer() const { return dynamic_cast<TrainStage&>(*stage_); }

 private:
  StageRegistry registry_;
  PluginLoader loader_;
  std::unique_ptr<Stage> stage_;
};

/// Of a class given by name, or else by number. Throws ConfigError.
std::int32_t class_number(const std::string& given, const std::vector<std::string>& names) {
  if (names.empty()) {
    throw ConfigError("--class " + given + ": this model was not trained by class");
  }
  const auto found = std::find(names.begin(), names.end(), given);
  if (found != names.end()) return static_cast<std::int32_t>(found - names.begin());
  std::int32_t number = -1;
  const char* const end = given.data() + given.size();
  const auto [rest, error] = std::from_chars(given.data(), end, number);
  if (error == std::errc() && rest == end && number >= 0 &&
      static_cast<std::size_t>(number) < names.size()) {
    return number;
  }
  constexpr std::size_t kMostListed = 30;
  std::string some;
  for (std::size_t i = 0; i < std::min(names.size(), kMostListed); ++i) {
    some += (i == 0 ? "'" : ", '") + names[i] + "'";
  }
  if (names.size() > kMostListed) some += " ..";
  const std::string near = nearest_name(given, names);
  throw ConfigError("--class " + given + " is not one of " + some +
                    (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

int sample(const std::vector<std::string>& arguments) {
  Options options("gan-pipeline sample CHECKPOINT|RUN_DIR --out FILE|DIR [options]",
                  "Draws images from a trained generator: a grid in one PNG, or single PNGs.");
  options.positional("CHECKPOINT");
  options.add()("out", po::value<std::string>()->value_name("F"),
                "the PNG of the grid, or with --count the folder of the PNGs")(
      "grid", po::value<std::string>()->value_name("RxC"), "rows and columns (default 4x8)")(
      "count", po::value<int>()->value_name("N"), "single images instead of a grid")(
      "class", po::value<std::string>()->value_name("NAME"),
      "of a conditional model: only this class, by name or number from 0")(
      "seed", po::value<std::uint64_t>()->default_value(0)->value_name("S"),
      "which images: the same seed draws the same ones")(
      "device", po::value<std::string>()->default_value("auto")->value_name("D"),
      "auto, cpu, cuda or cuda:N");
  if (!options.parse(arguments)) return 0;
  if (!options.has("out")) throw ConfigError("missing --out FILE");
  if (options.has("grid") && options.has("count")) {
    throw ConfigError("--grid and --count exclude each other: a grid is one file");
  }
  const TrainModule module;
  RunInfo run;
  run.device = options.get<std::string>("device");
  run.threads = split_threads(0, false, uses_gpu(run.device)).end;
  const auto snapshot = module.trainer().load_snapshot(run, options.get<std::string>("CHECKPOINT"));
  const auto seed = options.get<std::uint64_t>("seed");
  const ImageShape shape = snapshot->shape();
  const fs::path out = options.get<std::string>("out");
  std::optional<std::int32_t> label;
  if (options.has("class")) {
    label = class_number(options.get<std::string>("class"), snapshot->class_names());
  }
  const auto generate = [&](std::uint64_t first, int number) {
    return label ? snapshot->generate_class(seed, first, number, *label)
                 : snapshot->generate(seed, first, number);
  };

  if (!options.has("count")) {
    const auto [rows, columns] = parse_grid(options.get_or<std::string>("grid", "4x8"));
    const auto images = generate(0, rows * columns);
    write_png(out, make_grid(images.data(), shape, rows * columns, columns).view());
    std::cout << out.string() << '\n';
    return 0;
  }
  const int count = options.get<int>("count");
  if (count < 1) throw ConfigError("--count " + std::to_string(count) + ": expected 1 or more");
  make_folders(out);
  constexpr int kAtATime = 64;
  for (int first = 0; first < count; first += kAtATime) {
    const int now = std::min(kAtATime, count - first);
    const auto images = generate(static_cast<std::uint64_t>(first), now);
    for (int i = 0; i < now; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%06d.png", first + i);
      write_png(out / name, {images.data() + i * shape.bytes(), shape.height, shape.width,
                             static_cast<std::ptrdiff_t>(shape.width) * kChannels});
    }
  }
  std::cout << out.string() << '\n';
  return 0;
}

int export_generator(const std::vector<std::string>& arguments) {
  Options options(
      "gan-pipeline export CHECKPOINT|RUN_DIR --out FILE",
      "Writes the generator alone (its average where there is one) as safetensors, with\n"
      "what is needed to build it; tools/load_generator.py loads it into PyTorch.");
  options.positional("CHECKPOINT");
  options.add()("out", po::value<std::string>()->value_name("F"), "the file to write");
  if (!options.parse(arguments)) return 0;
  if (!options.has("out")) throw ConfigError("missing --out FILE");
  const fs::path out = options.get<std::string>("out");
  const TrainModule module;
  module.trainer().export_generator(options.get<std::string>("CHECKPOINT"), out);
  std::cout << out.string() << '\n';
  return 0;
}

int version(const std::vector<std::string>& /*arguments*/) {
  std::cout << GP_BUILD_ID << '\n';
  return 0;
}

}  // namespace

void add_device_options(Options& options) {
  options.add()("device", po::value<std::string>()->value_name("D"), "auto, cpu, cuda or cuda:N")(
      "threads", po::value<int>()->value_name("N"), "thread budget of the run");
}

std::vector<std::string> config_overrides(const Options& options) {
  std::vector<std::string> result = options.list("set");
  if (options.has("device")) result.push_back("run.device=" + options.get<std::string>("device"));
  if (options.has("threads")) {
    result.push_back("run.threads=" + std::to_string(options.get<int>("threads")));
  }
  return result;
}

std::unique_ptr<LoadedConfig> load_config(const Options& options) {
  return LoadedConfig::load(options.get<std::string>("CONFIG"), config_overrides(options),
                            options.paths("plugin-path"));
}

}  // namespace gp

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // A training step takes and frees the same hundreds of megabytes again and again. glibc would
  // give large blocks back to the system each time, which then has to clear their pages anew: up to
  // a third of a step.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
  // libtorch's OpenMP threads spin while they wait for each other, by default for so long that a
  // step takes many times as long beside other work on the same processors. A short spin keeps the
  // speed of a quiet machine. libgomp reads this when the torch module is opened.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "10000", 0);
  return gp::run_command(
      "gan-pipeline", "Trains GANs on image collections.",
      {{"run", "train: CONFIG [--set K=V].. [--out DIR] [--dry-run], or --resume RUN_DIR", gp::run},
       {"validate", "check a configuration", gp::validate},
       {"inspect", "list stages, or tell all about one", gp::inspect},
       {"graph", "print the graph of a configuration", gp::graph},
       {"bench", "say what the stages cost and which one is the bottleneck", gp::bench_command},
       {"evaluate", "compare two sets of images, or measure a trained state", gp::evaluate_command},
       {"sample", "draw images from a trained state", gp::sample},
       {"export", "write a trained generator alone, for PyTorch", gp::export_generator},
       {"replay", "one sample, stage by stage, as training saw it", gp::replay_command},
       {"version", "version, compiler and headers", gp::version}},
      argc, argv);
}
