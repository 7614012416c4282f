#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// Why a sample did not reach its batch.
struct Reject {
  std::string key;
  std::string stage;  ///< address of the stage that gave it up
  std::string reason;
  bool dropped = false;  ///< a stage dropped it on purpose; not an error
};

/// What became of the samples of one epoch so far.
/// At its end trained + rejected + dropped_by_stage + dropped_last == read.
struct EpochCounts {
  std::uint64_t read = 0;
  std::uint64_t batched = 0;
  std::uint64_t rejected = 0;
  std::uint64_t dropped_by_stage = 0;
  std::uint64_t dropped_last = 0;  ///< of the last, partial batch
  bool balanced() const { return batched + rejected + dropped_by_stage + dropped_last == read; }
  bool operator==(const EpochCounts&) const = default;
};

/// Where in the data a stream starts.
struct StreamPosition {
  std::uint32_t epoch = 0;   ///< counted from 0
  std::uint64_t next = 0;    ///< position in the epoch's order
  EpochCounts counts = {};   ///< of the epoch, up to `next`
  std::uint64_t images = 0;  ///< in batches so far, over all epochs: says which phase it is
  bool operator==(const StreamPosition&) const = default;
};

/// `count` images of one shape, uint8 NHWC, and where in the data they end. Immutable once handed
/// over. Letting go of it gives its places in the pipeline back: that is the backpressure. Shapes
/// differ between batches only where the end takes that (EndStage::takes_mixed_shapes).
///
/// Each epoch ends with a batch of count 0 (`end_of_epoch`), which carries the epoch's totals and
/// the rejects after its last full batch. A batch of count 0 without that flag carries rejects
/// only.
struct Batch {
  ImageShape shape;
  int count = 0;
  std::shared_ptr<const std::uint8_t[]> pixels;  ///< count * shape.bytes()
  std::vector<std::string> keys;                 ///< [count]
  std::vector<std::int32_t> labels;              ///< [count]; -1: no label
  std::uint32_t epoch = 0;                       ///< counted from 0
  std::uint64_t next = 0;  ///< position in the epoch's order after the last sample: resume here
  bool end_of_epoch = false;
  std::vector<Reject> rejects;  ///< since the batch before, in the data's order
  EpochCounts counts;           ///< of the epoch, up to `next`

  ConstImageView image(int i) const {
    return {pixels.get() + static_cast<std::size_t>(i) * shape.bytes(), shape.height, shape.width,
            static_cast<std::ptrdiff_t>(shape.width) * kChannels};
  }
};

/// Where an end stage gets its batches. Used by one thread; `next` blocks.
class BatchStream {
 public:
  virtual ~BatchStream() = default;
  /// The next batch, or null after the last epoch or after a cancel. Rethrows what went wrong in
  /// the pipeline.
  virtual std::shared_ptr<const Batch> next() = 0;
  /// Seconds that `next` has waited so far.
  virtual double seconds_waited() const { return 0; }
};

/// Batches from memory, for testing an end stage without a pipeline.
class VectorBatchStream : public BatchStream {
 public:
  explicit VectorBatchStream(std::vector<std::shared_ptr<const Batch>> batches)
      : batches_(std::move(batches)) {}
  std::shared_ptr<const Batch> next() override {
    return position_ < batches_.size() ? batches_[position_++] : nullptr;
  }

 private:
  std::vector<std::shared_ptr<const Batch>> batches_;
  std::size_t position_ = 0;
};

}  // namespace gp
