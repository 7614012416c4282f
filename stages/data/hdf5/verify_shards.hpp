#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "stages/data/hdf5/manifest.hpp"

namespace gp {

class Log;

/// One thing that is wrong with a folder of shards.
struct ShardProblem {
  std::string file;         ///< name within the folder
  std::int64_t image = -1;  ///< number within the shard, where the damage is in one image's pixels
  std::string text;  ///< a full sentence part, as "image 17 ('images/0034309.jpg') is damaged"
};

/// Reads every byte of a folder of shards and compares it with what its manifest says: one flipped
/// bit anywhere is found, and ascribed to an image, to a table, to the metadata or to the manifest.
/// Returns what it found, in the order of the shards; empty: all is well. Throws DataError only
/// when there is no manifest at all. Shows its progress on `log`.
std::vector<ShardProblem> verify_shards(const std::filesystem::path& root, Log& log);

}  // namespace gp
