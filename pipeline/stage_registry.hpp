#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/stage.hpp"

namespace gp {

/// The stages that are known to one command: built in, from modules, from plugins.
/// Filled on one thread before anything runs; read-only afterwards.
class StageRegistry {
 public:
  /// Throws PluginError naming both origins when the name is taken.
  void add(StageInfo info);
  const StageInfo* find(std::string_view name) const;
  std::vector<const StageInfo*> list() const;
  /// Origin given to the stages added from now on.
  void set_origin(std::string origin) { origin_ = std::move(origin); }

 private:
  std::map<std::string, StageInfo, std::less<>> stages_;
  std::string origin_ = "built in";
};

}  // namespace gp
