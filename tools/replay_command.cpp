#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/replay.hpp"
#include "stages/common/png.hpp"
#include "stages/data/format.hpp"
#include "tools/commands.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr char kRecord[] = "replay.json";

/// Extension for the bytes of a source: by what they are, else as the key has it.
std::string extension_of(std::span<const std::uint8_t> bytes, const std::string& key) {
  try {
    switch (detect_format(bytes)) {
      case ImageFormat::kJpeg:
        return ".jpg";
      case ImageFormat::kPng:
        return ".png";
      case ImageFormat::kWebp:
        return ".webp";
      case ImageFormat::kBmp:
        return ".bmp";
      case ImageFormat::kTiff:
        return ".tif";
    }
  } catch (const SampleError&) {
    // Not an image that is read: what it is called is all there is.
  }
  constexpr std::size_t kLongest = 6;
  const std::string extension = fs::path(key).extension().string();
  const bool plain = extension.size() > 1 && extension.size() <= kLongest &&
                     std::all_of(extension.begin() + 1, extension.end(),
                                 [](unsigned char c) { return std::isalnum(c) != 0; });
  return plain ? extension : ".bin";
}

/// Makes `folder` ready: a new one, or one with an earlier replay, whose files go.
void prepare_folder(const fs::path& folder) try {
  fs::create_directories(folder);
  if (fs::exists(folder / kRecord)) {
    const Json record = Json::parse(read_text(folder / kRecord));
    for (const Json& stage : record.at("stages")) {
      // file names only, whatever the record says
      if (stage.contains("file")) {
        fs::remove(folder / fs::path(stage["file"].get<std::string>()).filename());
      }
    }
    fs::remove(folder / kRecord);
  } else if (!fs::is_empty(folder)) {
    throw ConfigError("--out " + folder.string() +
                      ": holds other files; give a new folder, or one of an earlier replay");
  }
} catch (const fs::filesystem_error& error) {
  throw RunError("--out " + folder.string() + ": " + error.code().message());
} catch (const Json::exception& error) {
  throw ConfigError("--out " + folder.string() + ": its " + kRecord +
                    " is not of a replay; give a new folder");
}

/// Bytes or picture of a stage; returns the name of the file in `folder`.
std::string write_stage(const ReplayedStage& stage, const std::string& key,
                        const fs::path& folder) {
  char number[16];
  std::snprintf(number, sizeof number, "%02d-", stage.number);
  const std::string name = number + stage.address;
  if (stage.image.shape() == ImageShape()) {
    const std::string file = name + extension_of(stage.bytes, key);
    write_file(folder / file, stage.bytes);
    return file;
  }
  write_png(folder / (name + ".png"), stage.image.view());
  return name + ".png";
}

Json shape_of(ImageShape shape) { return {shape.height, shape.width, kChannels}; }

Json describe(const ReplayedStage& stage, const std::string& file) {
  Json json{{"stage", stage.address}, {"file", file}};
  if (stage.image.shape() == ImageShape()) {
    json["bytes"] = stage.bytes.size();
    return json;
  }
  json["shape"] = shape_of(stage.image.shape());
  const Geometry& geometry = stage.geometry;
  if (geometry.source_width > 0 && !geometry.is_whole()) {
    const RectF& region = geometry.region;
    json["region"] = {{"x", region.x},
                      {"y", region.y},
                      {"width", region.width},
                      {"height", region.height},
                      {"of_width", geometry.source_width},
                      {"of_height", geometry.source_height}};
  }
  return json;
}

/// The data path that the sample went through: of the one phase, or the one that was asked for.
const DataPath& choose_phase(const Pipeline& pipeline, const Options& options) {
  const std::vector<const DataPath*> phases = pipeline.phases();
  const int count = static_cast<int>(phases.size());
  if (!options.has("phase")) {
    if (count <= 1) return phases.empty() ? pipeline.data() : *phases.front();
    throw ConfigError("the schedule of '" + pipeline.end_address() + "' has " +
                      std::to_string(count) + " phases; say which one with --phase 1.." +
                      std::to_string(count));
  }
  const int phase = options.get<int>("phase");
  if (phase < 1 || phase > std::max(count, 1)) {
    throw ConfigError("--phase " + std::to_string(phase) + ": the training has " +
                      (count <= 1 ? "one phase" : std::to_string(count) + " phases"));
  }
  return count == 0 ? pipeline.data() : *phases[static_cast<std::size_t>(phase) - 1];
}

}  // namespace

int replay_command(const std::vector<std::string>& arguments) {
  Options options("gan-pipeline replay CONFIG --key K --epoch E --out DIR [options]",
                  "Writes one picture a stage of one sample, with the random draws that training\n"
                  "makes for it in that epoch, and replay.json, which tells about them. The last\n"
                  "picture is, byte for byte, the sample's image in its training batch.");
  options.positional("CONFIG").with_config_options();
  options.add()("key", po::value<std::string>()->value_name("K"),
                "the sample's key, as in rejects.jsonl")(
      "epoch", po::value<std::int64_t>()->value_name("E"),
      "of the data, counted from 1: `epoch` in metrics.jsonl, or `data_epoch` where there is one")(
      "out", po::value<std::string>()->value_name("DIR"),
      "folder to write to; made where it is missing")(
      "phase", po::value<int>()->value_name("N"),
      "phase of the trainer's schedule, counted from 1, where it has several");
  if (!options.parse(arguments)) return 0;
  for (const char* name : {"key", "epoch", "out"}) {
    if (!options.has(name) ||
        (name != std::string("epoch") && options.get<std::string>(name).empty())) {
      throw ConfigError(std::string("missing --") + name);
    }
  }
  const auto loaded = load_config(options);
  const Pipeline pipeline(loaded->config);
  const auto epoch = options.get<std::int64_t>("epoch");
  const std::int64_t epochs = pipeline.end() == nullptr ? 1 : pipeline.end()->epochs();
  if (epoch < 1 || epoch > epochs) {
    throw ConfigError("--epoch " + std::to_string(epoch) + ": '" + pipeline.end_address() +
                      "' has the epochs 1 to " + std::to_string(epochs));
  }
  const DataPath& data = choose_phase(pipeline, options);
  const auto index = static_cast<std::uint32_t>(epoch - 1);
  const auto key = options.get<std::string>("key");
  const std::uint64_t position = find_position(data, key, index);
  const fs::path folder = options.get<std::string>("out");
  prepare_folder(folder);
  const ReplayedSample sample = replay_sample(data, data.order->at(position), index);

  Json record{{"key", sample.info.key}, {"label", sample.info.label}};
  const std::vector<std::string>& classes = data.source->class_names();
  const auto label = static_cast<std::size_t>(sample.info.label);
  if (sample.info.label >= 0 && label < classes.size()) record["class"] = classes[label];
  record["seed"] = loaded->config.seed;
  record["epoch"] = epoch;
  record["position"] = position;
  record["samples"] = data.order->size();
  record["stages"] = Json::array();
  auto made = sample.stages.begin();
  const auto add_made_by = [&](int number) {
    if (made == sample.stages.end() || made->number != number) return false;
    const std::string file = write_stage(*made, key, folder);
    std::cout << (folder / file).string() << '\n';
    record["stages"].push_back(describe(*made, file));
    ++made;
    return true;
  };
  const std::string rejected_by = sample.reject ? sample.reject->stage : "";
  const bool was_read = add_made_by(0);
  for (std::size_t i = 0; was_read && i < sample.chosen.size(); ++i) {
    const bool ran = add_made_by(static_cast<int>(i) + 1);
    if (!ran && !rejected_by.empty() && sample.chosen[i] == rejected_by) break;
    Json& stages = record["stages"];
    const std::string& link = data.chain->address(static_cast<int>(i));
    if (ran && sample.chosen[i] != link) stages.back()["chosen_by"] = link;
    if (!ran && sample.chosen[i].empty()) stages.push_back({{"stage", link}, {"chosen", nullptr}});
  }
  record["rejected"] = nullptr;
  if (sample.reject) {
    record["rejected"] = {{"stage", sample.reject->stage},
                          {"reason", sample.reject->reason},
                          {"dropped", sample.reject->dropped}};
    std::cerr << "gan-pipeline: training left '" << key
              << "' out: " << (sample.reject->dropped ? "dropped by '" : "rejected by '")
              << sample.reject->stage << "': " << sample.reject->reason << '\n';
  }
  write_file(folder / kRecord, record.dump(2, ' ', false, Json::error_handler_t::replace) + '\n');
  std::cout << (folder / kRecord).string() << '\n';
  return 0;
}

}  // namespace gp
