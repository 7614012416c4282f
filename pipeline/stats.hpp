#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace gp {

/// What one stage did, counted by the worker threads.
struct StageStats {
  std::string address;
  std::atomic<std::uint64_t> samples{0};
  std::atomic<std::uint64_t> nanoseconds{0};  ///< summed over threads
  explicit StageStats(std::string name) : address(std::move(name)) {}
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

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> counts_;
};

}  // namespace gp
