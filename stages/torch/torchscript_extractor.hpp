#pragma once

#include <filesystem>
#include <memory>

#include "stages/torch/feature_extractor.hpp"

namespace gp {

/// Loads a network of the user's own as a feature extractor: a TorchScript file (torch.jit.save)
/// whose forward() takes float [N,3,size,size], RGB, and returns features, float [N,D].
///
/// Images are squashed by squash_bicubic and mapped linearly: 0 to `input.low`, 255 to
/// `input.high`; a mean and deviation of each channel belong into the module. Its distance is
/// called FD-<file name without ending>-<first 8 digits of its SHA-256>. A TorchScript file is a
/// program: load none that you do not trust.
///
/// Throws DataError naming the file when it is no TorchScript, or when forward() fails on two
/// images or returns anything but finite floats [2,D].
std::unique_ptr<FeatureExtractor> load_torchscript_extractor(const std::filesystem::path& file,
                                                             const TorchScriptInput& input);

}  // namespace gp
