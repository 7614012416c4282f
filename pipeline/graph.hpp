#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>

#include "pipeline/batch.hpp"
#include "pipeline/batcher.hpp"
#include "pipeline/sample_order.hpp"
#include "pipeline/transform_chain.hpp"

namespace gp {

struct GraphOptions {
  int threads = 1;
  int max_in_flight = 512;   ///< samples between source and trainer
  std::uint32_t epochs = 1;  ///< the stream ends after this many, counted from epoch 0
  /// Where its last sample was read already, an epoch has its end to come: that is delivered first.
  StreamPosition start;
  int batch_size = 1;
  bool keep_last = false;
  RejectPolicy policy;
  /// Where the images differ in size, a batch ends where the shape changes (see Batcher::Options);
  /// otherwise they are refused.
  bool mixed_shapes = false;
  /// The images are not kept and may be of any size: batches only count them. For measuring.
  bool discard = false;
  Trace* trace = nullptr;   ///< outlives the stream; null: none
  std::string end = "end";  ///< what the trace calls the thread that calls next()
};

/// What a stream has done so far besides its stages' work, in seconds where not said otherwise.
struct StreamTimes {
  double batching = 0;        ///< gathering samples into batches
  double blocked = 0;         ///< every sample allowed in flight was: the end held them
  double waited = 0;          ///< next() waited for a batch
  std::uint64_t batched = 0;  ///< samples
};

/// The oneTBB flow graph: source -> limiter -> chain of transforms -> sequencer -> batcher ->
/// queue.
///
///     input_node -> limiter_node -> function_node (one per segment) -> sequencer_node
///                        ^                                                 |
///                        +------ credits ------ BatchStream::next() <- function_node (batcher)
///
/// It runs on `threads` threads of its own, one of which drives it. `next` is called by one thread
/// that is none of these. Credits return when the last owner lets a batch go.
///
/// `source` and `chain` must outlive the stream; batches need not be gone before it.
class GraphStream : public BatchStream {
 public:
  GraphStream(const SourceStage& source, const TransformChain& chain,
              std::shared_ptr<SampleOrder> order, GraphOptions options);
  /// Cancels what is still running and joins its threads.
  ~GraphStream() override;

  std::shared_ptr<const Batch> next() override;
  double seconds_waited() const override;
  StreamTimes times() const;

  /// Stops the stream: `next` returns null from now on. Any thread.
  void cancel();

  /// The most samples that were alive at one time: at most max_in_flight + 1.
  int peak_live_samples() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gp
