#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "pipeline/error.hpp"
#include "tools/commands.hpp"
#include "tools/evaluated_set.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using Json = nlohmann::json;

constexpr char kStage[] = "evaluate.quality";
/// Options that are short for parameters of the evaluation.
constexpr std::pair<const char*, const char*> kParameters[] = {{"extractor", "extractor"},
                                                               {"weights", "weights"},
                                                               {"protocol", "protocol"},
                                                               {"count", "n_fake"},
                                                               {"seed", "seed"}};

/// Ends the process when a stop that was asked for takes long: an eigen-decomposition cannot be
/// interrupted, and there is nothing to save.
void leave_soon() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    _exit(static_cast<int>(ExitCode::kInterrupted));
  }).detach();
}

std::string figure_text(const Json& value) {
  if (!value.is_number()) return value.dump();
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value.get<double>());
  return text;
}

/// Measures a run as its own evaluate stages do.
int evaluate_run(const Options& options, const fs::path& path, std::stop_token stop) {
  const fs::path directory = run_directory_of(path);
  if (directory.empty()) {
    throw DataError(path.string() +
                    ": is neither a run directory nor a checkpoint in one (no config.yaml found), "
                    "so nothing says what to compare it with; give that with --against");
  }
  std::vector<std::string> changes = config_overrides(options);
  const ConfigFile file = ConfigFile::read(directory / "config.yaml");
  for (const std::string& use : file.stage_names()) {
    if (use.rfind("evaluate.", 0) != 0) continue;
    for (const auto& [option, parameter] : kParameters) {
      if (options.has(option)) {
        changes.push_back("stages." + use + "." + parameter + "=" +
                          options.get<std::string>(option));
      }
    }
  }
  const auto loaded =
      LoadedConfig::load(directory / "config.yaml", changes, options.paths("plugin-path"));
  Pipeline pipeline(loaded->config);
  auto* trainer = dynamic_cast<TrainStage*>(pipeline.end());
  if (trainer == nullptr) throw DataError(directory.string() + ": the run has no train.* stage");
  if (pipeline.evaluators().empty()) {
    throw ConfigError((directory / "config.yaml").string() +
                      ": has no evaluate.* stage; add one to its stages, e.g. `- {use: "
                      "evaluate.quality}`, or give images to compare with by --against");
  }
  const ThreadSplit threads =
      split_threads(loaded->config.run.threads, false, uses_gpu(loaded->config.run.device));
  pipeline.set_evaluation_threads(threads.data);
  Log log;
  log.set_quiet(options.has("json"));
  const RunInfo run = make_run_info(pipeline, threads.end, {});
  const std::unique_ptr<Snapshot> snapshot = trainer->load_snapshot(run, path);
  for (const Pipeline::Evaluator& evaluator : pipeline.evaluators()) {
    EvaluateContext context{run, pipeline, log, stop};
    const std::string record = evaluator.stage->evaluate(*snapshot, context);
    if (stop.stop_requested()) throw InterruptedError("stopped on request");
    if (options.has("json")) {
      std::cout << record << '\n';
      continue;
    }
    const Json json = Json::parse(record);
    std::cout << evaluator.address << " at step " << snapshot->step() << '\n';
    for (const char* part : {"metrics", "accuracy"}) {
      if (!json.contains(part)) continue;
      for (const auto& [name, value] : json[part].items()) {
        std::cout << "  " << name << ": " << figure_text(value) << '\n';
      }
    }
  }
  return 0;
}

/// How two sets are compared: as the run among them does, else by the stage's defaults, and by what
/// the command line says.
Params evaluation_params(const Options& options, const StageInfo& info, const StageConfig* of_run) {
  StageConfig stage;
  stage.use = stage.address = kStage;
  stage.info = &info;
  stage.params = make_params(info.params);
  if (of_run != nullptr && of_run->use == kStage) {
    const std::string extractor =
        options.get_or<std::string>("extractor", of_run->params.text("extractor"));
    const bool same = extractor == of_run->params.text("extractor");
    for (const auto& [name, value] : of_run->params.values()) {
      // Weights and protocols belong to their extractor.
      if (same || (name != "weights" && name != "protocol")) stage.params.set(name, value);
    }
  }
  std::map<std::string, std::string> overrides;
  for (const auto& [option, parameter] : kParameters) {
    if (options.has(option)) overrides[parameter] = options.get<std::string>(option);
  }
  const std::string prefix = std::string("stages.") + kStage + ".";
  for (const std::string& text : options.list("set")) {
    const std::size_t equals = text.find('=');
    if (!text.starts_with(prefix) || equals == std::string::npos) {
      throw ConfigError("--set " + text + ": a comparison of two sets has the values " + prefix +
                        "NAME=VALUE only, e.g. " + prefix +
                        "kernel_distance=false; `gan-pipeline inspect " + kStage + "` lists them");
    }
    overrides[text.substr(prefix.size(), equals - prefix.size())] = text.substr(equals + 1);
  }
  return override_params(stage, overrides, "gan-pipeline evaluate");
}

/// Compares two sets of images, or saves the statistics of one.
int compare(const Options& options, const fs::path& path, std::stop_token stop) {
  const fs::path save = options.get_or<std::string>("save-statistics", "");
  if (!save.empty()) {
    const fs::path parent = fs::absolute(save).parent_path();
    if (save.extension() != ".npz" || !fs::is_directory(parent) || fs::is_directory(save)) {
      throw ConfigError("--save-statistics " + save.string() +
                        ": expected the name of a .npz file in a folder that exists");
    }
  }
  StageRegistry registry;
  PluginLoader loader;
  loader.load_module("torch", registry);
  EvaluatedSet judged(path, registry, options.paths("plugin-path"));
  std::optional<EvaluatedSet> reference;
  if (options.has("against")) {
    reference.emplace(options.get<std::string>("against"), registry, options.paths("plugin-path"));
  }
  const EvaluatedSet& configured = reference && !judged.draws() ? *reference : judged;
  const StageInfo& info = *registry.find(kStage);
  const Params params = evaluation_params(options, info, configured.evaluator());
  const std::unique_ptr<Stage> stage = info.create(params);
  auto& evaluation = dynamic_cast<EvaluateStage&>(*stage);

  const RunSettings settings = configured.run_settings();
  RunInfo run;
  run.device = options.get_or<std::string>("device", settings.device);
  const bool gpu = uses_gpu(run.device);
  const int budget = options.get_or<int>("threads", settings.threads);
  if (options.has("threads") && budget < 1) {
    throw ConfigError("--threads " + std::to_string(budget) + ": expected 1 or more");
  }
  const ThreadSplit threads = split_threads(budget, false, gpu);
  run.threads = threads.end;
  const int data_threads = gpu ? threads.data : threads.end;

  const auto image_set = [&](EvaluatedSet& set) {
    return set.image_set(run, data_threads, static_cast<std::uint64_t>(params.integer("seed")),
                         static_cast<int>(params.integer("n_fake")));
  };
  Comparison comparison{image_set(judged), {}, save, !options.has("no-cache")};
  if (reference) comparison.reference = image_set(*reference);
  Log log;
  const std::string record = evaluation.compare(comparison, run, log, stop);
  if (record.empty()) throw InterruptedError("stopped on request");
  if (options.has("json")) {
    std::cout << record << '\n';
  } else if (reference) {
    const Json metrics = Json::parse(record)["metrics"];
    std::cout << metrics["name"].get<std::string>() << ": " << std::fixed << std::setprecision(6)
              << metrics["frechet_distance"].get<double>() << '\n';
  } else {
    std::cout << save.string() << '\n';
  }
  return 0;
}

}  // namespace

int evaluate_command(const std::vector<std::string>& arguments) {
  Options options(
      "gan-pipeline evaluate A [--against B] [options]",
      "How far the images of A are from those of B: the Frechet distance (FID with\n"
      "--extractor inception_v3), kernel distance, precision and recall. A and B are each\n"
      "a folder or an archive (zip, tar) of images of any size, a folder of shards, a run\n"
      "or a checkpoint, which stand for the images that they draw, or saved statistics\n"
      "(.npz as pytorch-fid writes them). Prints the distance; with --json all figures.\n"
      "\n"
      "Without --against, A is a run or a checkpoint in one, and is measured as the run's\n"
      "evaluate stage does.");
  options.positional("A").with_config_options();
  add_device_options(options);
  options.add()("against", po::value<std::string>()->value_name("B"),
                "the images that A is compared with, usually the real ones")(
      "extractor", po::value<std::string>()->value_name("NAME"),
      "network whose features are compared: efficientnet_lite0 (default), inception_v3, or a "
      "torchscript file given as --weights")(
      "weights", po::value<std::string>()->value_name("FILE"), "its weights (safetensors)")(
      "protocol", po::value<std::string>()->value_name("P"),
      "how inception_v3 resizes: clean (default), legacy_pytorch or legacy_tensorflow")(
      "count", po::value<std::string>()->value_name("N"), "images that a run or checkpoint draws")(
      "seed", po::value<std::string>()->value_name("S"), "which ones it draws")(
      "save-statistics", po::value<std::string>()->value_name("FILE.npz"),
      "write mean and covariance of A's features, as pytorch-fid does; B may be left out then")(
      "no-cache", "compute the features of images that were seen before, too")(
      "json", "print the record as JSON");
  if (!options.parse(arguments)) return 0;
  const StopOnSignal signals;
  const std::stop_callback on_stop(signals.token(), leave_soon);
  const fs::path path = options.get<std::string>("A");
  if (options.has("against") || options.has("save-statistics")) {
    return compare(options, path, signals.token());
  }
  const SetKind kind = set_kind_of(path);
  if (kind != SetKind::kRun && kind != SetKind::kCheckpoint) {
    throw ConfigError(path.string() +
                      ": missing --against B: only a run says by itself what to compare it with");
  }
  if (options.has("no-cache")) throw ConfigError("--no-cache needs --against B");
  return evaluate_run(options, path, signals.token());
}

}  // namespace gp
