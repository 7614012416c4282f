#include "pipeline/latest_worker.hpp"

#include <utility>

namespace gp {

LatestWorker::LatestWorker(std::stop_token stop)
    : on_stop_(std::move(stop), [this] { stop_.request_stop(); }), thread_([this] { work(); }) {}

LatestWorker::~LatestWorker() {
  stop_.request_stop();
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LatestWorker::submit(std::uint64_t number, Task task) {
  check();
  {
    const std::lock_guard lock(mutex_);
    if (waiting_) skipped_.push_back(waiting_->number);
    waiting_ = Waiting{number, std::move(task)};
  }
  changed_.notify_all();
}

void LatestWorker::check() {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

void LatestWorker::wait() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !running_ && !waiting_; });
  }
  check();
}

void LatestWorker::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closed_ || waiting_; });
    if (closed_) return;
    Waiting next = std::move(*waiting_);
    waiting_.reset();
    if (error_ || stop_.stop_requested()) {
      changed_.notify_all();
      continue;
    }
    std::vector<std::uint64_t> skipped = std::exchange(skipped_, {});
    running_ = true;
    lock.unlock();
    std::exception_ptr error;
    try {
      next.task(std::move(skipped), stop_.get_token());
    } catch (...) {
      error = std::current_exception();
    }
    next.task = nullptr;  // what it holds goes on this thread, before anyone is told
    lock.lock();
    running_ = false;
    if (error) error_ = error;
    changed_.notify_all();
  }
}

}  // namespace gp
