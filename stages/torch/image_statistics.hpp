#pragma once

#include <ATen/core/Tensor.h>

namespace gp {

/// Cheap measures of one batch of images, for BalanceMonitor. What a batch has no measure of (one
/// image alone) is NaN.
struct ImageStatistics {
  /// Mean Euclidean distance between two images pooled to 8 x 8, and from one to the nearest other.
  double distance = 0, nearest = 0;
  /// Variances over the batch of images' mean brightness and mean saturation (distance of the
  /// channels from their mean), without pixels that are nearly zero, which are cutout's and
  /// translation's.
  double brightness_variance = 0, saturation_variance = 0;
  /// Shares of images with a strip of near-zeros, a 32nd of the side wide, along a whole border,
  /// and with a square of them, a quarter of the side wide: the smallest that is left of a square
  /// of half the side with its centre on the border.
  double border_share = 0, block_share = 0;
};

/// Of [N,3,S,S] in [-1,1] (augmented ones beyond), S a multiple of 8; any device, float or
/// bfloat16. Distances are those of the first 128 images. Needs no gradient; one transfer from the
/// device. Throws c10::Error for other shapes.
ImageStatistics image_statistics(const at::Tensor& images);

/// 1: fakes are as diverse as reals; 0: they are all the same. The geometric mean of the ratios of
/// both distances: that of pairs falls where all fakes look alike, that of the nearest also where
/// they are copies of a few pictures. NaN where the reals are all the same.
double diversity_of(const ImageStatistics& fakes, const ImageStatistics& reals);

/// How far each kind of differentiable augmentation (Zhao et al. 2020: colour; translation by up to
/// an eighth of the side into zeros; cutout of half the side with zeros) has gone into the fakes,
/// as (fakes - reals) / (augmented - reals) of the measure that shows it, limited to [-1, 2]. NaN
/// where augmentation changes that measure too little to say.
struct LeakMeasures {
  double colour = 0, translation = 0, cutout = 0;
};
/// `augmented`: of the same reals, all kinds at once, as D sees them.
LeakMeasures leaks_of(const ImageStatistics& fakes, const ImageStatistics& reals,
                      const ImageStatistics& augmented);

}  // namespace gp
