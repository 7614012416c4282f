#include "stages/torch/op_profile.hpp"

#include <torch/torch.h>

#include <stdexcept>
#include <string_view>

#include "stages/torch/clock.hpp"

namespace gp {
namespace {

thread_local OpProfile* active = nullptr;

/// The sizes of the first three tensors tell which layer it is.
std::string description(const at::RecordFunction& function) {
  std::string_view name = function.name();
  for (const std::string_view prefix : {"aten::", "autograd::engine::evaluate_function: "}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  std::string text(name);
  int tensors = 0;
  for (const c10::IValue& input : function.inputs()) {
    if (!input.isTensor() || !input.toTensor().defined() || input.toTensor().dim() == 0) continue;
    if (++tensors > 3) break;
    const char* separator = " [";
    for (const std::int64_t size : input.toTensor().sizes()) {
      text += separator;
      text += std::to_string(size);
      separator = ",";
    }
    text += ']';
  }
  return text;
}

}  // namespace

struct OpProfile::Call : at::ObserverContext {
  std::string name;
  double start = 0;
  double inner = 0;  ///< seconds in calls that it made
};

OpProfile::OpProfile()
    : handle_(at::addThreadLocalCallback(
          at::RecordFunctionCallback(&OpProfile::begin, &OpProfile::end).needsInputs(true))) {
  if (active != nullptr) {
    at::removeCallback(handle_);
    throw std::logic_error("OpProfile: there is one on this thread already");
  }
  active = this;
}

OpProfile::~OpProfile() {
  at::removeCallback(handle_);
  active = nullptr;
}

std::unique_ptr<at::ObserverContext> OpProfile::begin(const at::RecordFunction& function) {
  if (active == nullptr) return nullptr;
  auto call = std::make_unique<Call>();
  call->name = description(function);
  active->open_.push_back(call.get());
  call->start = now();
  return call;
}

void OpProfile::end(const at::RecordFunction& /*function*/, at::ObserverContext* context) {
  auto* const call = static_cast<Call*>(context);
  if (active == nullptr || call == nullptr || active->open_.empty()) return;
  const double seconds = now() - call->start;
  active->open_.pop_back();
  if (!active->open_.empty()) active->open_.back()->inner += seconds;
  Total& total = active->totals_[call->name];
  ++total.calls;
  total.seconds += seconds - call->inner;
}

}  // namespace gp
