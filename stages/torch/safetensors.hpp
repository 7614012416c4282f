#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace gp {

/// A safetensors file (https://github.com/huggingface/safetensors): an 8-byte length, a JSON
/// header, raw little-endian tensors.
struct Safetensors {
  std::map<std::string, at::Tensor> tensors;    ///< CPU, contiguous
  std::map<std::string, std::string> metadata;  ///< `__metadata__`
};

/// Throws DataError naming the file and what is wrong with it (too short, header no JSON, offsets
/// outside the file or overlapping, unknown type).
Safetensors read_safetensors(const std::filesystem::path& path);

/// Temporary name, fsync, rename. Tensors are written in name order: same input, same bytes.
void write_safetensors(const std::filesystem::path& path, const Safetensors& contents);

}  // namespace gp
