#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/stage.hpp"
#include "stages/torch/compare_features.hpp"
#include "stages/torch/feature_extractor.hpp"

namespace gp {

/// Parameters of `evaluate.quality`.
struct QualityOptions {
  using Overrides = std::map<std::string, std::string>;

  std::uint32_t every = 10;           ///< epochs
  Overrides reference;                ///< of the source, for the training reals
  std::optional<Overrides> held_out;  ///< of the source, for reals that training never saw
  int n_fake = 2048;
  int batch = 64;
  std::uint64_t seed = 0;  ///< of the fakes' latent vectors
  bool blocking = true;
  int threads = 0;   ///< of libtorch; 0: the run's, or 1 beside training
  int nearest = 16;  ///< fakes in the picture of nearest training images; 0: none
  CompareOptions compare;
};

/// How often the discriminator is right, at the threshold 0 of its logits: reals above, fakes at or
/// below. NaN is never right. 0 of none.
double share_right(const std::vector<double>& logits, bool real);

/// `evaluate.quality`: how good the fakes of a snapshot are, and how its discriminator does.
///
/// Measures (1) the discriminator's accuracy in evaluation mode on un-augmented training reals, on
/// held-out reals and on fakes, the gap between the first two (overfitting), and the share of pairs
/// of a real and a fake in which the real has the larger logit; (2) the Frechet distance between
/// the features of fakes and of reals: held-out ones where the configuration names them, else the
/// training ones; (3) what else compare_features takes from the same features; (4) the Inception
/// score of the fakes where the extractor has class scores. Draws the training images nearest to
/// the first fakes (samples/nearest_000010.png after 10 epochs). What is not defined for so few
/// images is left out of the record.
///
/// Every stream is read once, that of the training reals once more for the picture where their
/// features are not in the cache; features of reals are taken only there. Nothing of the training
/// changes: no generator of random numbers is touched, the number of threads is put back. Runs on
/// the caller's thread.
class QualityStage : public EvaluateStage {
 public:
  QualityStage(QualityOptions options, std::unique_ptr<FeatureExtractor> extractor);

  /// That the reals which the configuration selects are there, and of the trainer's shape.
  void check(const StreamInfo& stream, StreamFactory& streams) const override;
  bool due(std::uint32_t epochs_done, bool last) const override;
  bool blocking() const override { return options_.blocking; }
  /// The record, one JSON object; "" when `context.stop` was asked for. Throws DataError when a
  /// stream has fewer than two images or images of another shape than the snapshot's.
  std::string evaluate(Snapshot& snapshot, EvaluateContext& context) override;
  /// As compare_sets, with the figures that the parameters ask for.
  std::string compare(const Comparison& comparison, const RunInfo& run, Log& log,
                      std::stop_token stop) override;

 private:
  QualityOptions options_;
  std::unique_ptr<FeatureExtractor> extractor_;
  bool few_images_warned_ = false;
};

}  // namespace gp
