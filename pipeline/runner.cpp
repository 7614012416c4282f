#include "pipeline/runner.hpp"

#include <oneapi/tbb/version.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/evaluation_record.hpp"
#include "pipeline/files.hpp"
#include "pipeline/folder_lock.hpp"
#include "pipeline/latest_worker.hpp"
#include "pipeline/replay.hpp"
#include "pipeline/resume.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Makes `parent/00000-name`, with the first number that is larger than all there are.
fs::path make_run_directory(const fs::path& parent, const std::string& name) {
  make_folders(parent);
  std::error_code error;
  int number = 0;
  for (const auto& entry : fs::directory_iterator(parent)) {
    int found = 0;
    if (std::sscanf(entry.path().filename().c_str(), "%5d-", &found) == 1) {
      number = std::max(number, found + 1);
    }
  }
  // Another run may take the number first.
  for (int tries = 0; tries < 1000; ++tries, ++number) {
    char prefix[16];
    std::snprintf(prefix, sizeof prefix, "%05d-", number);
    const fs::path directory = fs::absolute(parent / (prefix + name)).lexically_normal();
    if (fs::create_directory(directory, error)) return directory;
    if (error && error != std::errc::file_exists) {
      throw RunError(directory.string() + ": cannot make the run directory: " +
                     write_failure(error.value()) + " with --out");
    }
  }
  throw RunError(parent.string() + ": found no free number for a run directory");
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Json run_record(const LoadedConfig& loaded, const Pipeline& pipeline, const ThreadSplit& threads,
                const Calibration& rates) {
  utsname system{};
  uname(&system);
  Json plugins = Json::array();
  for (const PluginLoader::Loaded& plugin : loaded.loader.loaded()) {
    plugins.push_back({{"name", plugin.name},
                       {"version", plugin.version},
                       {"file", plugin.file.filename().string()},
                       {"sha256", plugin.sha256}});
  }
  return {
      {"name", loaded.config.name},
      {"seed", loaded.config.seed},
      {"started", utc_now()},
      {"versions", {{"gan_pipeline", GP_BUILD_ID}, {"tbb", TBB_VERSION_STRING}}},
      {"plugins", plugins},
      {"data",
       {{"digest", pipeline.data().source->digest()},
        {"with_preprocessing", pipeline.data().digest},
        {"samples", pipeline.data().order->size()}}},
      {"config_sha256", sha256_hex(loaded.config.resolved_yaml())},
      {"threads",
       {{"data", threads.data},
        {"end", threads.end},
        {"measured_images_per_second",
         {{"data_on_one_thread", rates.data}, {"training_on_all", rates.trainer}}}}},
      {"machine",
       {{"cpu", cpu_model()},
        {"processors", std::thread::hardware_concurrency()},
        {"memory_bytes", static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                             static_cast<std::uint64_t>(sysconf(_SC_PAGE_SIZE))},
        {"system", std::string(system.sysname) + " " + system.release + " " + system.machine}}}};
}

constexpr char kInUse[] =
    "another process is at work in this run directory; wait for it, or stop it";

/// The newest good state of a run; null where it was killed before it saved any.
std::unique_ptr<SavedTraining> load_saved(const Pipeline& pipeline, const fs::path& directory,
                                          Log& log) {
  auto* trainer = dynamic_cast<TrainStage*>(pipeline.end());
  if (trainer == nullptr) {
    throw ConfigError(directory.string() + ": has no train.* stage, so there is nothing to resume");
  }
  std::unique_ptr<SavedTraining> saved = trainer->load_training(directory, log);
  if (!saved) log.info("no checkpoint was saved yet: starting from the beginning");
  return saved;
}

/// The threads that the run had, unless its configuration says others now. Also checks the rest of
/// the configuration (check_resume).
ThreadSplit threads_to_resume(const LoadedConfig& loaded, const Pipeline& pipeline,
                              const SavedTraining* saved, const fs::path& directory, Log& log,
                              Calibration* rates) {
  if (saved == nullptr) return choose_threads(pipeline, log, rates);
  bool same = true;
  for (const ConfigDifference& difference : check_resume(*saved, loaded, pipeline, log)) {
    same = same && difference.key != "run.threads" && difference.key != "run.device";
  }
  ThreadSplit threads;
  try {
    if (!same) {
      threads = choose_threads(pipeline, log, rates);
    } else {
      const Json record = Json::parse(read_text(directory / "run.json")).at("threads");
      threads = {record.at("data").get<int>(), record.at("end").get<int>()};
      const Json& measured = record.at("measured_images_per_second");
      *rates = {measured.at("data_on_one_thread").get<double>(),
                measured.at("training_on_all").get<double>()};
      if (threads.data < 1 || threads.end < 1) throw DataError("fewer than one thread");
      if (loaded.config.run.data_threads > 0) threads.data = loaded.config.run.data_threads;
    }
  } catch (const std::exception& error) {
    throw DataError((directory / "run.json").string() +
                    ": cannot read the run's threads from it (" + error.what() +
                    "); set run.threads and run.data_threads");
  }
  if (threads.end != saved->threads) {
    log.warn("the trainer has " + std::to_string(threads.end) + " threads and had " +
             std::to_string(saved->threads) +
             ": from here on, the bits differ from those of an undisturbed run");
  }
  return threads;
}

/// run.json of a run that is resumed: how it was started, and each time that it went on.
Json resumed_record(const fs::path& directory, Json record, std::uint64_t step) {
  Json before;
  try {
    before = Json::parse(read_text(directory / "run.json"));
  } catch (const std::exception&) {
    return record;  // killed before it was written
  }
  Json times = before.value("resumed", Json::array());
  times.push_back({{"time", record["started"]},
                   {"step", step},
                   {"versions", record["versions"]},
                   {"machine", record["machine"]}});
  record["started"] = before.value("started", record["started"]);
  record["resumed"] = times;
  return record;
}

/// "image.decode: 256x170, of which 1024 x 660 source pixels count"
std::string describe(const ReplayedStage& stage) {
  if (stage.shape == ImageShape()) {
    return stage.address + ": " + std::to_string(stage.bytes.size()) + " bytes";
  }
  std::string text = stage.address + ": " + to_string(stage.shape);
  if (!stage.geometry.is_whole()) {
    const RectF& region = stage.geometry.region;
    char part[96];
    std::snprintf(part, sizeof part, ", of which %g x %g source pixels count", region.width,
                  region.height);
    text += part;
  }
  return text;
}

}  // namespace

std::unique_ptr<LoadedConfig> LoadedConfig::load(const fs::path& path,
                                                 const std::vector<std::string>& overrides,
                                                 const std::vector<fs::path>& plugin_path) {
  return load(ConfigFile::read(path, overrides), plugin_path);
}

std::unique_ptr<LoadedConfig> LoadedConfig::load(const ConfigFile& file,
                                                 const std::vector<fs::path>& plugin_path,
                                                 std::vector<StageInfo> more) {
  auto loaded = std::unique_ptr<LoadedConfig>(
      new LoadedConfig{StageRegistry(), PluginLoader(plugin_path), Config()});
  add_built_in_stages(loaded->registry);
  for (StageInfo& info : more) loaded->registry.add(std::move(info));
  for (const std::string& module : file.modules()) {
    loaded->loader.load_module(module, loaded->registry);
  }
  for (const std::string& plugin : file.plugins()) {
    loaded->loader.load_plugin(plugin, loaded->registry);
  }
  loaded->loader.load_modules_for(file.stage_names(), loaded->registry);
  loaded->config = check_config(file, loaded->registry);
  return loaded;
}

fs::path run_pipeline(const LoadedConfig& loaded, const RunRequest& request, Log& log) {
  std::optional<FolderLock> lock;
  if (!request.resume.empty()) lock.emplace(request.resume, kInUse);
  Pipeline pipeline(loaded.config);
  if (pipeline.end() == nullptr) {
    throw ConfigError(loaded.config.path.string() +
                      ": the list of stages has no end: add a train.* or sink.* stage");
  }
  if (!request.trace.empty()) {
    const fs::path parent = fs::absolute(request.trace).parent_path();
    if (!fs::is_directory(parent) || fs::is_directory(request.trace)) {
      throw ConfigError("--trace " + request.trace.string() +
                        ": expected the name of a file in a folder that exists");
    }
  }

  fs::path directory;
  std::unique_ptr<SavedTraining> saved;
  Calibration rates;
  ThreadSplit threads;
  if (!request.resume.empty()) {
    directory = fs::absolute(request.resume).lexically_normal();
    log.open(directory / "log.txt");
    saved = load_saved(pipeline, directory, log);
    threads = threads_to_resume(loaded, pipeline, saved.get(), directory, log, &rates);
    write_file(directory / "config.yaml", loaded.config.resolved_yaml());
    write_file(directory / "run.json",
               resumed_record(directory, run_record(loaded, pipeline, threads, rates),
                              saved ? saved->step : 0)
                       .dump(2) +
                   "\n");
  } else {
    threads = choose_threads(pipeline, log, &rates);
    if (!request.out.empty()) {
      directory = make_run_directory(request.out, loaded.config.name);
      lock.emplace(directory, kInUse);
      write_file(directory / "config.yaml", loaded.config.resolved_yaml());
      write_file(directory / "run.json",
                 run_record(loaded, pipeline, threads, rates).dump(2) + "\n");
      log.open(directory / "log.txt");
    }
  }
  const bool beside = std::any_of(pipeline.evaluators().begin(), pipeline.evaluators().end(),
                                  [](const auto& e) { return !e.stage->blocking(); });
  // Beside training, the data threads have their work.
  pipeline.set_evaluation_threads(beside ? 1 : threads.data);
  if (!directory.empty()) log.info("run directory: " + directory.string());
  const StreamInfo stream = pipeline.stream_info();
  log.info("data: " + std::to_string(stream.source_size) + " samples from '" +
           loaded.config.stages.front().address + "', " + std::to_string(threads.data) +
           (threads.data == 1 ? " thread" : " threads") +
           (pipeline.end_is_sink()
                ? std::string()
                : "; '" + pipeline.end_address() + "' on " + std::to_string(threads.end)));

  const RunInfo run = make_run_info(pipeline, threads.end, directory);
  const std::unique_ptr<Trace> trace = request.trace.empty() ? nullptr : std::make_unique<Trace>();
  std::unique_ptr<BatchStream> batches =
      pipeline.open_stream(threads.data, trace.get(), saved ? saved->position : StreamPosition());
  EvaluationRecord evaluations(directory, log);
  if (!request.resume.empty()) evaluations.resume_after(saved ? saved->step : 0);
  EndContext context{run, stream, *batches, log, request.stop, request.max_steps, {}, saved.get()};
  const auto evaluate = [&](const Pipeline::Evaluator& evaluator, Trace::Track* track,
                            Snapshot& snapshot, const std::stop_token& stop,
                            std::vector<std::uint64_t> skipped) {
    EvaluateContext evaluation{run, pipeline, log, stop, std::move(skipped)};
    const Trace::Clock::time_point start = Trace::Clock::now();
    const std::string record = evaluator.stage->evaluate(snapshot, evaluation);
    if (track != nullptr) track->add(trace->name(evaluator.address), start, Trace::Clock::now());
    // A stopped evaluation has no record.
    if (!record.empty()) evaluations.add(evaluator.address, record);
  };
  Trace::Track* blocking_track = nullptr;
  struct Beside {
    Trace::Track* track = nullptr;
    std::unique_ptr<LatestWorker> worker;
  };
  // Of the evaluators that training does not wait for.
  std::map<const EvaluateStage*, Beside> workers;
  for (const Pipeline::Evaluator& evaluator : pipeline.evaluators()) {
    if (evaluator.stage->blocking()) {
      if (trace && blocking_track == nullptr) blocking_track = &trace->add_track("evaluation");
    } else {
      workers[evaluator.stage.get()] = {
          trace ? &trace->add_track("evaluation beside training") : nullptr,
          std::make_unique<LatestWorker>(request.stop)};
    }
  }
  const auto wait_for_workers = [&workers] {
    for (const auto& [stage, beside_it] : workers) beside_it.worker->wait();
  };
  context.epoch_done = [&](std::uint32_t epochs_done, bool last,
                           const std::function<std::unique_ptr<Snapshot>()>& make) {
    for (const auto& [stage, beside_it] : workers) beside_it.worker->check();
    std::unique_ptr<Snapshot> snapshot;
    for (const Pipeline::Evaluator& evaluator : pipeline.evaluators()) {
      if (request.stop.stop_requested() || !evaluator.stage->due(epochs_done, last)) continue;
      if (const auto found = workers.find(evaluator.stage.get()); found != workers.end()) {
        // A snapshot of its own: they are not thread-safe.
        const std::shared_ptr<Snapshot> own = make();
        if (evaluations.has(evaluator.address, own->step())) continue;
        found->second.worker->submit(
            own->step(), [&evaluate, &evaluator, own, track = found->second.track](
                             std::vector<std::uint64_t> skipped, const std::stop_token& stop) {
              evaluate(evaluator, track, *own, stop, std::move(skipped));
            });
        continue;
      }
      if (!snapshot) snapshot = make();
      // A run that was killed after an evaluation comes here again.
      if (evaluations.has(evaluator.address, snapshot->step())) continue;
      evaluate(evaluator, blocking_track, *snapshot, request.stop, {});
    }
    if (!last) return;
    try {
      wait_for_workers();  // so that the trainer hears of them
    } catch (...) {
      // Told by the wait below, after the trainer has ended its records.
    }
  };
  const auto write_trace = [&] {
    if (!trace) return;
    batches.reset();  // its threads write no more
    const SourceStage& source = *pipeline.data().source;
    trace->write(request.trace, [&source](std::uint64_t item) { return source.key(item); });
    log.info("trace: " + request.trace.string() +
             (trace->full() ? "; it is full: what came later is left out" : ""));
  };
  try {
    pipeline.end()->run(context);
    wait_for_workers();
  } catch (...) {
    workers.clear();  // a run that failed waits for no score
    try {
      write_trace();  // shows what led to the failure
    } catch (const Error& error) {
      log.warn(error.what());
    }
    throw;
  }
  evaluations.sync();
  write_trace();
  std::vector<const DataPath*> paths = pipeline.phases();
  if (paths.empty()) paths.push_back(&pipeline.data());
  std::map<std::string, std::uint64_t> events;
  for (const DataPath* path : paths) {
    for (const auto& [event, count] : path->chain->events().get()) events[event] += count;
  }
  for (const auto& [event, count] : events) {
    log.info("data: " + event + ": " + std::to_string(count) + (count == 1 ? " image" : " images"));
  }
  if (request.stop.stop_requested()) {
    throw InterruptedError("stopped on request" + (directory.empty() || pipeline.end_is_sink()
                                                       ? std::string()
                                                       : "; to go on: gan-pipeline run --resume '" +
                                                             directory.string() + "'"));
  }
  return directory;
}

std::string dry_run(const LoadedConfig& loaded) {
  const Pipeline pipeline(loaded.config);
  const DataPath& data = pipeline.data();
  // One bad file does not make the configuration bad: try a few.
  std::optional<ReplayedSample> passed;
  std::string first_reject;
  data.order->start_epoch(0);
  const std::uint64_t tries = std::min<std::uint64_t>(data.order->size(), 16);
  for (std::uint64_t position = 0; position < tries && !passed; ++position) {
    ReplayedSample sample = replay_sample(data, data.order->at(position), 0);
    if (!sample.reject || sample.reject->dropped) {
      passed = std::move(sample);
    } else if (first_reject.empty()) {
      first_reject = "sample '" + sample.info.key + "', stage '" + sample.reject->stage +
                     "': " + sample.reject->reason;
    }
  }
  if (!passed) {
    throw DataError("none of the first samples came through; the first: " + first_reject);
  }
  std::string text = "sample '" + passed->info.key + "':\n";
  for (const ReplayedStage& stage : passed->stages) text += "  " + describe(stage) + '\n';
  const StreamInfo stream = pipeline.stream_info();
  text += std::to_string(stream.source_size) + " samples an epoch";
  if (stream.batch_size > 0) {
    text += ", batches of " + std::to_string(stream.batch_size);
  }
  return text + "\n\n" + loaded.config.resolved_yaml();
}

}  // namespace gp
