#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace gp {

/// How far a network that grows with its training has come.
struct GrowthPoint {
  int resolution = 0;  ///< pixels a side
  double fade = 1;     ///< share of the newest layers in the result, in (0, 1]
  bool operator==(const GrowthPoint&) const = default;
};

/// What trainers and snapshots need of a generator, whatever its architecture.
class GeneratorNetwork : public torch::nn::Module {
 public:
  /// z: float [N,latent]; labels: int64 [N], undefined for a model without classes. Returns
  /// [N,3,R,R] in [-1,1]; R is the growth point's resolution where the network grows.
  virtual at::Tensor generate(const at::Tensor& z, const at::Tensor& labels) = 0;
  virtual void set_growth(const GrowthPoint& /*point*/) {}
};

/// What they need of a discriminator.
class DiscriminatorNetwork : public torch::nn::Module {
 public:
  /// images: [N,3,R,R] in [-1,1]; labels as above. Returns logits, float [N]; above 0: real.
  /// Without dropout.
  virtual at::Tensor judge(const at::Tensor& images, const at::Tensor& labels) = 0;
  virtual void set_growth(const GrowthPoint& /*point*/) {}
};

/// Parameters and buffers by name. Not copies.
std::map<std::string, at::Tensor> state_of(const torch::nn::Module& network);

/// Copies parameters and buffers between two networks of the same configuration.
void copy_state(const torch::nn::Module& from, torch::nn::Module& to);

/// Puts a network's buffers (running statistics) back as they were when it was made: for a forward
/// pass that is made a second time.
class KeptBuffers {
 public:
  explicit KeptBuffers(const torch::nn::Module& network);
  ~KeptBuffers();
  KeptBuffers(const KeptBuffers&) = delete;
  KeptBuffers& operator=(const KeptBuffers&) = delete;

 private:
  std::vector<at::Tensor> buffers_, kept_;
};

}  // namespace gp
