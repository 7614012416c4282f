#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

/// Takes what a stage writes.
class MemoryOutput : public StageOutput {
 public:
  ImageView image(int height, int width) override {
    pixels.reshape(height, width);
    return pixels.view();
  }
  std::vector<std::uint8_t>& bytes() override {
    data.clear();
    return data;
  }
  void pass_through() override { passed = true; }
  void set_geometry(const Geometry& value) override { geometry = value; }
  void drop(std::string /*reason*/) override { dropped = true; }
  void count(const std::string& event) override { ++events[event]; }

  Image pixels;
  std::vector<std::uint8_t> data;
  std::optional<Geometry> geometry;
  bool passed = false;
  bool dropped = false;
  std::map<std::string, int> events;
};

/// The transform that `info` makes with `given` over its defaults.
inline std::unique_ptr<TransformStage> make_transform(const StageInfo& info,
                                                      const std::map<std::string, Value>& given) {
  std::unique_ptr<Stage> stage = info.create(make_params(info.params, given));
  return std::unique_ptr<TransformStage>(&dynamic_cast<TransformStage&>(*stage.release()));
}

}  // namespace gp
