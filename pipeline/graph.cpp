#include "pipeline/graph.hpp"

#include <oneapi/tbb/enumerable_thread_specific.h>
#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "pipeline/error.hpp"

namespace gp {
namespace {

using SamplePtr = std::shared_ptr<Sample>;
using Limiter = tbb::flow::limiter_node<SamplePtr, int>;
using Clock = Trace::Clock;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

/// The samples that may be in flight, and how long all of them were. Batches give credits back;
/// they may outlive the graph, so they hold this and not the graph.
class Credits {
 public:
  Credits(Limiter& limiter, int limit) : limiter_(&limiter), limit_(limit) {}

  /// Called by the source for each sample. The one after the last credit waits at the limiter.
  void take() {
    if (taken_.fetch_add(1) + 1 <= limit_) return;
    const std::lock_guard lock(mutex_);
    if (taken_.load() > limit_ && !blocked_since_) blocked_since_ = Clock::now();
  }
  void give_back(int samples) {
    const bool was_blocked = taken_.fetch_sub(samples) > limit_;
    const std::lock_guard lock(mutex_);
    if (was_blocked && blocked_since_) {
      blocked_ += Clock::now() - *blocked_since_;
      blocked_since_.reset();
    }
    if (limiter_ != nullptr) limiter_->decrementer().try_put(samples);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    limiter_ = nullptr;
  }
  double seconds_blocked() const {
    const std::lock_guard lock(mutex_);
    return seconds(blocked_ +
                   (blocked_since_ ? Clock::now() - *blocked_since_ : Clock::duration()));
  }

 private:
  mutable std::mutex mutex_;
  Limiter* limiter_;
  const int limit_;
  std::atomic<int> taken_{0};
  std::optional<Clock::time_point> blocked_since_;
  Clock::duration blocked_{};
};

/// Counts the samples that exist.
struct LiveCount {
  std::atomic<int> now{0};
  std::atomic<int> peak{0};
};

struct LiveSample : Sample {
  explicit LiveSample(LiveCount& live) : count(live) {
    const int now = count.now.fetch_add(1, std::memory_order_relaxed) + 1;
    int seen = count.peak.load(std::memory_order_relaxed);
    while (now > seen && !count.peak.compare_exchange_weak(seen, now)) {
    }
  }
  ~LiveSample() { count.now.fetch_sub(1, std::memory_order_relaxed); }
  LiveSample(const LiveSample&) = delete;
  LiveSample& operator=(const LiveSample&) = delete;

  LiveCount& count;
};

}  // namespace

struct GraphStream::Impl {
  const SourceStage& source;
  const TransformChain& chain;
  std::shared_ptr<SampleOrder> order;
  GraphOptions options;
  std::vector<TransformChain::Segment> segments;
  std::shared_ptr<SlabPool> slabs;
  LiveCount live;

  // The reading position: touched by the input node only.
  StreamPosition position;
  std::uint64_t sequence = 0;
  std::uint64_t slot = 0;
  std::shared_ptr<std::uint8_t[]> slab;

  // Between graph and trainer.
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<const Batch>> queue;
  std::exception_ptr error;
  bool error_is_ordered = false;  ///< the batches before it are delivered first
  bool finished = false;
  bool cancelled = false;
  double seconds_waited = 0;
  std::uint64_t batched = 0;
  std::atomic<std::uint64_t> batching_ns{0};  ///< written by the batcher only

  // The end's row in the trace, written by next().
  Trace::Track* end_track = nullptr;
  std::uint32_t step_name = 0, pause_name = 0, wait_name = 0;
  bool handed_images = false;
  Clock::time_point handed_at = Clock::now();

  struct Running;
  std::mutex running_mutex;
  Running* running = nullptr;  ///< while the driver runs the graph
  std::shared_ptr<Credits> credits;
  std::thread driver;

  Impl(const SourceStage& source_stage, const TransformChain& transform_chain,
       std::shared_ptr<SampleOrder> sample_order, const GraphOptions& graph_options)
      : source(source_stage),
        chain(transform_chain),
        order(std::move(sample_order)),
        options(graph_options),
        segments(chain.segments()),
        slabs(std::make_shared<SlabPool>(chain.output_shape().bytes() *
                                         static_cast<std::size_t>(options.batch_size))),
        position(options.start) {
    options.mixed_shapes = options.mixed_shapes && !chain.output_shape().fixed();
    if (options.trace == nullptr) return;
    end_track = &options.trace->add_track(options.end);
    step_name = options.trace->name("step");
    pause_name = options.trace->name("between epochs");
    wait_name = options.trace->name("waiting for data");
  }

  void drive();
  SamplePtr next_sample();
  void record(std::exception_ptr what, bool ordered);
  void cancel_graph();
};

/// The graph and its nodes; the graph first, because nodes refer to it until they are gone.
struct GraphStream::Impl::Running {
  tbb::flow::graph graph;
  Limiter limiter;
  std::atomic<bool> waiting_released{false};

  explicit Running(int max_in_flight) : limiter(graph, static_cast<std::size_t>(max_in_flight)) {}
  void release_wait_once() {
    if (!waiting_released.exchange(true)) graph.release_wait();
  }
};

SamplePtr GraphStream::Impl::next_sample() {
  if (position.next >= order->size()) {
    ++position.epoch;
    position.next = 0;
    slot = 0;
  }
  if (position.epoch >= options.epochs) return nullptr;
  order->start_epoch(position.epoch);
  const SampleOrder::Entry& entry = order->at(position.next);

  credits->take();
  const SamplePtr sample = std::make_shared<LiveSample>(live);
  sample->info = {source.key(entry.item), entry.key_hash, source.label(entry.item), position.epoch};
  sample->sequence = sequence++;
  sample->position = position.next++;
  sample->ends_epoch = position.next == order->size();
  sample->item = entry.item;
  sample->keeps_image = options.mixed_shapes;
  // Places are given out ahead of time, as if no sample were rejected; the batcher moves samples
  // where that turns out wrong.
  sample->slot = static_cast<int>(slot++ % static_cast<std::uint64_t>(options.batch_size));
  if (sample->slot == 0 && !options.discard && !options.mixed_shapes) slab = slabs->take();
  sample->slab = slab;
  return sample;
}

void GraphStream::Impl::record(std::exception_ptr what, bool ordered) {
  {
    const std::lock_guard lock(mutex);
    if (!error) {
      error = std::move(what);
      error_is_ordered = ordered;
    }
    finished = true;
  }
  changed.notify_all();
  cancel_graph();
}

void GraphStream::Impl::cancel_graph() {
  const std::lock_guard lock(running_mutex);
  if (running == nullptr) return;
  running->graph.cancel();
  running->release_wait_once();
}

void GraphStream::Impl::drive() {
  // TBB makes one worker less than there are processors unless it is told otherwise.
  const tbb::global_control workers(
      tbb::global_control::max_allowed_parallelism,
      std::max<std::size_t>(
          static_cast<std::size_t>(options.threads) + 1,
          tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism)));
  tbb::task_arena arena(options.threads, 1);
  arena.execute([this] {
    std::atomic<int> data_threads{0};
    tbb::enumerable_thread_specific<Workspace> workspaces([&] {
      Trace* trace = options.trace;
      if (trace == nullptr) return Workspace(chain);
      return Workspace(chain, trace, &trace->add_track("data " + std::to_string(++data_threads)));
    });
    Running graph(options.max_in_flight);
    {
      const std::lock_guard lock(mutex);
      credits = std::make_shared<Credits>(graph.limiter, options.max_in_flight);
    }

    tbb::flow::input_node<SamplePtr> input(graph.graph, [&](tbb::flow_control& control) {
      try {
        SamplePtr sample = next_sample();
        if (!sample) control.stop();
        return sample;
      } catch (...) {
        record(std::current_exception(), false);
        control.stop();
        return SamplePtr();
      }
    });
    tbb::flow::make_edge(input, graph.limiter);

    std::deque<tbb::flow::function_node<SamplePtr, SamplePtr>> transforms;
    for (const TransformChain::Segment& segment : segments) {
      transforms.emplace_back(graph.graph,
                              segment.serial ? tbb::flow::serial : tbb::flow::unlimited,
                              [&, segment](SamplePtr sample) {
                                try {
                                  chain.run(segment, *sample, workspaces.local());
                                } catch (...) {
                                  // The sample goes on: the sequencer needs it even in a graph that
                                  // is cancelled.
                                  record(std::current_exception(), false);
                                }
                                return sample;
                              });
      if (transforms.size() == 1) {
        tbb::flow::make_edge(graph.limiter, transforms.back());
      } else {
        tbb::flow::make_edge(transforms[transforms.size() - 2], transforms.back());
      }
    }

    tbb::flow::sequencer_node<SamplePtr> sequencer(
        graph.graph, [](const SamplePtr& sample) { return sample->sequence; });
    tbb::flow::make_edge(transforms.back(), sequencer);

    Batcher batcher(
        {chain.output_shape(), options.batch_size, options.keep_last, options.mixed_shapes,
         options.policy, order->size(), options.start.counts},
        slabs,
        [&](std::shared_ptr<Batch> batch) {
          const int samples = batch->count;
          const bool ends_stream = batch->end_of_epoch && batch->epoch + 1 >= options.epochs;
          // The batch that the trainer sees holds the other one, and gives its credits back.
          std::shared_ptr<const Batch> handed(
              batch.get(), [batch, samples, holder = credits](const Batch*) mutable {
                batch.reset();
                if (samples > 0) holder->give_back(samples);
              });
          {
            const std::lock_guard lock(mutex);
            batched += static_cast<std::uint64_t>(samples);
            queue.push_back(std::move(handed));
            if (ends_stream) finished = true;
          }
          changed.notify_all();
          if (ends_stream) graph.release_wait_once();
        },
        [&](int samples) { credits->give_back(samples); });
    tbb::flow::function_node<SamplePtr> gather(
        graph.graph, tbb::flow::serial, [&, failed = false](const SamplePtr& sample) mutable {
          if (failed) return tbb::flow::continue_msg();
          const Clock::time_point start = Clock::now();
          try {
            batcher.add(sample);
          } catch (...) {
            failed = true;
            record(std::current_exception(), true);
          }
          batching_ns.fetch_add(static_cast<std::uint64_t>((Clock::now() - start).count()),
                                std::memory_order_relaxed);
          return tbb::flow::continue_msg();
        });
    tbb::flow::make_edge(sequencer, gather);

    // Idle is not done: with every credit out the graph has no task, yet goes on when the trainer
    // lets a batch go.
    graph.graph.reserve_wait();
    {
      const std::lock_guard lock(running_mutex);
      running = &graph;
    }
    const bool stopped_before = [this] {
      const std::lock_guard lock(mutex);
      return cancelled;
    }();
    if (stopped_before) {
      cancel_graph();
    } else {
      try {
        if (position.next >= order->size()) batcher.end_epoch(position.epoch);
      } catch (...) {
        record(std::current_exception(), true);
      }
      input.activate();
    }
    graph.graph.wait_for_all();
    credits->close();
    // A credit that came back before that may have started tasks, which must not outlive the nodes.
    graph.graph.cancel();
    graph.graph.wait_for_all();
    const std::lock_guard lock(running_mutex);
    running = nullptr;
  });
}

GraphStream::GraphStream(const SourceStage& source, const TransformChain& chain,
                         std::shared_ptr<SampleOrder> order, GraphOptions options) {
  if (order->size() == 0) {
    throw DataError("the source has no samples to read");
  }
  if (!chain.output_shape().fixed() && !options.discard && !options.mixed_shapes) {
    throw ConfigError(
        "the images of a batch must have one size: put image.resize before the batch");
  }
  impl_ = std::make_unique<Impl>(source, chain, std::move(order), options);
  if (options.start.epoch >= options.epochs) {
    impl_->finished = true;
    return;
  }
  impl_->driver = std::thread([impl = impl_.get()] {
    try {
      impl->drive();
    } catch (...) {
      impl->record(std::current_exception(), false);
    }
  });
}

GraphStream::~GraphStream() {
  cancel();
  if (impl_->driver.joinable()) impl_->driver.join();
}

void GraphStream::cancel() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->cancelled = true;
  }
  impl_->changed.notify_all();
  impl_->cancel_graph();
}

std::shared_ptr<const Batch> GraphStream::next() {
  std::unique_lock lock(impl_->mutex);
  const auto ready = [this] {
    return impl_->cancelled || impl_->finished || !impl_->queue.empty();
  };
  const Clock::time_point start = Clock::now();
  if (impl_->end_track != nullptr) {
    impl_->end_track->add(impl_->handed_images ? impl_->step_name : impl_->pause_name,
                          impl_->handed_at, start);
  }
  if (!ready()) {
    impl_->changed.wait(lock, ready);
    const Clock::time_point end = Clock::now();
    impl_->seconds_waited += seconds(end - start);
    if (impl_->end_track != nullptr) impl_->end_track->add(impl_->wait_name, start, end);
  }
  if (impl_->error && (!impl_->error_is_ordered || impl_->queue.empty())) {
    std::rethrow_exception(impl_->error);
  }
  if (impl_->cancelled || impl_->queue.empty()) return nullptr;
  std::shared_ptr<const Batch> batch = std::move(impl_->queue.front());
  impl_->queue.pop_front();
  impl_->handed_images = batch->count > 0;
  impl_->handed_at = Clock::now();
  return batch;
}

double GraphStream::seconds_waited() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->seconds_waited;
}

StreamTimes GraphStream::times() const {
  const std::lock_guard lock(impl_->mutex);
  StreamTimes times;
  times.batching = static_cast<double>(impl_->batching_ns.load()) * 1e-9;
  times.blocked = impl_->credits ? impl_->credits->seconds_blocked() : 0;
  times.waited = impl_->seconds_waited;
  times.batched = impl_->batched;
  return times;
}

int GraphStream::peak_live_samples() const { return impl_->live.peak.load(); }

}  // namespace gp
