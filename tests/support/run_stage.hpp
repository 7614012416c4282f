#pragma once

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp::testing {

/// What one stage made of one sample.
struct StageResult {
  Image image;  ///< the output; the input where the stage passed it through
  bool passed_through = false;
  std::optional<std::string> dropped;  ///< the reason
};

/// Runs a transform on one image without a graph.
inline StageResult run_stage(const TransformStage& stage, ConstImageView in, Rng rng) {
  class Output : public StageOutput {
   public:
    ImageView image(int height, int width) override {
      result.image.reshape(height, width);
      // What a stage leaves unwritten shows.
      std::memset(result.image.pixels().data(), 0xEE, result.image.pixels().size());
      return result.image.view();
    }
    std::vector<std::uint8_t>& bytes() override { return bytes_; }
    void pass_through() override { result.passed_through = true; }
    void set_geometry(const Geometry&) override {}
    void drop(std::string reason) override { result.dropped = std::move(reason); }
    void count(const std::string&) override {}
    StageResult result;

   private:
    std::vector<std::uint8_t> bytes_;
  };
  Output out;
  const SampleInfo sample{"sample", 1, -1, 0};
  stage.process({sample, {}, in, Geometry::whole(in.shape())}, rng, out);
  if (out.result.passed_through) {
    out.result.image.reshape(in.height, in.width);
    copy_image(in, out.result.image.view());
  }
  return std::move(out.result);
}

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
