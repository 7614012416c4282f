#include "pipeline/stage.hpp"

#include "pipeline/error.hpp"

namespace gp {

std::string to_string(Kind kind) {
  switch (kind) {
    case Kind::kNothing:
      return "nothing";
    case Kind::kBytes:
      return "bytes";
    case Kind::kImage:
      return "image";
    case Kind::kBatch:
      return "batch";
    case Kind::kSnapshot:
      return "snapshot";
  }
  return "?";
}

SizeDemand TransformStage::demand(const SizeDemand& /*of_output*/) const { return {}; }

std::string EvaluateStage::compare(const Comparison& /*comparison*/, const RunInfo& /*run*/,
                                   Log& /*log*/, std::stop_token /*stop*/) {
  throw ConfigError("this evaluate.* stage does not compare sets of images");
}

const std::vector<std::string>& SourceStage::class_names() const {
  static const std::vector<std::string> kNone;
  return kNone;
}

}  // namespace gp
