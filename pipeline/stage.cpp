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

std::unique_ptr<SavedTraining> TrainStage::load_training(const std::filesystem::path& run_directory,
                                                         Log& /*log*/) {
  throw ConfigError(run_directory.string() +
                    ": this kind of training cannot be resumed; start it again");
}

void TrainStage::export_generator(const std::filesystem::path& checkpoint,
                                  const std::filesystem::path& /*file*/) {
  throw ConfigError(checkpoint.string() + ": this kind of training has no generator to export");
}

std::string EvaluateStage::compare(const Comparison& /*comparison*/, const RunInfo& /*run*/,
                                   Log& /*log*/, std::stop_token /*stop*/) {
  throw ConfigError("this evaluate.* stage does not compare sets of images");
}

const std::vector<std::string>& SourceStage::class_names() const {
  static const std::vector<std::string> kNone;
  return kNone;
}

}  // namespace gp
