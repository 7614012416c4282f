#include "stages/torch/checkpoint.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/gan_trainer.hpp"

namespace gp {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr char kMetadataKey[] = "gan_pipeline";
constexpr int kFormat = 1;
constexpr char kIndexName[] = "index.json";
constexpr char kFolderName[] = "checkpoints";

std::string write_info(const CheckpointInfo& info) {
  return ordered_json{{"format", kFormat},
                      {"model",
                       {{"type", "dcgan"},
                        {"resolution", info.model.resolution},
                        {"latent", info.model.latent},
                        {"channels", info.model.channels},
                        {"channels_d", info.model.channels_d},
                        {"max_channels", info.model.max_channels},
                        {"dropout", info.model.dropout}}},
                      {"step", info.step},
                      {"epoch", info.epoch},
                      {"next", info.next},
                      {"images", info.images},
                      {"seed", info.seed},
                      {"ema", info.ema},
                      {"config_digest", info.config_digest},
                      {"data_digest", info.data_digest}}
      .dump();
}

/// A number of the model description: it sizes allocations, so it is not believed unchecked.
int model_number(const ordered_json& model, const char* name, int min, int max) {
  const std::int64_t value = model.at(name).get<std::int64_t>();
  if (value < min || value > max) {
    throw std::runtime_error(std::string("model.") + name + " = " + std::to_string(value) +
                             " is outside [" + std::to_string(min) + ", " + std::to_string(max) +
                             "]");
  }
  return static_cast<int>(value);
}

CheckpointInfo parse_info(const std::string& text) {
  const ordered_json json = ordered_json::parse(text);
  if (json.at("format") != kFormat) {
    throw std::runtime_error("its format is " + json.at("format").dump() +
                             ", this version reads format " + std::to_string(kFormat));
  }
  const ordered_json& model = json.at("model");
  if (model.at("type") != "dcgan") {
    throw std::runtime_error("its model is " + model.at("type").dump() + ", expected \"dcgan\"");
  }
  CheckpointInfo info;
  info.model.resolution =
      model_number(model, "resolution", DcganConfig::kMinResolution, DcganConfig::kMaxResolution);
  if (!std::has_single_bit(static_cast<unsigned>(info.model.resolution))) {
    throw std::runtime_error("model.resolution = " + std::to_string(info.model.resolution) +
                             " is no power of two");
  }
  info.model.latent = model_number(model, "latent", 1, DcganConfig::kMaxLatent);
  info.model.channels = model_number(model, "channels", 1, DcganConfig::kMaxChannels);
  info.model.channels_d = model_number(model, "channels_d", 1, DcganConfig::kMaxChannels);
  info.model.max_channels = model_number(model, "max_channels", 1, DcganConfig::kMaxChannels);
  info.model.dropout = model.at("dropout").get<double>();
  info.step = json.at("step").get<std::uint64_t>();
  info.epoch = json.at("epoch").get<std::uint32_t>();
  info.next = json.at("next").get<std::uint64_t>();
  info.images = json.at("images").get<std::uint64_t>();
  info.seed = json.at("seed").get<std::uint64_t>();
  info.ema = json.at("ema").get<double>();
  info.config_digest = json.at("config_digest").get<std::string>();
  info.data_digest = json.at("data_digest").get<std::string>();
  return info;
}

/// The index's entry of a file, and the check that the file is what it says.
void check_against_index(const fs::path& file) {
  for (const auto& entry : CheckpointFolder(file.parent_path()).index()) {
    if (entry.file != file.filename()) continue;
    const std::uint64_t size = fs::file_size(file);
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

fs::path CheckpointFolder::save(const Checkpoint& checkpoint, std::size_t keep) const {
  make_folders(folder_);
  char name[64];
  std::snprintf(name, sizeof(name), "step-%08llu.safetensors",
                static_cast<unsigned long long>(checkpoint.info.step));
  const fs::path path = folder_ / name;
  write_safetensors(path, {checkpoint.tensors, {{kMetadataKey, write_info(checkpoint.info)}}});

  std::vector<Entry> entries = index();
  std::erase_if(entries, [&](const Entry& entry) { return entry.file == name; });
  entries.push_back({name, fs::file_size(path), sha256_file(path), checkpoint.info.step});
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.step < b.step; });
  std::vector<std::string> surplus;
  while (entries.size() > std::max<std::size_t>(keep, 1)) {
    surplus.push_back(entries.front().file);
    entries.erase(entries.begin());
  }
  ordered_json list = ordered_json::array();
  for (const Entry& entry : entries) {
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
  return path;
}

Checkpoint load_checkpoint(const fs::path& path) {
  const fs::path file =
      fs::is_directory(path) ? CheckpointFolder(path / kFolderName).newest() : path;
  if (!fs::is_regular_file(file)) {
    throw DataError(file.string() +
                    ": there is no such checkpoint; expected a .safetensors file or a run "
                    "directory");
  }
  check_against_index(fs::absolute(file));
  Safetensors contents = read_safetensors(file);
  const auto metadata = contents.metadata.find(kMetadataKey);
  if (metadata == contents.metadata.end()) {
    throw DataError(file.string() + ": no checkpoint of gan-pipeline: __metadata__." +
                    kMetadataKey + " is missing");
  }
  try {
    return {parse_info(metadata->second), std::move(contents.tensors)};
  } catch (const std::exception& error) {
    throw DataError(file.string() + ": cannot use this checkpoint: " + error.what());
  }
}

void load_state(torch::nn::Module& network, const Checkpoint& checkpoint, const std::string& prefix,
                const std::string& where) {
  const at::NoGradGuard no_grad;
  for (auto& [name, target] : state_of(network)) {
    const std::string key = prefix + "." + name;
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
