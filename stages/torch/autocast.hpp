#pragma once

#include <ATen/autocast_mode.h>

namespace gp {

/// Mixed precision for the forward pass in one scope: convolutions and matrix products take bf16
/// copies of their fp32 inputs; weights, statistics and sums stay fp32.
///
/// torch keeps the bf16 copies of weights until its cache is cleared, which is done here when the
/// outermost scope ends. So: one scope around each forward pass, none around an optimiser step, or
/// the next forward would see the weights from before the update. Belongs to the thread.
class AutocastScope {
 public:
  AutocastScope(at::DeviceType device, bool enabled)
      : device_(device),
        enabled_before_(at::autocast::is_autocast_enabled(device)),
        dtype_before_(at::autocast::get_autocast_dtype(device)) {
    at::autocast::set_autocast_enabled(device_, enabled);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_dtype(device_, dtype_before_);
    at::autocast::set_autocast_enabled(device_, enabled_before_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  at::DeviceType device_;
  bool enabled_before_;
  at::ScalarType dtype_before_;
};

}  // namespace gp
