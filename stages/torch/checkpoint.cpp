#include "stages/torch/checkpoint.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"

namespace gp {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr char kMetadataKey[] = "gan_pipeline";
constexpr int kFormat = 4;
/// Differs in what residual and growing networks compute from the same tensors.
constexpr int kFormatBefore = 3;
constexpr char kIndexName[] = "index.json";

std::string write_info(const CheckpointInfo& info) {
  return ordered_json{
      {"format", kFormat},
      {"model", model_json(info.model)},
      {"growth", {{"resolution", info.growth.resolution}, {"fade", info.growth.fade}}},
      {"step", info.step},
      {"epoch", info.position.epoch},
      {"epochs_done", info.epochs_done},
      {"next", info.position.next},
      {"epoch_counts",
       {{"read", info.position.counts.read},
        {"batched", info.position.counts.batched},
        {"rejected", info.position.counts.rejected},
        {"dropped_by_stage", info.position.counts.dropped_by_stage},
        {"dropped_last", info.position.counts.dropped_last}}},
      {"images", info.position.images},
      {"seed", info.seed},
      {"average", info.average},
      {"threads", info.threads},
      {"config_digest", sha256_hex(info.config_yaml)},
      {"data_digest", info.data_digest},
      {"source_digest", info.source_digest},
      {"class_names", info.class_names},
      {"config", info.config_yaml},
      {"progress",
       {{"metrics_step", info.progress.metrics_step},
        {"rejects", info.progress.rejects},
        {"line", info.progress.line.json()},
        {"epoch", info.progress.epoch.json()},
        {"bad_steps", info.progress.bad_steps},
        {"bad_in_a_row", info.progress.bad_in_a_row},
        {"balance", info.progress.balance},
        {"findings", info.progress.findings}}}}  // Paths need not be UTF-8.
      .dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

GrowthPoint read_growth(const ordered_json& json, const ModelConfig& model) {
  const std::int64_t resolution = json.at("resolution").get<std::int64_t>();
  const double fade = json.at("fade").get<double>();
  const auto refuse = [](const std::string& what) { throw std::runtime_error("growth." + what); };
  const std::string found = "resolution = " + std::to_string(resolution);
  const auto* const gan = std::get_if<GanConfig>(&model);
  const bool grows = gan != nullptr && gan->growth == GanConfig::Growth::kPhases;
  if (!grows && resolution != 0) refuse(found + ", and its model does not grow; 0 expected");
  const bool of_model = grows && resolution >= gan->first_resolution &&
                        resolution <= gan->resolution &&
                        std::has_single_bit(static_cast<std::uint64_t>(resolution));
  if (resolution != 0 && !of_model) {
    refuse(found + " is no power of two from " + std::to_string(gan->first_resolution) + " to " +
           std::to_string(gan->resolution));
  }
  const bool fades = of_model && resolution > gan->first_resolution;
  if (!(fade > 0 && fade <= 1) || (fade < 1 && !fades)) {
    refuse("fade = " + json.at("fade").dump() + (fades ? " is outside (0, 1]" : "; 1 expected"));
  }
  return {static_cast<int>(resolution), fade};
}

CheckpointInfo parse_info(const std::string& text) {
  const ordered_json json = ordered_json::parse(text);
  const ordered_json& format = json.at("format");
  const auto refuse = [&] {
    throw std::runtime_error("its format is " + format.dump() + ", this version reads format " +
                             std::to_string(kFormat));
  };
  if (format != kFormat && format != kFormatBefore) refuse();
  CheckpointInfo info;
  info.model = read_model(json.at("model"));
  const auto* gan = std::get_if<GanConfig>(&info.model);
  const bool changed = gan != nullptr && (gan->blocks != GanConfig::Blocks::kPlain ||
                                          gan->growth != GanConfig::Growth::kNone);
  if (changed && format != kFormat) refuse();
  info.growth = read_growth(json.at("growth"), info.model);
  info.step = json.at("step").get<std::uint64_t>();
  info.position.epoch = json.at("epoch").get<std::uint32_t>();
  info.epochs_done = json.at("epochs_done").get<std::uint32_t>();
  info.position.next = json.at("next").get<std::uint64_t>();
  info.position.images = json.at("images").get<std::uint64_t>();
  const ordered_json& counts = json.at("epoch_counts");
  info.position.counts = {counts.at("read").get<std::uint64_t>(),
                          counts.at("batched").get<std::uint64_t>(),
                          counts.at("rejected").get<std::uint64_t>(),
                          counts.at("dropped_by_stage").get<std::uint64_t>(),
                          counts.at("dropped_last").get<std::uint64_t>()};
  info.seed = json.at("seed").get<std::uint64_t>();
  info.average = json.at("average").get<bool>();
  info.threads = json.at("threads").get<int>();
  info.config_yaml = json.at("config").get<std::string>();
  info.data_digest = json.at("data_digest").get<std::string>();
  info.source_digest = json.at("source_digest").get<std::string>();
  info.class_names = json.at("class_names").get<std::vector<std::string>>();
  if (static_cast<std::size_t>(classes_of(info.model)) != info.class_names.size()) {
    throw std::runtime_error("its model has " + std::to_string(classes_of(info.model)) +
                             " classes, and it names " + std::to_string(info.class_names.size()));
  }
  const ordered_json& progress = json.at("progress");
  info.progress = {progress.at("metrics_step").get<std::uint64_t>(),
                   progress.at("rejects").get<std::uint64_t>(),
                   StepMeans::read_json(progress.at("line")),
                   StepMeans::read_json(progress.at("epoch")),
                   progress.at("bad_steps").get<std::uint64_t>(),
                   progress.at("bad_in_a_row").get<int>(),
                   progress.at("balance").get<std::string>(),
                   progress.at("findings").get<std::vector<std::string>>()};
  return info;
}

/// That a file is what the index says.
void check_against_entry(const fs::path& file, const CheckpointFolder::Entry& entry) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  if (error) {
    throw DataError(file.string() + ": the checkpoint is missing; index.json lists it");
  }
  if (size != entry.size) {
    throw DataError(file.string() + ": the checkpoint has " + std::to_string(size) +
                    " bytes, index.json says " + std::to_string(entry.size) +
                    ": it is cut off or was changed; use an older checkpoint");
  }
  const std::string digest = sha256_file(file);
  if (digest != entry.sha256) {
    throw DataError(file.string() + ": the checkpoint's SHA-256 is " + digest +
                    ", index.json says " + entry.sha256 +
                    ": its contents have changed; use an older checkpoint");
  }
}

Checkpoint read_checkpoint(const fs::path& file) {
  Safetensors contents = read_safetensors(file);
  const auto metadata = contents.metadata.find(kMetadataKey);
  if (metadata == contents.metadata.end()) {
    throw DataError(file.string() + ": no checkpoint of gan-pipeline: __metadata__." +
                    kMetadataKey + " is missing");
  }
  try {
    return {file, parse_info(metadata->second), std::move(contents.tensors)};
  } catch (const std::exception& error) {
    throw DataError(file.string() + ": cannot use this checkpoint: " + error.what());
  }
}

}  // namespace

std::vector<CheckpointFolder::Entry> CheckpointFolder::index() const {
  const fs::path path = folder_ / kIndexName;
  if (!fs::exists(path)) return {};
  std::vector<Entry> entries;
  try {
    const ordered_json json = ordered_json::parse(read_text(path));
    for (const auto& item : json.at("checkpoints")) {
      Entry entry{item.at("file").get<std::string>(), item.at("size").get<std::uint64_t>(),
                  item.at("sha256").get<std::string>(), item.at("step").get<std::uint64_t>()};
      if (fs::path(entry.file).filename() != entry.file) {
        throw std::runtime_error("'" + entry.file + "' is no plain file name");
      }
      entries.push_back(std::move(entry));
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError(path.string() + ": not an index of checkpoints: " + error.what());
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.step < b.step; });
  return entries;
}

fs::path CheckpointFolder::newest() const {
  const auto entries = index();
  if (entries.empty()) {
    throw DataError(folder_.string() + ": no checkpoint here (" + kIndexName +
                    " is missing or empty); expected a run directory whose training has saved one");
  }
  return folder_ / entries.back().file;
}

std::optional<Checkpoint> CheckpointFolder::load_newest_whole(Log& log) const {
  const std::vector<Entry> entries = index();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    const fs::path file = folder_ / entry->file;
    try {
      check_against_entry(file, *entry);
    } catch (const DataError& error) {
      log.warn(error.what());
      continue;
    }
    if (entry != entries.rbegin()) log.warn("using the checkpoint before: " + file.string());
    return read_checkpoint(file);
  }
  if (entries.empty()) return {};
  throw DataError(folder_.string() + ": none of the checkpoints that " + kIndexName +
                  " lists is whole; put back a copy of one, or start the training again");
}

fs::path CheckpointFolder::save(const Checkpoint& checkpoint, std::size_t keep_last,
                                const std::set<std::uint64_t>& keep) const {
  make_folders(folder_);
  char name[64];
  std::snprintf(name, sizeof(name), "step-%08llu.safetensors",
                static_cast<unsigned long long>(checkpoint.info.step));
  const fs::path path = folder_ / name;
  write_safetensors(path, {checkpoint.tensors, {{kMetadataKey, write_info(checkpoint.info)}}});

  std::vector<Entry> entries = index();
  std::vector<std::string> surplus;
  std::erase_if(entries, [&](const Entry& entry) {
    const bool later = entry.step >= checkpoint.info.step;
    if (later && entry.file != name) surplus.push_back(entry.file);
    return later;
  });
  try {
    entries.push_back({name, fs::file_size(path), sha256_file(path), checkpoint.info.step});
    keep_only(std::move(entries), keep_last, keep, std::move(surplus));
  } catch (const RunError&) {
    std::error_code ignored;
    fs::remove(path, ignored);  // nobody would find it, and the disk may be full
    throw;
  }
  return path;
}

void CheckpointFolder::prune(std::size_t keep_last, const std::set<std::uint64_t>& keep) const {
  std::vector<Entry> entries = index();
  if (!entries.empty()) keep_only(std::move(entries), keep_last, keep, {});
}

void CheckpointFolder::keep_only(std::vector<Entry> entries, std::size_t keep_last,
                                 const std::set<std::uint64_t>& keep,
                                 std::vector<std::string> surplus) const {
  const std::size_t last = std::min(std::max<std::size_t>(keep_last, 1), entries.size());
  const std::uint64_t oldest = entries[entries.size() - last].step;
  ordered_json list = ordered_json::array();
  for (const Entry& entry : entries) {
    if (entry.step < oldest && keep.count(entry.step) == 0) {
      surplus.push_back(entry.file);
      continue;
    }
    list.push_back({{"file", entry.file},
                    {"size", entry.size},
                    {"sha256", entry.sha256},
                    {"step", entry.step}});
  }
  write_file(folder_ / kIndexName, ordered_json{{"checkpoints", list}}.dump(2) + "\n");
  for (const std::string& file : surplus) {  // only now that the index does without them
    std::error_code ignored;
    fs::remove(folder_ / file, ignored);
  }
}

Checkpoint load_checkpoint(const fs::path& path) {
  const fs::path file =
      fs::is_directory(path) ? CheckpointFolder(path / kCheckpointFolder).newest() : path;
  if (!fs::is_regular_file(file)) {
    throw DataError(file.string() +
                    ": there is no such checkpoint; expected a .safetensors file or a run "
                    "directory");
  }
  for (const auto& entry : CheckpointFolder(fs::absolute(file).parent_path()).index()) {
    if (entry.file == file.filename()) check_against_entry(file, entry);
  }
  return read_checkpoint(file);
}

void export_generator(const Checkpoint& checkpoint, const fs::path& file) {
  const CheckpointInfo& info = checkpoint.info;
  const std::string prefix = info.average ? "EMA" : "G";
  const std::shared_ptr<GeneratorNetwork> generator = make_generator(info.model);
  load_state(*generator, checkpoint, prefix, checkpoint.file.string());
  Safetensors contents;
  for (const auto& [name, tensor] : state_of(*generator)) contents.tensors["G." + name] = tensor;
  contents.metadata[kMetadataKey] = ordered_json{
      {"format", kFormat},
      {"kind", "generator"},
      {"model", model_json(info.model)},
      {"growth", {{"resolution", info.growth.resolution}, {"fade", info.growth.fade}}},
      {"average", info.average},
      {"step", info.step},
      {"epoch", info.epochs_done},
      {"images", info.position.images},
      {"seed", info.seed},
      {"class_names", info.class_names}}.dump();
  write_safetensors(file, contents);
}

void load_state(torch::nn::Module& network, const Checkpoint& checkpoint, const std::string& prefix,
                const std::string& where) {
  load_state(state_of(network), checkpoint, prefix, where);
}

void load_state(const std::map<std::string, at::Tensor>& state, const Checkpoint& checkpoint,
                const std::string& prefix, const std::string& where) {
  std::map<std::string, at::Tensor> full_names;
  for (const auto& [name, target] : state) full_names[prefix + "." + name] = target;
  load_state(full_names, checkpoint, where);
}

void load_state(const std::map<std::string, at::Tensor>& state, const Checkpoint& checkpoint,
                const std::string& where) {
  const at::NoGradGuard no_grad;
  for (const auto& [key, target] : state) {
    const auto found = checkpoint.tensors.find(key);
    if (found == checkpoint.tensors.end()) {
      throw DataError(where + ": tensor '" + key + "' is missing");
    }
    const at::Tensor& tensor = found->second;
    if (tensor.sizes() != target.sizes() || tensor.scalar_type() != target.scalar_type()) {
      std::ostringstream text;
      text << where << ": tensor '" << key << "' is " << tensor.scalar_type() << " "
           << tensor.sizes() << ", the model in its metadata needs " << target.scalar_type() << " "
           << target.sizes();
      throw DataError(text.str());
    }
    target.copy_(tensor);
  }
}

}  // namespace gp
