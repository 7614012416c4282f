#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/log.hpp"
#include "stages/torch/model.hpp"
#include "stages/torch/safetensors.hpp"
#include "stages/torch/step_means.hpp"

namespace gp {

/// What a checkpoint says of itself: one JSON string, "gan_pipeline", in the file's `__metadata__`.
struct CheckpointInfo {
  ModelConfig model;
  GrowthPoint growth;      ///< of networks that grow; else of resolution 0
  std::uint64_t step = 0;  ///< steps done; also the whole random state
  /// Epoch and place in its order of the first sample not yet trained, the epoch's counts so far,
  /// images seen by the trainer.
  StreamPosition position;
  std::uint32_t epochs_done = 0;  ///< of the training, which may count them in steps
  std::uint64_t seed = 0;
  bool average = false;     ///< whether there are EMA tensors
  int threads = 1;          ///< of the trainer
  std::string config_yaml;  ///< resolved; its SHA-256 is written beside it
  std::string data_digest;
  std::string source_digest;
  std::vector<std::string> class_names = {};  ///< of a conditional model, by label

  /// What was measured so far, besides the files of the run.
  struct Progress {
    std::uint64_t metrics_step = 0;          ///< of the last line of metrics.jsonl
    std::uint64_t rejects = 0;               ///< lines of rejects.jsonl
    StepMeans line;                          ///< steps after metrics_step
    StepMeans epoch;                         ///< steps of the current epoch
    std::uint64_t bad_steps = 0;             ///< whose losses or gradients were not finite
    int bad_in_a_row = 0;                    ///< the last ones of them, see `on_nan`
    std::string balance = {};                ///< JSON of the BalanceMonitor
    std::vector<std::string> findings = {};  ///< JSON of those that are in no line yet
  } progress;
};

struct Checkpoint {
  std::filesystem::path file = {};  ///< where it was read from
  CheckpointInfo info;
  std::map<std::string, at::Tensor> tensors;
};

/// Of a run directory.
inline constexpr char kCheckpointFolder[] = "checkpoints";

/// The checkpoints of a run: `step-00001570.safetensors` files and `index.json`, which lists file,
/// size in bytes, SHA-256 and step of each. Both are written to a temporary name, fsynced and
/// renamed, the file first: after a crash the index lists whole files only, and a file that it
/// does not list is ignored.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Writes one and drops all but the newest `keep_last` and those of the steps `keep`, as well as
  /// those of later steps, which belong to a training that went on from before them. Returns its
  /// path. Throws RunError; what was there before is whole then.
  std::filesystem::path save(const Checkpoint& checkpoint, std::size_t keep_last,
                             const std::set<std::uint64_t>& keep = {}) const;
  /// Drops all but the newest `keep_last` and those of the steps `keep`. Throws RunError.
  void prune(std::size_t keep_last, const std::set<std::uint64_t>& keep) const;

  /// The newest of the index. Throws DataError where there is none.
  std::filesystem::path newest() const;
  /// Reads the newest one whose size and digest are those of the index; what is wrong with newer
  /// ones is told to `log`. Nothing where the index lists none. Throws DataError where none is
  /// whole, and where the newest whole one is of a format that this version does not read.
  std::optional<Checkpoint> load_newest_whole(Log& log) const;

  struct Entry {
    std::string file;
    std::uint64_t size = 0;
    std::string sha256;
    std::uint64_t step = 0;
  };
  /// By rising step; nothing where there is no index. Throws DataError when it is no index.
  std::vector<Entry> index() const;

 private:
  /// Writes the index of those that are kept, then removes the others' files.
  void keep_only(std::vector<Entry> entries, std::size_t keep_last,
                 const std::set<std::uint64_t>& keep, std::vector<std::string> surplus) const;

  std::filesystem::path folder_;
};

/// Reads a checkpoint file, or the newest of a run directory. Where an index.json beside the file
/// lists it, size and SHA-256 must agree. Throws DataError.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// Writes the generator alone, the average where there is one, as "G.*", with what is needed to
/// build it in the metadata. Returns nothing; throws DataError and RunError.
void export_generator(const Checkpoint& checkpoint, const std::filesystem::path& file);

/// Copies the tensors of `state` from those of the same name. Throws DataError naming `where` and
/// the first tensor that is missing or of another shape or type.
void load_state(const std::map<std::string, at::Tensor>& state, const Checkpoint& checkpoint,
                const std::string& where);
/// Copies the tensors "<prefix>.*" into those of `state`, by name.
void load_state(const std::map<std::string, at::Tensor>& state, const Checkpoint& checkpoint,
                const std::string& prefix, const std::string& where);
/// The same for a network's parameters and buffers.
void load_state(torch::nn::Module& network, const Checkpoint& checkpoint, const std::string& prefix,
                const std::string& where);

}  // namespace gp
