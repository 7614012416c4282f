#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <exception>
#include <memory>
#include <optional>

#include "pipeline/batch.hpp"

namespace gp {

/// The batches of a stream, their pixels on the trainer's device. One thread.
///
/// On a device with streams of work (a GPU) the next batch is fetched and copied, from pinned
/// memory and on a stream of its own, while the device computes on the one before. On the CPU
/// nothing is copied: the pixels are the batch's own.
class DeviceFeed {
 public:
  struct Item {
    std::shared_ptr<const Batch> batch;  ///< null where the stream has ended
    at::Tensor pixels;  ///< uint8 [N,H,W,3] on the device; on the CPU valid as long as `batch` is
    at::Tensor labels;  ///< int64 [N] on the CPU
  };
  /// `ahead`: whether to fetch before it is asked for.
  DeviceFeed(BatchStream& stream, at::Device device, bool ahead);

  /// As BatchStream::next(), exceptions included: those of a batch that was fetched ahead come when
  /// it is asked for.
  Item next();
  /// To be called when the device has been given the work of the batch before: where it works
  /// ahead, waits for the next batch and starts copying it.
  void fetch();

 private:
  Item take();

  BatchStream& stream_;
  at::Device device_;
  bool ahead_;
  bool fetched_ = false;
  Item item_;
  std::exception_ptr error_;
  std::optional<c10::Stream> side_;   ///< that copies
  std::optional<c10::Event> copied_;  ///< of item_, where it is copied on another stream
};

}  // namespace gp
