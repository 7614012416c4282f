#include "pipeline/stage_registry.hpp"

#include "pipeline/error.hpp"

namespace gp {

void StageRegistry::add(StageInfo info) {
  info.origin = origin_;
  const auto [position, added] = stages_.try_emplace(info.name, info);
  if (!added) {
    throw PluginError("stage '" + info.name + "' is defined twice: by " + position->second.origin +
                      " and by " + origin_ +
                      ". Load only one of them, or rename the stage in one.");
  }
}

const StageInfo* StageRegistry::find(std::string_view name) const {
  const auto found = stages_.find(name);
  return found == stages_.end() ? nullptr : &found->second;
}

std::vector<const StageInfo*> StageRegistry::list() const {
  std::vector<const StageInfo*> all;
  all.reserve(stages_.size());
  for (const auto& [name, info] : stages_) all.push_back(&info);
  return all;
}

}  // namespace gp
