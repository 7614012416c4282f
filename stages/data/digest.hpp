#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/files.hpp"

namespace gp {

/// A file that a source offers: its key and its size in bytes (-1: it cannot be read).
using DigestItem = std::pair<std::string, std::int64_t>;

/// Feeds the items, sorted by key, one a line as "key<TAB>size". Keys hold neither tabs nor line
/// ends. What decides over labels is fed by the caller.
void digest_items(std::vector<DigestItem> items, Sha256& sha);

}  // namespace gp
