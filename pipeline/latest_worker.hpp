#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

namespace gp {

/// Runs tasks on a thread of its own, one at a time, for a caller that must not wait: of the tasks
/// that wait, only the newest is kept.
///
/// A task that throws ends the work: the next call of the caller throws that, and later tasks are
/// not run. All member functions belong to the caller's thread.
class LatestWorker {
 public:
  /// `skipped`: the numbers of the tasks that were replaced since the last one that ran, in order.
  /// `stop` is asked for when the caller's is, or when the worker is destroyed.
  using Task = std::function<void(std::vector<std::uint64_t> skipped, std::stop_token stop)>;

  explicit LatestWorker(std::stop_token stop = {});
  /// Drops the task that waits, asks the one that runs to stop and waits for it.
  ~LatestWorker();
  LatestWorker(const LatestWorker&) = delete;
  LatestWorker& operator=(const LatestWorker&) = delete;

  /// Hands over a task with its number, in place of one that still waits. Throws what an earlier
  /// task threw.
  void submit(std::uint64_t number, Task task);
  /// Throws what a task threw.
  void check();
  /// Waits until nothing runs or waits; a stop drops what waits. Throws what a task threw.
  void wait();

 private:
  struct Waiting {
    std::uint64_t number = 0;
    Task task;
  };
  void work();

  std::stop_source stop_;
  std::stop_callback<std::function<void()>> on_stop_;  ///< of the caller's token
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Waiting> waiting_;
  std::vector<std::uint64_t> skipped_;
  bool running_ = false;
  bool closed_ = false;
  std::exception_ptr error_;
  std::thread thread_;  ///< last: it uses the others
};

}  // namespace gp
