#pragma once

#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "stages/torch/safetensors.hpp"

namespace gp {

/// Takes the tensors of a network for inference out of a file by name, and gathers what is wrong
/// with them, so that all of it is told at once. One thread.
class WeightLoader {
 public:
  explicit WeightLoader(const Safetensors& weights) : weights_(weights) {}

  /// A float32 tensor of this shape, finite; zeros in place of one that is not, which is a problem.
  at::Tensor take(const std::string& name, at::IntArrayRef shape);

  struct Folded {
    at::Tensor weight;  ///< float32 of the convolution's shape, channels_last
    at::Tensor bias;    ///< float32 [out]
  };
  /// The convolution CONV.weight [out, in, height, width] and the batch norm NORM.* after it
  /// (running statistics, eps 1e-3) as one convolution; folded in float64.
  Folded fold(const std::string& conv, const std::string& norm, at::IntArrayRef shape);

  /// Makes a problem of each tensor that was not taken; a batch norm's counter may be there.
  void refuse_others();
  /// Throws DataError with the problems, if any: "WHERE: not the weights of NETWORK: .. ADVICE".
  void finish(const std::string& where, const std::string& network,
              const std::string& advice) const;

 private:
  void problem(const std::string& name, const std::string& what) {
    problems_.push_back("tensor '" + name + "' " + what);
  }

  const Safetensors& weights_;
  std::set<std::string> taken_;
  std::vector<std::string> problems_;
};

}  // namespace gp
