#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/config.hpp"
#include "pipeline/sample.hpp"

namespace gp {

/// Recycles the pixel memory of batches: a fresh 3 MB block costs more page faults than the copy
/// into it. Thread-safe; slabs may outlive the pool.
class SlabPool {
 public:
  explicit SlabPool(std::size_t bytes) : shared_(std::make_shared<Shared>()), bytes_(bytes) {}
  std::shared_ptr<std::uint8_t[]> take();

 private:
  struct Shared {
    std::mutex mutex;
    std::vector<std::unique_ptr<std::uint8_t[]>> free;
  };
  std::shared_ptr<Shared> shared_;
  std::size_t bytes_;
};

/// Gathers samples, given in sequence order, into batches; keeps the books of each epoch; carries
/// out the source's policy for bad samples. One thread at a time.
class Batcher {
 public:
  struct Options {
    ImageShape shape;
    int batch_size = 1;
    bool keep_last = false;  ///< the last, partial batch of an epoch is delivered
    /// `shape` is not known: samples keep their images (Sample::keeps_image), and a batch ends
    /// where the shape changes, or before it is larger than kLargestMixedBatch.
    bool mixed_shapes = false;
    RejectPolicy policy;
    std::uint64_t epoch_size = 0;
    EpochCounts counts;  ///< of the first epoch, before the first sample
  };
  /// `emit` receives finished batches with the number of samples that they hold on to;
  /// `released` the number of samples that left without reaching one.
  using Emit = std::function<void(std::shared_ptr<Batch>)>;
  using Released = std::function<void(int samples)>;
  /// Bytes; of images that are larger each has a batch of its own.
  static constexpr std::size_t kLargestMixedBatch = std::size_t{64} << 20;

  Batcher(Options options, std::shared_ptr<SlabPool> slabs, Emit emit, Released released);

  /// Throws DataError when the policy says that the run stops at this sample, and RunError when
  /// the books of an epoch do not balance.
  void add(const std::shared_ptr<Sample>& sample);
  /// The end of an epoch all of whose samples were read before.
  void end_epoch(std::uint32_t epoch);

 private:
  /// Whether the batch that is being gathered ends before this sample.
  bool ends_before(const Sample& sample) const;
  void commit_reject(const Sample& sample);
  /// Hands the rejects so far over in a batch of no samples, before the run stops because of them.
  void flush_rejects();
  void finish_batch();
  /// One block of memory with the images that were gathered.
  std::shared_ptr<const std::uint8_t[]> gather_pixels(ImageShape shape);
  void finish_epoch();
  std::shared_ptr<Batch> new_batch();

  Options options_;
  std::shared_ptr<SlabPool> slabs_;
  Emit emit_;
  Released released_;
  std::vector<std::shared_ptr<Sample>> gathered_;
  std::vector<Reject> rejects_;
  EpochCounts counts_;
  std::uint32_t epoch_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace gp
