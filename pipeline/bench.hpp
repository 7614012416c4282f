#pragma once

#include <string>
#include <vector>

#include "pipeline/runner.hpp"

namespace gp {

struct BenchRequest {
  double seconds = 10;  ///< to measure, after a warm-up
  std::string until;    ///< address of the last data stage that takes part; empty: all and the end
};

/// What one stage did while it was measured. The time that its threads could have given it adds up:
/// busy + starved + blocked = 1.
struct StageBench {
  std::string name;              ///< address
  double images_per_second = 0;  ///< that it would reach with its threads to itself; 0: unknown
  double busy = 0;               ///< at work
  double starved = 0;            ///< its threads were at work for stages before it, or it waited
  double blocked = 0;            ///< at work for stages after it, or the end held every sample
};

struct BenchResult {
  double images_per_second = 0;
  double seconds = 0;
  std::uint64_t images = 0;
  int data_threads = 1;
  int end_threads = 0;     ///< 0: no end took part
  std::string bottleneck;  ///< a stage's address, or kGraph
  std::string advice;      ///< one sentence: what the bottleneck is and which setting to change
  std::vector<StageBench> stages;

  /// Where the bottleneck is none of the stages, but handing samples over between them.
  static constexpr const char* kGraph = "graph";
};

/// Runs a configuration for a while, as `run` does but without writing anything, and says what its
/// stages cost. A trainer trains a model that is thrown away; evaluators are left out; a sink is
/// not run, nor is a trainer with `until`. Throws gp::Error.
BenchResult bench_pipeline(const LoadedConfig& loaded, const BenchRequest& request, Log& log);

/// Where the time of a training step goes; no data is read. Throws ConfigError when the
/// configuration has no trainer that can say.
StepProfile profile_trainer(const LoadedConfig& loaded, double seconds, Log& log);

std::string to_text(const BenchResult& result);
/// {"images_per_second", "seconds", "images", "threads": {"data", "end"}, "bottleneck", "advice",
///  "stages": [{"name", "images_per_second", "busy", "starved", "blocked"}]}
std::string to_json(const BenchResult& result);

std::string to_text(const StepProfile& profile);
/// {"trainer", "seconds_per_step", "images_per_second", "peak_memory_bytes",
///  "operations": [{"operation", "calls", "seconds"}]}
std::string to_json(const StepProfile& profile);

}  // namespace gp
