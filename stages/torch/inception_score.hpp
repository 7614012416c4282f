#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace gp {

struct InceptionScore {
  double mean = 0;       ///< over the splits; from 1 to the number of classes
  double deviation = 0;  ///< of the splits' scores, divided by their number
};

/// The Inception score (Salimans et al. 2016): exp of the mean divergence KL(p(y|x) || p(y)) of an
/// image's class probabilities from those of all images of its split, mean over random splits.
///
/// The same as torch-fidelity's with the same seed (RandomSubsets deals the images to the splits).
/// Takes any number of images: what is kept is one row of probabilities a split, float64. Give it
/// class scores without bias, as torch-fidelity does and the TensorFlow original did.
class InceptionScoreAccumulator {
 public:
  static constexpr int kSplits = 10;

  /// `count` images will come. Throws DataError when there are fewer than splits.
  explicit InceptionScoreAccumulator(std::int64_t count, int splits = kSplits,
                                     std::uint32_t seed = 2020);
  /// `logits`: class scores before softmax [n, C] of the next n images, any floating type. Throws
  /// DataError when C differs from the first call's or there are more than `count` in all.
  void add(const at::Tensor& logits);
  /// Throws DataError when not all images have come.
  InceptionScore finish() const;

 private:
  std::vector<std::int64_t> split_of_;  ///< by the image's number
  std::int64_t added_ = 0;
  at::Tensor images_;         ///< float64 [splits], how many each will have
  at::Tensor probabilities_;  ///< float64 [splits, C], sums
  at::Tensor negentropies_;   ///< float64 [splits], sums of sum_y p log p
};

}  // namespace gp
