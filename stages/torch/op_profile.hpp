#pragma once

#include <ATen/record_function.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gp {

/// Own times of torch's operations, by name and sizes of their inputs, for as long as it lives.
///
/// Counts what the thread that made it does; a CPU's backward pass runs there, too. On a GPU these
/// are times of starting operations, not of their work. One at a time.
class OpProfile {
 public:
  struct Total {
    std::uint64_t calls = 0;
    double seconds = 0;  ///< without the operations that it called
  };

  OpProfile();
  ~OpProfile();
  OpProfile(const OpProfile&) = delete;
  OpProfile& operator=(const OpProfile&) = delete;

  /// "convolution_backward [64,32,128,128] [64,64,64,64] [64,32,4,4]" -> total.
  const std::map<std::string, Total>& totals() const { return totals_; }

 private:
  struct Call;
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function);
  static void end(const at::RecordFunction& function, at::ObserverContext* context);

  at::CallbackHandle handle_;
  std::vector<Call*> open_;  ///< the calls that are running, outermost first
  std::map<std::string, Total> totals_;
};

}  // namespace gp
