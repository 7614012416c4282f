#pragma once

#include <string>

#include "pipeline/config.hpp"

namespace gp {

/// The graph of a configuration as text for Graphviz (dot), or for mermaid, which GitHub draws:
/// stages, the kinds on their edges, what runs as one task, limits. Random stages are dashed.
std::string graph_to_dot(const Config& config);
std::string graph_to_mermaid(const Config& config);

}  // namespace gp
