#pragma once

#include <stdexcept>
#include <string>

namespace gp {

/// Exit codes of every command; scripts may rely on them.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,  ///< command line or configuration
  kData = 3,
  kPlugin = 4,  ///< plugin or stage module
  kRunFailed = 5,
  kInterrupted = 130,
};

/// Base of all errors that end a command. The text says where, what was found, what was
/// expected and what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(ExitCode::kUsage, message) {}
};

class DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(ExitCode::kData, message) {}
};

class PluginError : public Error {
 public:
  explicit PluginError(const std::string& message) : Error(ExitCode::kPlugin, message) {}
};

class RunError : public Error {
 public:
  explicit RunError(const std::string& message) : Error(ExitCode::kRunFailed, message) {}
};

class InterruptedError : public Error {
 public:
  explicit InterruptedError(const std::string& message) : Error(ExitCode::kInterrupted, message) {}
};

/// One sample is bad (broken file, unsupported format). A stage throws it from `process`; the
/// sample becomes a reject with this text, and the source's `on_error` policy decides whether the
/// run goes on. Any other exception from a stage is a fault of the stage and stops the run.
class SampleError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gp
