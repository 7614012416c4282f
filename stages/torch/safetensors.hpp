#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace gp {

/// A safetensors file (https://github.com/huggingface/safetensors): an 8-byte length, a JSON
/// header, raw little-endian tensors. Types: F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL.
struct Safetensors {
  std::map<std::string, at::Tensor> tensors;    ///< CPU, contiguous
  std::map<std::string, std::string> metadata;  ///< `__metadata__`
};

/// Throws DataError naming the file and what is wrong with it (too short, header no JSON, offsets
/// outside the file or overlapping, unknown type). As strict as the reference implementation:
/// the tensors cover the data without holes, no name occurs twice.
Safetensors read_safetensors(const std::filesystem::path& path);

/// Temporary name, fsync, rename. Tensors may be on any device and of any layout; they are written
/// by falling element size and then by name, so that each is aligned and the same input gives the
/// same bytes. Throws RunError.
void write_safetensors(const std::filesystem::path& path, const Safetensors& contents);

}  // namespace gp
