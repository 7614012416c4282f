#pragma once

#include <memory>

#include "pipeline/stage.hpp"

namespace gp {

/// `train.dcgan`: trains a DCGAN on the batches of a stream and writes what a run leaves behind
/// (metrics, grids, checkpoints, plots). Its parameters are documented in its schema.
class TrainDcgan : public TrainStage {
 public:
  explicit TrainDcgan(Params params);

  void check(const StreamInfo& stream) const override;
  void run(EndContext& context) override;
  std::uint32_t epochs() const override;
  double measure_rate(const RunInfo& run, const StreamInfo& stream) override;
  StepProfile profile(const RunInfo& run, const StreamInfo& stream, double seconds) override;
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo& run,
                                          const std::filesystem::path& checkpoint) override;
  void export_generator(const std::filesystem::path& checkpoint,
                        const std::filesystem::path& file) override;
  std::unique_ptr<SavedTraining> load_training(const std::filesystem::path& run_directory,
                                               Log& log) override;

 private:
  Params params_;
};

}  // namespace gp
