#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/image.hpp"
#include "stages/torch/feature_set.hpp"

namespace gp {

/// A picture of fakes with the training image nearest to each under it: to see copies with one's
/// own eyes.
class NearestPicture {
 public:
  static constexpr int kColumns = 8;

  /// `fakes`: uint8 NHWC of `shape`, their number that of the rows of `features` [n, D].
  NearestPicture(std::vector<std::uint8_t> fakes, ImageShape shape, at::Tensor features);

  int fakes() const { return static_cast<int>(features_.size(0)); }
  /// Looks the neighbours up among the vectors that are kept of the training images.
  void find(const FeatureSet& train);
  /// Goes through the training images, in the order in which `train` had them, for the neighbours'
  /// pixels; complete() when it has them all.
  void see(const Batch& batch);
  bool complete() const { return found_ && wanted_.empty(); }
  /// Rows of kColumns: fakes, under them their neighbours, then the next fakes; white where there
  /// are no more.
  Image draw() const;

 private:
  ImageShape shape_;
  std::vector<std::uint8_t> fakes_;
  std::vector<std::uint8_t> neighbours_;
  at::Tensor features_;
  bool found_ = false;
  std::multimap<std::int64_t, int> wanted_;  ///< place of a training image -> number of a fake
  std::int64_t place_ = 0;                   ///< of the next image to see
};

}  // namespace gp
