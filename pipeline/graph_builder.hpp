#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/config.hpp"
#include "pipeline/graph.hpp"
#include "pipeline/transform_chain.hpp"

namespace gp {

/// A source and its transforms, made from the configuration: what streams are opened over.
struct DataPath {
  std::unique_ptr<SourceStage> source;
  std::vector<std::unique_ptr<TransformStage>> transforms;
  std::unique_ptr<TransformChain> chain;
  std::shared_ptr<SampleOrder> order;
  std::string digest;  ///< SHA-256 of what it delivers: source, filter, preprocessing
};

/// Parameters that differ from the configuration: stage address -> parameter -> value.
using StageOverrides = std::map<std::string, std::map<std::string, std::string>>;

/// Makes each stage of a checked configuration but the source, which would open its data, and
/// throws all that they refuse at once: values that contradict each other, a schedule that changes
/// what is not there. Files that are not there (weights) are no fault of the configuration.
void try_stages(const Config& config);

/// The stages of a checked configuration, made and connected. Opens the data (DataError).
class Pipeline : public StreamFactory {
 public:
  explicit Pipeline(Config config);

  const Config& config() const { return config_; }
  const DataPath& data() const { return data_; }
  /// What each phase of the trainer's schedule reads, instead of data(); empty: it has none.
  std::vector<const DataPath*> phases() const;
  /// Null where the list has no end stage.
  EndStage* end() const { return end_.get(); }
  const std::string& end_address() const { return end_address_; }
  struct Evaluator {
    std::string address;
    std::unique_ptr<EvaluateStage> stage;
  };
  const std::vector<Evaluator>& evaluators() const { return evaluators_; }
  bool end_is_sink() const { return end_is_sink_; }

  /// The stream that the end stage reads: shuffled for a trainer, in file order for a sink; with
  /// the trainer's schedule, one graph after the other. `start`: for a training that is resumed.
  std::unique_ptr<BatchStream> open_stream(int threads, Trace* trace = nullptr,
                                           StreamPosition start = {}) const;
  /// For measuring: the data as the stages say, without the schedule, with epochs without end.
  /// After `cut_off_after` its batches count images and hold none.
  std::unique_ptr<GraphStream> open_endless(int threads) const;
  /// Leaves out the data stages after `address`, for measuring. Throws ConfigError for what is no
  /// data stage.
  void cut_off_after(const std::string& address);
  StreamInfo stream_info() const;

  /// One line a data stage, parameters without paths: the same on every machine.
  std::string preprocessing() const;

  // StreamFactory, for evaluation.
  std::unique_ptr<BatchStream> open(const std::map<std::string, std::string>& overrides,
                                    int batch_size) override;
  StreamInfo info(const std::map<std::string, std::string>& overrides) override;
  /// Threads of the streams that open() makes.
  void set_evaluation_threads(int threads) { evaluation_threads_ = threads; }

 private:
  /// `fraction` among the source's overrides selects the held-out keys; otherwise training's.
  DataPath make_data_path(const StageOverrides& overrides, bool for_evaluation) const;
  StageOverrides for_source(const std::map<std::string, std::string>& overrides) const;
  GraphOptions graph_options(int threads, int batch_size) const;
  StreamInfo describe(const DataPath& path, int batch_size) const;

  Config config_;
  double held_out_fraction_ = 0;
  DataPath data_;
  /// The trainer's schedule, made ready before anything runs.
  struct PreparedPhase {
    std::uint64_t images = 0;
    int batch_size = 1;
    DataPath data;
  };
  class PhasedStream;
  std::vector<PreparedPhase> phases_;
  std::unique_ptr<EndStage> end_;
  std::string end_address_;
  bool end_is_sink_ = false;
  std::vector<Evaluator> evaluators_;
  int batch_size_ = 1;
  bool keep_last_ = false;
  int evaluation_threads_ = 1;
  bool cut_off_ = false;
};

/// What the end stage of `pipeline` is told about its run.
RunInfo make_run_info(const Pipeline& pipeline, int threads,
                      const std::filesystem::path& directory);

}  // namespace gp
