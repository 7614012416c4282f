#include "tools/evaluated_set.hpp"

#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

constexpr char kEnd[] = "evaluation";
/// Few enough that a stop does not wait long for them, and as many as networks gain from.
constexpr int kBatch = 16;

/// Takes images of any size; what is made of them is up to whoever opens the stream.
class EvaluationEnd : public EndStage {
 public:
  void run(EndContext& /*context*/) override {}
  int batch_size() const override { return kBatch; }
  bool takes_mixed_shapes() const override { return true; }
};

StageInfo end_info() {
  StageInfo info;
  info.name = kEnd;
  info.doc = "The end of images that are evaluated";
  info.in = Kind::kImage;
  info.out = Kind::kNothing;
  info.create = [](const Params&) { return std::make_unique<EvaluationEnd>(); };
  return info;
}

std::string accepted() {
  return "expected a run directory (runs/00000-aircraft), a checkpoint (.safetensors), a folder of "
         "images, an archive of images (zip, tar, tar.gz..), a folder of shards (with "
         "manifest.json), or saved statistics (.npz with mu and sigma)";
}

/// Whether a folder's manifest.json is that of shards.
bool is_manifest(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return false;
  const auto json = nlohmann::json::parse(std::ifstream(file), nullptr, false);
  return json.is_object() && json.contains("shards");
}

/// By the first bytes: a zip, a tar, or what tars are compressed by.
bool is_archive(const fs::path& path) {
  std::string start(512, '\0');
  std::ifstream(path, std::ios::binary)
      .read(start.data(), static_cast<std::streamsize>(start.size()));
  for (const std::string_view magic :
       {std::string_view("PK\3\4"), std::string_view("PK\5\6"), std::string_view("\x1f\x8b"),
        std::string_view("BZh"), std::string_view("\xfd\x37zXZ"),
        std::string_view("\x28\xb5\x2f\xfd"), std::string_view("\x04\x22\x4d\x18")}) {
    if (start.starts_with(magic)) return true;
  }
  constexpr std::size_t kTarMagicAt = 257;
  return start.compare(kTarMagicAt, 5, "ustar") == 0;
}

std::string kind_text(SetKind kind) {
  switch (kind) {
    case SetKind::kRun:
      return "run";
    case SetKind::kCheckpoint:
      return "checkpoint";
    case SetKind::kShards:
      return "shards";
    case SetKind::kFolder:
      return "folder";
    case SetKind::kArchive:
      return "archive";
    case SetKind::kStatistics:
      return "statistics";
  }
  return "?";
}

/// Changes whenever the file's contents do, unlike its size and its time of modification.
std::string state_of(const fs::path& file) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0) return "-\n";
  return std::to_string(found.st_dev) + " " + std::to_string(found.st_ino) + " " +
         std::to_string(found.st_size) + " " + std::to_string(found.st_ctim.tv_sec) + "." +
         std::to_string(found.st_ctim.tv_nsec) + "\n";
}

}  // namespace

SetKind set_kind_of(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    if (fs::exists(path / "checkpoints/index.json", error) ||
        (fs::exists(path / "config.yaml", error) && fs::exists(path / "run.json", error))) {
      return SetKind::kRun;
    }
    return is_manifest(path / "manifest.json") ? SetKind::kShards : SetKind::kFolder;
  }
  if (!fs::is_regular_file(status)) {
    throw DataError(path.string() + ": " +
                    (fs::exists(status) ? "is neither a file nor a folder" : "is not there") +
                    "; " + accepted());
  }
  if (path.extension() == ".npz") return SetKind::kStatistics;
  if (path.extension() == ".safetensors") return SetKind::kCheckpoint;
  if (is_archive(path) || path.extension() == ".tar") return SetKind::kArchive;
  throw DataError(path.string() + ": is none of what can be evaluated; " + accepted());
}

fs::path run_directory_of(const fs::path& path) {
  for (fs::path directory = fs::absolute(path).lexically_normal(); directory.has_relative_path();
       directory = directory.parent_path()) {
    if (fs::is_regular_file(directory / "config.yaml")) return directory;
  }
  return {};
}

EvaluatedSet::EvaluatedSet(const fs::path& path, const StageRegistry& registry,
                           const std::vector<fs::path>& plugin_path)
    : path_(path), kind_(set_kind_of(path)) {
  switch (kind_) {
    case SetKind::kRun:
    case SetKind::kCheckpoint:
      open_run(registry, plugin_path);
      break;
    case SetKind::kShards:
      open_images("{use: source.shards, root: .");
      break;
    case SetKind::kFolder:
      open_images("{use: source.folder, root: ., labels: none");
      break;
    case SetKind::kArchive:
      open_images("{use: source.archive, root: ., labels: none");
      break;
    case SetKind::kStatistics:
      break;
  }
}

void EvaluatedSet::open_images(const std::string& source) {
  const std::string decode =
      kind_ == SetKind::kShards ? "" : "  - {use: image.decode, dct_scaling: false}\n";
  // What cannot be used is counted; the network does not wait for full-size images in memory.
  const std::string yaml = "stages:\n  - " + source + ", max_rejects: 100%}\n" + decode +
                           "  - {use: " + kEnd + "}\nrun: {max_in_flight: 32}\n";
  loaded_ = LoadedConfig::load(ConfigFile::parse(yaml, fs::current_path() / "evaluate"), {},
                               {end_info()});
  StageConfig& stage = loaded_->config.stages.front();
  stage.params.set("root", fs::absolute(path_).string());
  stage.mark = Mark{path_.string(), 0, 0};
  try {
    pipeline_ = std::make_unique<Pipeline>(loaded_->config);
  } catch (const Error& error) {
    throw Error(error.exit_code(), std::string(error.what()) + "\n  " + accepted());
  }
}

void EvaluatedSet::open_run(const StageRegistry& registry,
                            const std::vector<fs::path>& plugin_path) {
  const fs::path directory = run_directory_of(path_);
  if (directory.empty()) {  // a checkpoint says by itself what network it is of
    const StageInfo* info = registry.find("train.dcgan");
    train_stage_ = info->create(make_params(info->params));
  } else {
    loaded_ = LoadedConfig::load(directory / "config.yaml", {}, plugin_path);
    for (const StageConfig& stage : loaded_->config.stages) {
      if (stage.info->in == Kind::kSnapshot && evaluator_ == nullptr) evaluator_ = &stage;
      if (stage.info->out == Kind::kSnapshot) train_stage_ = stage.info->create(stage.params);
    }
  }
  trainer_ = dynamic_cast<TrainStage*>(train_stage_.get());
  if (trainer_ == nullptr) throw DataError(directory.string() + ": the run has no train.* stage");
}

RunSettings EvaluatedSet::run_settings() const {
  return draws() && loaded_ ? loaded_->config.run : RunSettings();
}

/// Keys and sizes alone are the same for two pictures that are stored uncompressed.
std::string EvaluatedSet::state() const {
  if (kind_ != SetKind::kFolder) return sha256_hex(state_of(path_));
  const SourceStage& source = *pipeline_->data().source;
  Sha256 hash;
  for (std::uint64_t i = 0; i < source.size(); ++i) hash.update(state_of(path_ / source.key(i)));
  return hash.hex();
}

ImageSet EvaluatedSet::image_set(const RunInfo& run, int data_threads, std::uint64_t seed,
                                 int count) {
  ImageSet set;
  set.name = path_.string();
  set.kind = kind_text(kind_);
  if (draws()) {
    snapshot_ = trainer_->load_snapshot(run, path_);
    set.snapshot = snapshot_.get();
    set.seed = seed;
    set.count = count;
  } else if (pipeline_) {
    set.info = pipeline_->stream_info();
    set.open = [this, data_threads] { return pipeline_->open_stream(data_threads); };
    if (kind_ != SetKind::kShards) set.state = state();  // shards' digest is over their contents
  } else {
    set.statistics = path_;
  }
  return set;
}

}  // namespace gp
