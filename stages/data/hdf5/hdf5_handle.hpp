#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

#include "pipeline/error.hpp"

// Private to stages/data/hdf5: nothing else sees <hdf5.h>.

namespace gp::hdf5 {

/// Held around every piece of code that calls HDF5. The library is not thread-safe and keeps one
/// state per process, so the lock is the process's too; it also stops the library from printing its
/// errors to stderr.
class Session {
 public:
  Session();

 private:
  std::lock_guard<std::mutex> lock_;
};

/// What HDF5 itself refused: bad data when reading; who writes makes a RunError of it.
class Failure : public DataError {
 public:
  using DataError::DataError;
};

/// Throws Failure: `what`, and why: what the system said where it refused to write, else below it
/// what HDF5 says, innermost first. Clears HDF5's stack.
[[noreturn]] void fail(const std::string& what);

/// Passes a result through, or throws when HDF5 says that it failed (a negative number).
template <class T>
T check(T result, const std::string& what) {
  if (result < 0) fail(what);
  return result;
}

/// An HDF5 identifier and the function that closes it. Made, moved and destroyed within a Session.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer, const std::string& what) : id_(check(id, what)), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1);
      close_ = other.close_;
    }
    return *this;
  }
  ~Handle() { reset(); }

  hid_t get() const { return id_; }
  operator hid_t() const { return id_; }
  /// Closes now; throws where closing fails (for files that means data not written).
  void close(const std::string& what) {
    if (id_ >= 0) check(close_(std::exchange(id_, -1)), what);
  }

 private:
  void reset() noexcept {
    if (id_ >= 0) close_(std::exchange(id_, -1));
  }

  hid_t id_ = -1;
  Close close_ = nullptr;
};

/// File access with the format pinned (HDF5 1.8's, the oldest with checksums on metadata), so that
/// a newer library writes the same bytes, and without file locks: files are renamed into place
/// when complete, and locks fail on read-only and network file systems.
Handle file_access();

/// A type for strings of `width` bytes, UTF-8, padded with zero bytes.
Handle string_type(std::size_t width, const std::string& what);

}  // namespace gp::hdf5
