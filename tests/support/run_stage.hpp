#pragma once

#include <map>
#include <string>

#include "pipeline/stage_tester.hpp"

namespace gp::testing {

using gp::run_stage;
using gp::StageResult;

/// An instance of a transform with some parameters given.
inline std::unique_ptr<TransformStage> make_transform(
    const StageInfo& info, const std::map<std::string, Value>& given = {}) {
  std::unique_ptr<Stage> stage = info.create(make_params(info.params, given));
  return std::unique_ptr<TransformStage>(dynamic_cast<TransformStage*>(stage.release()));
}

/// Every byte random, from a fixed seed.
inline Image noise_image(int height, int width) {
  Image image(height, width);
  Rng rng(1, "noise image", 0);
  for (auto& value : image.pixels()) value = static_cast<std::uint8_t>(rng.next_u32());
  return image;
}

/// Ramps without jumps, the same as picture() in tests/plugins/fixtures/make_affine.py.
inline Image smooth_image(int height, int width) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < kChannels; ++c) {
        const int value = (x * 5 + y * 3 + c * 40 + x * y / 8) % 510;
        image.view().row(y)[x * kChannels + c] =
            static_cast<std::uint8_t>(value < 256 ? value : 510 - value);
      }
    }
  }
  return image;
}

}  // namespace gp::testing
