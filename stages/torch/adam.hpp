#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gp {

/// Adam (Kingma and Ba, 2015) over all parameters of one network, in one fused pass.
///
/// Epsilon is Keras's: 1e-7, added to the square root of the raw second moment (the paper's
/// "epsilon hat"); torch adds it after the bias correction.
class Adam {
 public:
  struct Options {
    double learning_rate = 2e-4;
    double beta1 = 0.5;
    double beta2 = 0.999;
    double epsilon = 1e-7;
  };
  Adam(torch::nn::Module& network, const Options& options);

  /// One update from the gradients, which are dropped, by `factor` of the learning rate. A
  /// parameter without a gradient is left alone, and its bias correction begins when it has one:
  /// layers that join later start like all others did.
  void step(double factor = 1);
  /// The Euclidean norm of all gradients, of zero dimensions; not finite where one of them is not.
  at::Tensor gradient_norm() const;

  /// Its state by name: "exp_avg.<parameter>", "exp_avg_sq.<parameter>", and "steps", the number of
  /// updates of each parameter, int64 [parameters] on the CPU. Not copies: writing to them brings a
  /// state back.
  std::map<std::string, at::Tensor> state() const;

 private:
  Options options_;
  at::Tensor steps_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> averages_;
  std::vector<at::Tensor> square_averages_;
};

}  // namespace gp
