#include "pipeline/thread_split.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <thread>

#include "pipeline/error.hpp"
#include "pipeline/graph_builder.hpp"
#include "pipeline/log.hpp"

namespace gp {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int budget(int threads) {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Images a second of the data path on one thread, from less than half a second of it.
double measure_data(const Pipeline& pipeline) {
  constexpr double kSeconds = 0.4;
  const auto stream = pipeline.open_endless(1);
  stream->next();  // threads and files are there now
  const Clock::time_point start = Clock::now();
  std::uint64_t images = 0;
  do {
    const auto batch = stream->next();
    if (!batch) break;
    images += static_cast<std::uint64_t>(batch->count);
  } while (images == 0 || seconds_since(start) < kSeconds);
  return static_cast<double>(images) / seconds_since(start);
}

}  // namespace

bool uses_gpu(const std::string& device) {
  if (device == "auto") return std::filesystem::exists("/proc/driver/nvidia/version");
  return device.rfind("cuda", 0) == 0;
}

ThreadSplit split_threads(int threads, bool end_is_sink, bool on_gpu) {
  const int total = budget(threads);
  if (end_is_sink) return {total, 1};
  if (on_gpu) return {std::max(1, total - 1), 1};
  return {std::max(1, total / 8), total};
}

ThreadSplit split_by_rates(int total, const Calibration& rates) {
  const double needed = rates.trainer / rates.data;  // data threads at the trainer's full rate
  if (needed <= total / 8.0 || total == 1) {
    // A quarter more than is needed, so that the trainer does not wait for the average.
    return {std::clamp(static_cast<int>(std::ceil(1.25 * needed)), 1, total), total};
  }
  // Thread time an image: 1 / data for the graph, total / trainer for the trainer.
  const double share = rates.data * total / (rates.data * total + rates.trainer);
  const int end = std::clamp(static_cast<int>(std::lround(share * total)), 1, total - 1);
  return {total - end, end};
}

ThreadSplit choose_threads(const Pipeline& pipeline, Log& log, Calibration* rates) {
  const RunSettings& run = pipeline.config().run;
  const int total = budget(run.threads);
  const bool is_sink = pipeline.end() == nullptr || pipeline.end_is_sink();
  const bool on_gpu = uses_gpu(run.device);
  ThreadSplit split = split_threads(total, is_sink, on_gpu);
  if (is_sink) return split;
  if (run.data_threads > 0) {
    split.data = run.data_threads;
    if (!on_gpu && split.data > total / 8) split.end = std::max(1, total - split.data);
    return split;
  }
  auto* trainer = dynamic_cast<TrainStage*>(pipeline.end());
  if (on_gpu || run.threads > 0 || total == 1 || trainer == nullptr) return split;

  Calibration measured;
  try {
    measured.trainer =
        trainer->measure_rate(make_run_info(pipeline, total, {}), pipeline.stream_info());
    if (measured.trainer > 0) measured.data = measure_data(pipeline);
  } catch (const DataError&) {
    // The run meets the same files, and says what is wrong with them.
  }
  pipeline.data().chain->reset_counts();
  if (measured.data <= 0) return split;

  char text[160];
  std::snprintf(text, sizeof text,
                "threads: measured %.0f images/s of data on one thread, %.1f images/s of training "
                "on %d",
                measured.data, measured.trainer, total);
  log.info(text);
  if (rates != nullptr) *rates = measured;
  return split_by_rates(total, measured);
}

}  // namespace gp
