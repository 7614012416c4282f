#include "pipeline/evaluation_record.hpp"

#include <nlohmann/json.hpp>

namespace gp {
namespace {

using Json = nlohmann::ordered_json;

std::filesystem::path in(const std::filesystem::path& directory) {
  return directory.empty() ? directory : directory / "evaluation.jsonl";
}

}  // namespace

EvaluationRecord::EvaluationRecord(const std::filesystem::path& directory, Log& log)
    : file_(in(directory), log) {}

void EvaluationRecord::resume_after(std::uint64_t step) {
  const std::lock_guard lock(mutex_);
  file_.keep_lines([&](std::uint64_t, const std::string& line) {
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("step") || !record["step"].is_number_unsigned()) {
      return false;
    }
    const std::string stage = record.value("stage", "");
    const auto at = record["step"].get<std::uint64_t>();
    return at <= step && done_.emplace(stage, at).second;
  });
}

bool EvaluationRecord::has(const std::string& stage, std::uint64_t step) const {
  const std::lock_guard lock(mutex_);
  return done_.count({stage, step}) > 0;
}

void EvaluationRecord::add(const std::string& stage, const std::string& record) {
  Json line = Json::parse(record);
  line["stage"] = stage;
  const std::lock_guard lock(mutex_);
  done_.emplace(stage, line.value("step", std::uint64_t{0}));
  file_.add(line.dump());
}

void EvaluationRecord::sync() {
  const std::lock_guard lock(mutex_);
  file_.sync();
}

}  // namespace gp
