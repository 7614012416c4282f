#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "pipeline/stage.hpp"

namespace gp {

/// What one stage made of one image.
struct StageResult {
  Image image;  ///< the output; the input where the stage passed it through
  bool passed_through = false;
  std::optional<std::string> dropped;  ///< the reason
};

/// Runs a transform on one image without a graph. Throws what the stage throws: SampleError for a
/// bad image, anything else for a fault of the stage.
StageResult run_stage(const TransformStage& stage, ConstImageView image, Rng rng);

/// The stages of one plugin or stage module, to be run on single images: for tests, also of those
/// who write stages outside this project.
///
///   auto tester = gp::StageTester::plugin("build/augment_invert.so");
///   gp::StageResult result = tester.run("augment.invert", {{"p", 1.0}}, image.view());
///
/// Plugins are run with guards around their buffers: writing outside is a PluginError.
class StageTester {
 public:
  /// Throws PluginError when the file can't be loaded.
  static StageTester plugin(const std::filesystem::path& file);
  static StageTester module(const std::filesystem::path& file);
  StageTester(StageTester&&) noexcept;
  ~StageTester();

  /// Makes the stage with `params`, defaults for the others, and runs it with random numbers that
  /// follow from `seed`. Throws ConfigError for wrong parameters, PluginError for an unknown stage
  /// or one that is no transform, else what the stage throws.
  StageResult run(const std::string& stage, const std::map<std::string, Value>& params,
                  ConstImageView image, std::uint64_t seed = 0) const;

 private:
  struct Impl;
  explicit StageTester(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gp
