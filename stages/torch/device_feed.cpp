#include "stages/torch/device_feed.hpp"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

namespace gp {

DeviceFeed::DeviceFeed(BatchStream& stream, at::Device device, bool ahead)
    : stream_(stream), device_(device), ahead_(ahead) {}

DeviceFeed::Item DeviceFeed::take() {
  Item item;
  item.batch = stream_.next();
  if (!item.batch || item.batch->count == 0) return item;
  const Batch& batch = *item.batch;
  item.pixels =
      at::from_blob(const_cast<std::uint8_t*>(batch.pixels.get()),
                    {batch.count, batch.shape.height, batch.shape.width, kChannels}, at::kByte);
  item.labels = at::tensor(batch.labels, at::kInt).to(at::kLong);
  if (device_.is_cpu()) return item;
  // torch's pinned memory is not given out again before the copies from it are done.
  const c10::impl::VirtualGuardImpl guard(device_.type());
  if (!side_) side_ = guard.getStreamFromGlobalPool(device_);
  const c10::StreamGuard on_side(*side_);
  item.pixels = item.pixels.pin_memory().to(device_, /*non_blocking=*/true);
  copied_.emplace(device_.type());
  copied_->record(on_side.current_stream());
  return item;
}

void DeviceFeed::fetch() {
  if (!ahead_ || fetched_) return;
  try {
    item_ = take();
  } catch (...) {
    error_ = std::current_exception();
  }
  fetched_ = true;
}

DeviceFeed::Item DeviceFeed::next() {
  if (fetched_) {
    fetched_ = false;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  } else {
    item_ = take();
  }
  if (copied_) {
    const c10::impl::VirtualGuardImpl guard(device_.type());
    const c10::Stream computes = guard.getStream(device_);
    copied_->block(computes);
    item_.pixels.record_stream(computes);  // it is of the other stream's memory
    copied_.reset();
  }
  return std::exchange(item_, {});
}

}  // namespace gp
