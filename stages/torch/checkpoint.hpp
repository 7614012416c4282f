#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stages/torch/dcgan.hpp"
#include "stages/torch/safetensors.hpp"

namespace gp {

class Log;

/// What a checkpoint says of itself: one JSON string, "gan_pipeline", in the file's `__metadata__`.
struct CheckpointInfo {
  DcganConfig model;
  std::uint64_t step = 0;    ///< steps done; also the whole random state
  std::uint32_t epoch = 0;   ///< the epoch to go on in, counted from 0
  std::uint64_t next = 0;    ///< position in that epoch's order of the first sample not yet trained
  std::uint64_t images = 0;  ///< seen by the trainer
  std::uint64_t seed = 0;
  double ema = 0;             ///< decay; 0: no EMA tensors
  std::string config_digest;  ///< SHA-256 of the resolved configuration
  std::string data_digest;
};

struct Checkpoint {
  CheckpointInfo info;
  std::map<std::string, at::Tensor> tensors;
};

/// The checkpoints of a run: `step-00001570.safetensors` files and `index.json`, which lists file,
/// size in bytes, SHA-256 and step of each. Both are written to a temporary name, fsynced and
/// renamed, the file first: after a crash the index lists whole files only, and a file that it
/// does not list is ignored.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Writes one and drops all but the newest `keep`. Returns its path. Throws RunError.
  std::filesystem::path save(const Checkpoint& checkpoint, std::size_t keep) const;

  /// The newest of the index. Throws DataError where there is none.
  std::filesystem::path newest() const;

  struct Entry {
    std::string file;
    std::uint64_t size = 0;
    std::string sha256;
    std::uint64_t step = 0;
  };
  /// By rising step; nothing where there is no index. Throws DataError when it is no index.
  std::vector<Entry> index() const;

 private:
  std::filesystem::path folder_;
};

/// Reads a checkpoint file, or the newest of a run directory. Where an index.json beside the file
/// lists it, size and SHA-256 must agree. Throws DataError.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// Copies the tensors "<prefix>.*" into a network. Throws DataError naming `where` and the first
/// tensor that is missing or of another shape or type.
void load_state(torch::nn::Module& network, const Checkpoint& checkpoint, const std::string& prefix,
                const std::string& where);

}  // namespace gp
