#include "pipeline/bench.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "pipeline/error.hpp"

namespace gp {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

/// Everything that counts up, at one moment.
struct Reading {
  Clock::time_point at;
  std::uint64_t images = 0;  ///< taken by the end
  StreamTimes stream;
  std::vector<StageTotals> stages;
};

/// A stream that ends by itself when enough was measured. What comes before the second batch (the
/// end's first step, files opened, buffers made) and the first half second are not counted.
class MeasuredStream : public BatchStream {
 public:
  MeasuredStream(GraphStream& stream, const TransformChain& chain, double seconds)
      : stream_(stream), chain_(chain), seconds_(seconds) {}

  std::shared_ptr<const Batch> next() override {
    constexpr double kWarmUp = 0.5;
    if (end_) return nullptr;
    if (!start_) {
      if (images_ > 0 && since(opened_) >= kWarmUp) start_ = read();
    } else if (images_ > start_->images && since(start_->at) >= seconds_) {
      end_ = read();
      return nullptr;
    }
    auto batch = stream_.next();
    if (batch) images_ += static_cast<std::uint64_t>(batch->count);
    return batch;
  }
  double seconds_waited() const override { return stream_.seconds_waited(); }

  /// The two readings. Throws RunError when too little happened for them.
  std::pair<Reading, Reading> readings() {
    if (start_ && !end_) end_ = read();  // the end stopped by itself
    if (!start_ || end_->images == start_->images) {
      throw RunError("too little to measure: only " + std::to_string(images_) +
                     " images came through before the end stage was done; raise its epochs, or "
                     "measure the data path alone with --until");
    }
    return {*start_, *end_};
  }

 private:
  static double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  Reading read() const { return {Clock::now(), images_, stream_.times(), chain_.totals()}; }

  GraphStream& stream_;
  const TransformChain& chain_;
  const double seconds_;
  const Clock::time_point opened_ = Clock::now();
  std::uint64_t images_ = 0;
  std::optional<Reading> start_;
  std::optional<Reading> end_;
};

/// A data stage's share: thread seconds of work, and the most threads that can do it at a time.
struct Work {
  std::string name;
  double seconds = 0;
  std::uint64_t samples = 0;
  int threads = 1;
};

std::string number(double value, int decimals = 0) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}
std::string percent(double share) { return number(100 * share) + " %"; }

/// What the measured run could have given its stages, and what it did.
class Verdict {
 public:
  Verdict(const Config& config, const std::vector<Work>& works, BenchResult& result)
      : config_(config), works_(works), result_(result) {}

  /// `idle`: thread seconds in which no data stage worked and the end did not hold everything.
  void decide(const StageBench* end, double idle) {
    const double capacity = result_.data_threads * result_.seconds;
    double total = 0;
    const Work* heaviest = &works_.front();
    const Work* serial = nullptr;
    for (const Work& work : works_) {
      total += work.seconds;
      if (work.seconds > heaviest->seconds) heaviest = &work;
      const bool is_full =
          work.threads < result_.data_threads && work.seconds > 0.8 * result_.seconds;
      if (is_full && (serial == nullptr || work.seconds > serial->seconds)) serial = &work;
    }
    if (end != nullptr && end->busy >= 0.9) {
      by_end(*end, total / result_.data_threads);
    } else if (serial != nullptr) {
      result_.bottleneck = serial->name;
      result_.advice = "'" + serial->name +
                       "' is the bottleneck: it takes one sample at a time and is busy " +
                       percent(serial->seconds / result_.seconds) + " of the time, whatever " +
                       threads_setting() + " is; " + instead_of(*serial);
    } else if (idle > heaviest->seconds && idle > 0.3 * capacity) {
      result_.bottleneck = BenchResult::kGraph;
      result_.advice =
          "The stages cost little: handing samples from task to task takes most of the time, " +
          number(1e6 * idle / static_cast<double>(result_.images), 1) +
          " microseconds an image; more than " + number(result_.images_per_second) +
          " images/s would need fewer serial stages or larger images";
    } else {
      by_data(*heaviest, total);
    }
  }

 private:
  void by_end(const StageBench& end, double data_seconds) {
    const double data_rate = static_cast<double>(result_.images) / std::max(data_seconds, 1e-9);
    result_.bottleneck = end.name;
    result_.advice =
        "'" + end.name + "' is the bottleneck: it is busy " + percent(end.busy) +
        " of the time, and the data path could deliver " + number(data_rate) + " images/s (" +
        number(data_rate / result_.images_per_second, 1) +
        " times as many); a GPU (run.device), run.precision: bf16 where the device "
        "is faster in it, more threads (run.threads) or a smaller model would help, faster "
        "data would not";
  }

  void by_data(const Work& work, double total) {
    result_.bottleneck = work.name;
    result_.advice =
        "'" + work.name + "' is the bottleneck: it takes " +
        percent(work.seconds / std::max(total, 1e-12)) + " of the data path's work, " +
        number(1e6 * work.seconds / static_cast<double>(std::max<std::uint64_t>(work.samples, 1))) +
        " microseconds an image; raise " + threads_setting() + " (now " +
        std::to_string(result_.data_threads) + ") where there are processors, or " +
        instead_of(work);
  }

  const char* threads_setting() const {
    return result_.end_threads > 0 ? "run.data_threads" : "run.threads";
  }

  /// What to do about a stage besides more threads.
  std::string instead_of(const Work& work) const {
    const StageConfig* stage = config_.find_stage(work.name);
    const bool from_shards = config_.stages.front().use == "source.shards";
    if (stage == nullptr || stage->use == kBatchStage) return "use larger batches (batch.size)";
    if (stage->info->random) {
      return "lower its `p`, or take a cheaper stage in its place (`gan-pipeline inspect`)";
    }
    if (from_shards) return "keep the shards on a faster disk or in memory";
    return "do its work once: `gan-prep build` writes shards, which source.shards reads";
  }

  const Config& config_;
  const std::vector<Work>& works_;
  BenchResult& result_;
};

BenchResult evaluate_readings(const Config& config, const Reading& start, const Reading& end,
                              const ThreadSplit& threads, const std::string& end_address,
                              bool has_batch) {
  BenchResult result;
  result.seconds = std::chrono::duration<double>(end.at - start.at).count();
  result.images = end.images - start.images;
  result.images_per_second = static_cast<double>(result.images) / result.seconds;
  result.data_threads = threads.data;
  result.end_threads = end_address.empty() ? 0 : threads.end;

  std::vector<Work> works;
  double worked = 0;
  const auto add = [&](const std::string& name, double seconds, std::uint64_t samples,
                       bool serial) {
    works.push_back({name, seconds, samples, serial ? 1 : threads.data});
    worked += seconds;
  };
  for (std::size_t i = 0; i < end.stages.size(); ++i) {
    const StageTotals& now = end.stages[i];
    const StageTotals& before = start.stages[i];
    add(now.address, static_cast<double>(now.nanoseconds - before.nanoseconds) * 1e-9,
        now.samples - before.samples, now.serial);
  }
  if (has_batch) {
    add(kBatchStage, end.stream.batching - start.stream.batching,
        end.stream.batched - start.stream.batched, true);
  }

  const double capacity = threads.data * result.seconds;
  const double unused = std::max(0.0, capacity - worked);
  const double held = std::min(unused, threads.data * (end.stream.blocked - start.stream.blocked));
  double before = 0;
  for (const Work& work : works) {
    StageBench stage{work.name, 0, 0, 0, 0};
    if (work.seconds > 0) {
      stage.images_per_second = static_cast<double>(work.samples) * work.threads / work.seconds;
    }
    stage.busy = std::min(1.0, work.seconds / (work.threads * result.seconds));
    // The rest of its threads' time went to the stages before and after it, in proportion.
    const double after = worked - before - work.seconds + held;
    const double others = before + after;
    stage.starved = others > 0 ? (1 - stage.busy) * before / others : 1 - stage.busy;
    stage.blocked = 1 - stage.busy - stage.starved;
    before += work.seconds;
    result.stages.push_back(stage);
  }
  std::optional<StageBench> end_stage;
  if (!end_address.empty()) {
    const double waited = std::clamp(end.stream.waited - start.stream.waited, 0.0, result.seconds);
    const double busy = result.seconds - waited;
    end_stage = StageBench{end_address, static_cast<double>(result.images) / std::max(busy, 1e-9),
                           busy / result.seconds, waited / result.seconds, 0};
    result.stages.push_back(*end_stage);
  }
  Verdict(config, works, result).decide(end_stage ? &*end_stage : nullptr, unused - held);
  return result;
}

}  // namespace

BenchResult bench_pipeline(const LoadedConfig& loaded, const BenchRequest& request, Log& log) {
  Pipeline pipeline(loaded.config);
  const bool batched =
      std::any_of(loaded.config.stages.begin(), loaded.config.stages.end(),
                  [](const StageConfig& stage) { return stage.use == kBatchStage; });
  const bool is_cut = !request.until.empty() && request.until != kBatchStage &&
                      request.until != pipeline.end_address();
  const bool runs_end = pipeline.end() != nullptr && !pipeline.end_is_sink() && !is_cut &&
                        request.until != kBatchStage;
  if (runs_end && !pipeline.phases().empty()) {
    throw ConfigError("'" + pipeline.end_address() +
                      "' trains in phases, so its stages have no one speed: --trainer measures a "
                      "step at full size, --until " +
                      std::string(kBatchStage) + " the data for it");
  }
  if (is_cut) pipeline.cut_off_after(request.until);
  const ThreadSplit threads = runs_end ? choose_threads(pipeline, log)
                                       : split_threads(loaded.config.run.threads, true, false);

  const auto stream = pipeline.open_endless(threads.data);
  MeasuredStream measured(*stream, *pipeline.data().chain, request.seconds);
  if (runs_end) {
    const RunInfo run = make_run_info(pipeline, threads.end, {});
    EndContext context{run, pipeline.stream_info(), measured, log, {}, 0, {}};
    pipeline.end()->run(context);
  } else {
    while (measured.next()) {
    }
  }
  const auto [start, end] = measured.readings();
  return evaluate_readings(loaded.config, start, end, threads,
                           runs_end ? pipeline.end_address() : std::string(), batched && !is_cut);
}

std::string to_text(const BenchResult& result) {
  std::string text = number(result.images_per_second, 1) + " images/s over " +
                     number(result.seconds, 1) + " s, on " + std::to_string(result.data_threads) +
                     (result.data_threads == 1 ? " data thread" : " data threads");
  if (result.end_threads > 0) {
    text += " and " + std::to_string(result.end_threads) +
            (result.end_threads == 1 ? " trainer thread" : " trainer threads");
  }
  std::size_t width = 5;
  for (const StageBench& stage : result.stages) width = std::max(width, stage.name.size());
  char line[256];
  std::snprintf(line, sizeof line, "\n\n%-*s  %12s  %6s  %8s  %8s\n", static_cast<int>(width),
                "stage", "alone im./s", "busy", "starved", "blocked");
  text += line;
  for (const StageBench& stage : result.stages) {
    std::snprintf(line, sizeof line, "%-*s  %12s  %6s  %8s  %8s\n", static_cast<int>(width),
                  stage.name.c_str(),
                  stage.images_per_second > 0 ? number(stage.images_per_second).c_str() : "-",
                  percent(stage.busy).c_str(), percent(stage.starved).c_str(),
                  percent(stage.blocked).c_str());
    text += line;
  }
  return text + "\n" + result.advice + ".\n";
}

std::string to_json(const BenchResult& result) {
  Json stages = Json::array();
  for (const StageBench& stage : result.stages) {
    stages.push_back({{"name", stage.name},
                      {"images_per_second", stage.images_per_second},
                      {"busy", stage.busy},
                      {"starved", stage.starved},
                      {"blocked", stage.blocked}});
  }
  const Json json = {{"images_per_second", result.images_per_second},
                     {"seconds", result.seconds},
                     {"images", result.images},
                     {"threads", {{"data", result.data_threads}, {"end", result.end_threads}}},
                     {"bottleneck", result.bottleneck},
                     {"advice", result.advice},
                     {"stages", stages}};
  return json.dump(2) + "\n";
}

StepProfile profile_trainer(const LoadedConfig& loaded, double seconds, Log& log) {
  Pipeline pipeline(loaded.config);
  auto* const trainer = dynamic_cast<TrainStage*>(pipeline.end());
  if (trainer == nullptr) {
    throw ConfigError(loaded.config.path.string() + ": has no train.* stage to measure");
  }
  log.info("measuring '" + pipeline.end_address() + "'");
  const ThreadSplit threads =
      split_threads(loaded.config.run.threads, false, uses_gpu(loaded.config.run.device));
  StepProfile profile =
      trainer->profile(make_run_info(pipeline, threads.end, {}), pipeline.stream_info(), seconds);
  if (profile.description.empty()) {
    throw ConfigError("'" + pipeline.end_address() + "' does not say where its time goes");
  }
  return profile;
}

namespace {

std::uint64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

double images_per_second(const StepProfile& profile) { return profile.images / profile.seconds; }

}  // namespace

std::string to_text(const StepProfile& profile) {
  std::string text = profile.description + "\n" + number(profile.seconds, 3) + " s a step of " +
                     std::to_string(profile.images) + " images, " +
                     number(images_per_second(profile), 1) + " images/s; peak memory " +
                     number(static_cast<double>(peak_memory_bytes()) / 1e6) +
                     " MB\n\n ms a step   share   calls  operation and the sizes of its inputs\n";
  double shown = 0;
  double total = 0;
  for (const StepProfile::Part& part : profile.parts) total += part.seconds;
  const auto line = [&](double seconds, const std::string& calls, const std::string& what) {
    char start[64];
    std::snprintf(start, sizeof start, "%10.1f  %5.1f %%  %6s  ", 1e3 * seconds,
                  100 * seconds / total, calls.c_str());
    text += start + what + "\n";
  };
  for (const StepProfile::Part& part : profile.parts) {
    if (part.seconds < 0.005 * total) break;
    line(part.seconds, number(part.calls), part.operation);
    shown += part.seconds;
  }
  line(total - shown, "", "everything else, each less than 0.5 %");
  return text;
}

std::string to_json(const StepProfile& profile) {
  Json operations = Json::array();
  for (const StepProfile::Part& part : profile.parts) {
    operations.push_back(
        {{"operation", part.operation}, {"calls", part.calls}, {"seconds", part.seconds}});
  }
  return Json{{"trainer", profile.description},
              {"seconds_per_step", profile.seconds},
              {"images_per_second", images_per_second(profile)},
              {"peak_memory_bytes", peak_memory_bytes()},
              {"operations", std::move(operations)}}
             .dump(2) +
         "\n";
}

}  // namespace gp
