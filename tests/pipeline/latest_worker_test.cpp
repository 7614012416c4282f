#include "pipeline/latest_worker.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>

namespace gp {
namespace {

using Skipped = std::vector<std::uint64_t>;

/// A task that says when it has begun, and goes on when it is told to.
struct Gate {
  std::promise<void> begun;
  std::promise<void> go;
  LatestWorker::Task task() {
    return [this](const Skipped&, const std::stop_token&) {
      begun.set_value();
      go.get_future().wait();
    };
  }
};

TEST(LatestWorker, RunsEveryTaskOfACallerThatWaits) {
  LatestWorker worker;
  std::vector<std::uint64_t> ran;
  const std::thread::id here = std::this_thread::get_id();
  for (std::uint64_t i = 0; i < 5; ++i) {
    worker.submit(i, [&, i](const Skipped& skipped, const std::stop_token&) {
      EXPECT_NE(std::this_thread::get_id(), here);
      EXPECT_TRUE(skipped.empty());
      ran.push_back(i);
    });
    worker.wait();
  }
  EXPECT_EQ(ran, (std::vector<std::uint64_t>{0, 1, 2, 3, 4}));
}

TEST(LatestWorker, TheNewestWinsAndIsToldWhatItReplaced) {
  Gate gate;
  std::vector<std::pair<std::uint64_t, Skipped>> ran;
  LatestWorker worker;
  worker.submit(10, gate.task());
  gate.begun.get_future().wait();
  const auto held = std::make_shared<int>(0);
  for (std::uint64_t i = 11; i < 14; ++i) {
    worker.submit(i, [&, i, held](const Skipped& skipped, const std::stop_token&) {
      ran.emplace_back(i, skipped);
    });
  }
  EXPECT_EQ(held.use_count(), 2);  // those replaced are gone, with what they held
  gate.go.set_value();
  worker.wait();
  EXPECT_EQ(held.use_count(), 1);
  worker.submit(
      14, [&](const Skipped& skipped, const std::stop_token&) { ran.emplace_back(14, skipped); });
  worker.wait();
  ASSERT_EQ(ran.size(), 2U);
  EXPECT_EQ(ran[0], std::pair(std::uint64_t{13}, Skipped{11, 12}));
  EXPECT_EQ(ran[1], std::pair(std::uint64_t{14}, Skipped{}));
}

TEST(LatestWorker, AnErrorReachesTheCallerAndEndsTheWork) {
  LatestWorker worker;
  bool ran = false;
  worker.submit(1, [](const Skipped&, const std::stop_token&) { throw std::runtime_error("bad"); });
  EXPECT_THROW(worker.wait(), std::runtime_error);
  EXPECT_THROW(worker.check(), std::runtime_error);
  EXPECT_THROW(worker.submit(2, [&](const Skipped&, const std::stop_token&) { ran = true; }),
               std::runtime_error);
  EXPECT_THROW(worker.wait(), std::runtime_error);
  EXPECT_FALSE(ran);
}

TEST(LatestWorker, AStopReachesTheTaskAndDropsTheOneThatWaits) {
  std::stop_source stop;
  LatestWorker worker(stop.get_token());
  std::promise<void> begun;
  bool second = false;
  worker.submit(1, [&](const Skipped&, const std::stop_token& asked) {
    begun.set_value();
    while (!asked.stop_requested()) std::this_thread::yield();
  });
  begun.get_future().wait();
  worker.submit(2, [&](const Skipped&, const std::stop_token&) { second = true; });
  stop.request_stop();
  worker.wait();
  EXPECT_FALSE(second);
}

TEST(LatestWorker, ItsEndStopsTheTaskThatRunsAndWaitsForIt) {
  std::atomic<bool> ended{false};
  bool second = false;
  {
    LatestWorker worker;
    std::promise<void> begun;
    worker.submit(1, [&](const Skipped&, const std::stop_token& asked) {
      begun.set_value();
      while (!asked.stop_requested()) std::this_thread::yield();
      ended = true;
    });
    begun.get_future().wait();
    worker.submit(2, [&](const Skipped&, const std::stop_token&) { second = true; });
  }
  EXPECT_TRUE(ended);
  EXPECT_FALSE(second);
}

}  // namespace
}  // namespace gp
