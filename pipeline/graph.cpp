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

/// How batches give their credits back. Batches may outlive the graph, so they hold this and not
/// the graph.
class Credits {
 public:
  explicit Credits(Limiter& limiter) : limiter_(&limiter) {}
  void give_back(int samples) {
    const std::lock_guard lock(mutex_);
    if (limiter_ != nullptr) limiter_->decrementer().try_put(samples);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    limiter_ = nullptr;
  }

 private:
  std::mutex mutex_;
  Limiter* limiter_;
};

/// Counts the samples that exist.
struct LiveCount {
  std::atomic<int> now{0};
  std::atomic<int> peak{0};
  void enter() {
    const int live = now.fetch_add(1) + 1;
    int seen = peak.load();
    while (live > seen && !peak.compare_exchange_weak(seen, live)) {
    }
  }
};

}  // namespace

struct GraphStream::Impl {
  const SourceStage& source;
  const TransformChain& chain;
  std::shared_ptr<SampleOrder> order;
  GraphOptions options;
  std::vector<TransformChain::Segment> segments;
  std::shared_ptr<SlabPool> slabs;
  std::shared_ptr<LiveCount> live = std::make_shared<LiveCount>();

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

  struct Running;
  std::mutex running_mutex;
  Running* running = nullptr;  ///< while the driver runs the graph
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
        position(options.start) {}

  void drive();
  SamplePtr next_sample();
  void record(std::exception_ptr what, bool ordered);
  void cancel_graph();
};

/// The graph and its nodes; the graph first, because nodes refer to it until they are gone.
struct GraphStream::Impl::Running {
  tbb::flow::graph graph;
  Limiter limiter;
  std::shared_ptr<Credits> credits;
  std::atomic<bool> waiting_released{false};

  explicit Running(int max_in_flight)
      : limiter(graph, static_cast<std::size_t>(max_in_flight)),
        credits(std::make_shared<Credits>(limiter)) {}
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

  live->enter();
  SamplePtr sample(new Sample, [count = live](Sample* pointer) {
    delete pointer;
    count->now.fetch_sub(1);
  });
  sample->info = {source.key(entry.item), entry.key_hash, source.label(entry.item), position.epoch};
  sample->sequence = sequence++;
  sample->position = position.next++;
  sample->ends_epoch = position.next == order->size();
  sample->item = entry.item;
  // Places are given out ahead of time, as if no sample were rejected; the batcher moves samples
  // where that turns out wrong.
  sample->slot = static_cast<int>(slot++ % static_cast<std::uint64_t>(options.batch_size));
  if (sample->slot == 0) slab = slabs->take();
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
    tbb::enumerable_thread_specific<Workspace> workspaces;
    Running graph(options.max_in_flight);

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
        {chain.output_shape(), options.batch_size, options.keep_last, options.policy,
         order->size()},
        slabs,
        [&](std::shared_ptr<Batch> batch) {
          const int samples = batch->count;
          const bool ends_stream = batch->end_of_epoch && batch->epoch + 1 >= options.epochs;
          // The batch that the trainer sees holds the other one, and gives its credits back.
          std::shared_ptr<const Batch> handed(
              batch.get(), [batch, samples, credits = graph.credits](const Batch*) mutable {
                batch.reset();
                if (samples > 0) credits->give_back(samples);
              });
          {
            const std::lock_guard lock(mutex);
            queue.push_back(std::move(handed));
            if (ends_stream) finished = true;
          }
          changed.notify_all();
          if (ends_stream) graph.release_wait_once();
        },
        [&](int samples) { graph.limiter.decrementer().try_put(samples); });
    tbb::flow::function_node<SamplePtr> gather(
        graph.graph, tbb::flow::serial, [&, failed = false](const SamplePtr& sample) mutable {
          if (failed) return tbb::flow::continue_msg();
          try {
            batcher.add(sample);
          } catch (...) {
            failed = true;
            record(std::current_exception(), true);
          }
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
      input.activate();
    }
    graph.graph.wait_for_all();
    graph.credits->close();
    const std::lock_guard lock(running_mutex);
    running = nullptr;
  });
}

GraphStream::GraphStream(const SourceStage& source, const TransformChain& chain,
                         std::shared_ptr<SampleOrder> order, GraphOptions options) {
  if (order->size() == 0) {
    throw DataError("the source has no samples to read");
  }
  if (!chain.output_shape().fixed()) {
    throw ConfigError(
        "the images of a batch must have one size: put image.resize before the batch");
  }
  if (options.start.next >= order->size()) options.start = {options.start.epoch + 1, 0};
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
  if (!ready()) {
    const auto start = std::chrono::steady_clock::now();
    impl_->changed.wait(lock, ready);
    impl_->seconds_waited +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (impl_->error && (!impl_->error_is_ordered || impl_->queue.empty())) {
    std::rethrow_exception(impl_->error);
  }
  if (impl_->cancelled || impl_->queue.empty()) return nullptr;
  std::shared_ptr<const Batch> batch = std::move(impl_->queue.front());
  impl_->queue.pop_front();
  return batch;
}

double GraphStream::seconds_waited() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->seconds_waited;
}

int GraphStream::peak_live_samples() const { return impl_->live->peak.load(); }

}  // namespace gp
