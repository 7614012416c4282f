#pragma once

#include <cstdint>
#include <filesystem>

#include "pipeline/stage.hpp"

namespace gp {

/// A collection may hold anything under any name, and memory is taken for all of an item, bytes.
constexpr std::int64_t kLargestItem = std::int64_t{1} << 30;

/// Reads a source's file into out.bytes(). A file that is missing or cannot be read is a bad sample
/// (SampleError), not the end of the run.
void read_item(const std::filesystem::path& path, StageOutput& out);

/// Size in bytes, -1 where the file is missing or unreadable.
std::int64_t file_size_or_none(const std::filesystem::path& path);

}  // namespace gp
