#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace gp {

/// `auto`, `cpu`, `cuda` or `cuda:N` -> a device that works. `auto` is the first GPU where an
/// NVIDIA driver with a GPU is present, else the CPU.
///
/// The CUDA half of libtorch is opened here, when it is asked for, so that machines without a GPU
/// need none of it. Throws ConfigError for an unknown name, RunError when the GPU cannot be used.
at::Device resolve_device(const std::string& name);

/// Whether the device has instructions for bf16 (CPU: AVX512_BF16 or AMX; GPU: compute capability
/// 8.0). Without them a step in bf16 takes many times as long as in fp32.
bool has_native_bf16(at::Device device);

/// Whether a step is also faster in bf16 than in fp32. It is not on an Intel processor without AMX
/// (Cooper Lake, or where a virtual machine hides it): the seed's step took 1.5 times as long in
/// bf16 there, with AMX or AVX512_BF16 of AMD two thirds or less.
bool is_faster_in_bf16(at::Device device);

/// `auto`, `fp32` or `bf16` -> whether to compute in bf16. `auto`: where that is faster.
bool resolve_bf16(const std::string& precision, at::Device device);

}  // namespace gp
