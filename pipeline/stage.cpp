#include "pipeline/stage.hpp"

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

const std::vector<std::string>& SourceStage::class_names() const {
  static const std::vector<std::string> kNone;
  return kNone;
}

}  // namespace gp
