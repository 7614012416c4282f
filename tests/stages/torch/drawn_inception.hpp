#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "stages/torch/safetensors.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp::testing {

/// The weights of fixtures/make_inception_v3.py, bit for bit: splitmix64 from the FNV-1a hash of
/// the tensor's name.
inline at::Tensor draw(const std::string& name, const std::vector<std::int64_t>& shape) {
  std::uint64_t seed = 0xCBF29CE484222325U;
  for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  at::Tensor result = at::empty(shape, at::kFloat);
  const auto fan_in = static_cast<double>(result.numel() / shape[0]);
  const bool positive = name.find(".bn.weight") != std::string::npos ||
                        name.find(".bn.running_var") != std::string::npos;
  float* values = result.data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    std::uint64_t z = seed + static_cast<std::uint64_t>(i + 1) * 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    const double u = static_cast<double>(z >> 40) / (1 << 24);
    const double value = shape.size() > 1 ? (2 * u - 1) * std::sqrt(6 / fan_in)
                         : positive       ? 0.75 + 0.5 * u
                                          : 0.4 * u - 0.2;
    values[i] = static_cast<float>(value);
  }
  return result;
}

/// Every tensor of pytorch-fid's state dict, in memory and as a file.
class DrawnWeights {
 public:
  DrawnWeights() {
    Safetensors& all = weights_;
    const auto conv = [&](const std::string& prefix, std::int64_t out, std::int64_t in,
                          std::int64_t height, std::int64_t width) {
      all.tensors[prefix + ".conv.weight"] =
          draw(prefix + ".conv.weight", {out, in, height, width});
      for (const char* name : {".bn.weight", ".bn.bias", ".bn.running_mean", ".bn.running_var"}) {
        all.tensors[prefix + name] = draw(prefix + name, {out});
      }
    };
    conv("Conv2d_1a_3x3", 32, 3, 3, 3);
    conv("Conv2d_2a_3x3", 32, 32, 3, 3);
    conv("Conv2d_2b_3x3", 64, 32, 3, 3);
    conv("Conv2d_3b_1x1", 80, 64, 1, 1);
    conv("Conv2d_4a_3x3", 192, 80, 3, 3);
    const std::vector<std::tuple<std::string, std::int64_t, std::int64_t>> as = {
        {"Mixed_5b", 192, 32}, {"Mixed_5c", 256, 64}, {"Mixed_5d", 288, 64}};
    for (const auto& [name, in, pool] : as) {
      conv(name + ".branch1x1", 64, in, 1, 1);
      conv(name + ".branch5x5_1", 48, in, 1, 1);
      conv(name + ".branch5x5_2", 64, 48, 5, 5);
      conv(name + ".branch3x3dbl_1", 64, in, 1, 1);
      conv(name + ".branch3x3dbl_2", 96, 64, 3, 3);
      conv(name + ".branch3x3dbl_3", 96, 96, 3, 3);
      conv(name + ".branch_pool", pool, in, 1, 1);
    }
    conv("Mixed_6a.branch3x3", 384, 288, 3, 3);
    conv("Mixed_6a.branch3x3dbl_1", 64, 288, 1, 1);
    conv("Mixed_6a.branch3x3dbl_2", 96, 64, 3, 3);
    conv("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3);
    const std::vector<std::pair<std::string, std::int64_t>> cs = {
        {"Mixed_6b", 128}, {"Mixed_6c", 160}, {"Mixed_6d", 160}, {"Mixed_6e", 192}};
    for (const auto& [name, wide] : cs) {
      conv(name + ".branch1x1", 192, 768, 1, 1);
      conv(name + ".branch7x7_1", wide, 768, 1, 1);
      conv(name + ".branch7x7_2", wide, wide, 1, 7);
      conv(name + ".branch7x7_3", 192, wide, 7, 1);
      conv(name + ".branch7x7dbl_1", wide, 768, 1, 1);
      conv(name + ".branch7x7dbl_2", wide, wide, 7, 1);
      conv(name + ".branch7x7dbl_3", wide, wide, 1, 7);
      conv(name + ".branch7x7dbl_4", wide, wide, 7, 1);
      conv(name + ".branch7x7dbl_5", 192, wide, 1, 7);
      conv(name + ".branch_pool", 192, 768, 1, 1);
    }
    conv("Mixed_7a.branch3x3_1", 192, 768, 1, 1);
    conv("Mixed_7a.branch3x3_2", 320, 192, 3, 3);
    conv("Mixed_7a.branch7x7x3_1", 192, 768, 1, 1);
    conv("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7);
    conv("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1);
    conv("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3);
    const std::vector<std::pair<std::string, std::int64_t>> es = {{"Mixed_7b", 1280},
                                                                  {"Mixed_7c", 2048}};
    for (const auto& [name, in] : es) {
      conv(name + ".branch1x1", 320, in, 1, 1);
      conv(name + ".branch3x3_1", 384, in, 1, 1);
      conv(name + ".branch3x3_2a", 384, 384, 1, 3);
      conv(name + ".branch3x3_2b", 384, 384, 3, 1);
      conv(name + ".branch3x3dbl_1", 448, in, 1, 1);
      conv(name + ".branch3x3dbl_2", 384, 448, 3, 3);
      conv(name + ".branch3x3dbl_3a", 384, 384, 1, 3);
      conv(name + ".branch3x3dbl_3b", 384, 384, 3, 1);
      conv(name + ".branch_pool", 192, in, 1, 1);
    }
    all.tensors["fc.weight"] = draw("fc.weight", {1008, 2048});
    all.tensors["fc.bias"] = draw("fc.bias", {1008});
    file_ = folder_.path() / "inception_v3.safetensors";
    write_safetensors(file_, all);
  }
  const Safetensors& weights() const { return weights_; }
  const std::filesystem::path& file() const { return file_; }

 private:
  TemporaryFolder folder_;
  Safetensors weights_;
  std::filesystem::path file_;
};

}  // namespace gp::testing
