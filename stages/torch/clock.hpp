#pragma once

#include <chrono>

namespace gp {

/// Seconds of a clock that only goes forward; differences count.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace gp
