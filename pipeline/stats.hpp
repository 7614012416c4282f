#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/trace.hpp"

namespace gp {

/// What one stage did so far, on all threads together.
struct StageTotals {
  std::string address;
  bool serial = false;  ///< works on one sample at a time
  std::uint64_t samples = 0;
  std::uint64_t nanoseconds = 0;
};

/// A thread's stop watch: books the time between two laps on a stage. Started and lapped by that
/// thread only; totals may be read by any. One reading of the clock serves as the end of one stage
/// and the start of the next, since it costs as much as a small stage.
class StageClock {
 public:
  /// `track` (null: none) also gets each lap as a span with the stage's name.
  StageClock(const std::vector<std::string>& stages, Trace* trace, Trace::Track* track)
      : counts_(std::make_unique<Count[]>(stages.size())), track_(track) {
    if (trace == nullptr) return;
    for (const std::string& stage : stages) names_.push_back(trace->name(stage));
  }

  void start() { last_ = Trace::Clock::now(); }

  /// Books the time since the last lap, or start, on `stage`, which has done `samples` more.
  void lap(std::size_t stage, std::uint64_t samples, SampleRef about) {
    const Trace::Clock::time_point now = Trace::Clock::now();
    Count& count = counts_[stage];
    // One writer: a load and a store are enough, and cost no locked instruction.
    count.samples.store(count.samples.load(std::memory_order_relaxed) + samples,
                        std::memory_order_relaxed);
    count.nanoseconds.store(count.nanoseconds.load(std::memory_order_relaxed) +
                                static_cast<std::uint64_t>((now - last_).count()),
                            std::memory_order_relaxed);
    if (track_ != nullptr) track_->add(names_[stage], last_, now, about);
    last_ = now;
  }

  /// Adds what was booked on `stage` so far.
  void add_to(StageTotals& totals, std::size_t stage) const {
    totals.samples += counts_[stage].samples.load(std::memory_order_relaxed);
    totals.nanoseconds += counts_[stage].nanoseconds.load(std::memory_order_relaxed);
  }

 private:
  struct Count {
    std::atomic<std::uint64_t> samples{0};
    std::atomic<std::uint64_t> nanoseconds{0};
  };
  std::unique_ptr<Count[]> counts_;
  std::vector<std::uint32_t> names_;
  Trace::Track* track_;
  Trace::Clock::time_point last_;
};

/// Named events that stages report, such as conversions. Thread-safe; meant for rare events.
class EventCounts {
 public:
  void add(const std::string& event) {
    const std::lock_guard lock(mutex_);
    ++counts_[event];
  }
  std::map<std::string, std::uint64_t> get() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }
  void reset() {
    const std::lock_guard lock(mutex_);
    counts_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> counts_;
};

}  // namespace gp
