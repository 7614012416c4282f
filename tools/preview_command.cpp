#include <algorithm>
#include <iostream>

#include "pipeline/error.hpp"
#include "pipeline/replay.hpp"
#include "stages/common/png.hpp"
#include "tools/commands.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr char kSource[] = "source.shards";
constexpr char kEnd[] = "preview";

/// Stands for what would take the images; nothing is made of it.
StageInfo end_info() {
  StageInfo info;
  info.name = kEnd;
  info.doc = "The end of what a preview shows";
  info.in = Kind::kImage;
  info.out = Kind::kNothing;
  return info;
}

/// The data stages of a configuration; trainers are neither checked nor loaded.
std::unique_ptr<LoadedConfig> load_data_stages(ConfigFile file, const Options& options) {
  file.end_images_with(kEnd);
  auto loaded = LoadedConfig::load(file, options.paths("plugin-path"), {end_info()});
  loaded->config.stages.pop_back();
  return loaded;
}

std::unique_ptr<LoadedConfig> load_bare_shards(const Options& options) {
  return load_data_stages(ConfigFile::parse("stages: [{use: source.shards, root: .}]",
                                            fs::current_path() / "preview", {}),
                          options);
}

/// Makes `config` read the shards in `root`: as they are what stages before the first random one
/// made of other sources, those are left out.
void read_shards(LoadedConfig& loaded, const fs::path& root) {
  std::vector<StageConfig>& stages = loaded.config.stages;
  StageConfig& source = stages.front();
  if (source.use != kSource) {
    loaded.loader.load_modules_for({kSource}, loaded.registry);
    source.use = source.address = kSource;
    source.info = loaded.registry.find(kSource);
    const auto random = std::find_if(stages.begin() + 1, stages.end(),
                                     [](const StageConfig& stage) { return stage.info->random; });
    stages.erase(stages.begin() + 1, random);
  }
  source.params = make_params(source.info->params, {{"root", fs::absolute(root).string()}});
}

}  // namespace

int preview_command(const std::vector<std::string>& arguments) {
  Options options(
      "gan-prep preview SHARD_DIR|CONFIG --out FILE.png [options]",
      "Writes images side by side in one PNG: those of a folder of shards, or what the\n"
      "stages of a configuration make of its data. With SHARD_DIR and --config, the\n"
      "shards go through that configuration's augmentations, with the random draws that\n"
      "training makes for each image in that epoch: its stages behind source.shards, or,\n"
      "where it reads other data, its stages from the first random one on.");
  options.positional("DATA").with_config_options();
  options.add()("out", po::value<std::string>()->value_name("FILE"), "the PNG to write")(
      "grid", po::value<std::string>()->default_value("4x8")->value_name("RxC"),
      "rows and columns")("config", po::value<std::string>()->value_name("CONFIG"),
                          "whose augmentations to show on the shards")(
      "epoch", po::value<std::int64_t>()->default_value(1)->value_name("E"),
      "of which the random draws are, counted from 1")(
      "shuffle", po::value<std::uint64_t>()->value_name("S"),
      "a choice that belongs to this number, instead of the first images");
  if (!options.parse(arguments)) return 0;
  if (!options.has("out")) throw ConfigError("missing --out FILE.png");
  const auto [rows, columns] = parse_grid(options.get<std::string>("grid"));
  const auto epoch = options.get<std::int64_t>("epoch");
  if (epoch < 1 || epoch > INT32_MAX) {
    throw ConfigError("--epoch " + std::to_string(epoch) + ": epochs are counted from 1");
  }

  const fs::path data_path = options.get<std::string>("DATA");
  const bool is_folder = fs::is_directory(data_path);
  if (!is_folder && options.has("config")) {
    throw ConfigError("--config is for a folder of shards; " + data_path.string() +
                      (fs::exists(data_path) ? " is a configuration itself" : " does not exist"));
  }
  if (is_folder && !options.has("config") && !options.list("set").empty()) {
    throw ConfigError("--set changes a configuration; give one with --config");
  }
  const std::string config =
      is_folder ? options.get_or<std::string>("config", "") : data_path.string();
  const auto loaded =
      config.empty() ? load_bare_shards(options)
                     : load_data_stages(ConfigFile::read(config, options.list("set")), options);
  if (is_folder) read_shards(*loaded, data_path);
  Pipeline pipeline(loaded->config);
  const DataPath& data = pipeline.data();
  const ImageShape shape = data.chain->output_shape();
  if (!shape.fixed()) {
    throw ConfigError(config +
                      ": its images differ in size, a grid needs one; add an image.resize");
  }

  // The draws do not depend on the order, so that any choice shows what training sees.
  SampleOrder chosen(*data.source, options.get_or<std::uint64_t>("shuffle", 0),
                     options.has("shuffle"));
  chosen.start_epoch(0);
  const std::size_t wanted = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  std::vector<std::uint8_t> images;
  std::size_t count = 0;
  std::string first_reject;
  std::uint64_t rejects = 0;
  for (std::uint64_t at = 0; at < chosen.size() && count < wanted; ++at) {
    const ReplayedSample sample =
        replay_sample(data, chosen.at(at), static_cast<std::uint32_t>(epoch - 1));
    if (sample.reject) {
      if (rejects++ == 0) {
        first_reject = sample.info.key + ": " + sample.reject->stage + ": " + sample.reject->reason;
      }
      continue;
    }
    const std::vector<std::uint8_t>& pixels = sample.stages.back().image.pixels();
    images.insert(images.end(), pixels.begin(), pixels.end());
    ++count;
  }
  if (rejects > 0) {
    std::cerr << "gan-prep: " << rejects << (rejects == 1 ? " image was" : " images were")
              << " passed over; the first: " << first_reject << '\n';
  }
  if (count == 0) throw DataError(data_path.string() + ": has no image that could be shown");
  const fs::path out = options.get<std::string>("out");
  write_png(out, make_grid(images.data(), shape, static_cast<int>(count), columns).view());
  std::cout << out.string() << '\n';
  return 0;
}

}  // namespace gp
