// How fast a configuration's data path fills batches when nothing is done with them.

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/runner.hpp"
#include "stages/common/png.hpp"
#include "tools/bench/cpu_seconds.hpp"
#include "tools/options.hpp"

namespace gp {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

/// What a configuration for this program ends with, in the place of a trainer, so that the data
/// come in a trainer's order.
class NothingTrained : public TrainStage {
 public:
  void run(EndContext& /*context*/) override {}
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo& /*run*/,
                                          const std::filesystem::path& checkpoint) override {
    throw RunError(checkpoint.string() + ": train.nothing has no state");
  }
};

/// As LoadedConfig::load, with `train.nothing` among the stages.
LoadedConfig load(const Options& options) {
  const ConfigFile file = ConfigFile::read(options.get<std::string>("CONFIG"), options.list("set"));
  LoadedConfig loaded{StageRegistry(), PluginLoader(options.paths("plugin-path")), Config()};
  add_built_in_stages(loaded.registry);
  StageInfo nothing;
  nothing.name = "train.nothing";
  nothing.doc = "Lets go of every batch";
  nothing.in = Kind::kBatch;
  nothing.out = Kind::kSnapshot;
  nothing.concurrency = Concurrency::kSerial;
  nothing.create = [](const Params&) { return std::make_unique<NothingTrained>(); };
  loaded.registry.add(std::move(nothing));
  for (const std::string& plugin : file.plugins()) {
    loaded.loader.load_plugin(plugin, loaded.registry);
  }
  loaded.loader.load_modules_for(file.stage_names(), loaded.registry);
  loaded.config = check_config(file, loaded.registry);
  return loaded;
}

/// Reads the data `options.epochs` times; returns the images that came in batches. The first batch
/// is written to `png` unless that is empty.
std::uint64_t drain(const Pipeline& pipeline, const GraphOptions& options,
                    const std::string& png = "") {
  const DataPath& data = pipeline.data();
  GraphStream stream(*data.source, *data.chain, data.order, options);
  std::uint64_t images = 0;
  while (const auto batch = stream.next()) {
    if (images == 0 && batch->count > 0 && !png.empty()) {
      write_png(png, make_grid(batch->pixels.get(), batch->shape, batch->count, 8).view());
    }
    images += static_cast<std::uint64_t>(batch->count);
  }
  return images;
}

int run(const std::vector<std::string>& arguments) {
  Options options("data_bench run CONFIG [options]",
                  "Fills batches from a configuration's data and lets go of them; prints JSON.\n"
                  "Full batches only. CONFIG ends in train.nothing, a stage of this program.");
  options.positional("CONFIG").with_config_options();
  options.add()("threads", po::value<int>()->default_value(1)->value_name("N"),
                "threads of the graph")(
      "epochs", po::value<int>()->default_value(1)->value_name("N"),
      "times that the data are read, after one more time to warm up")(
      "png", po::value<std::string>()->value_name("FILE"), "write the first batch as a picture");
  if (!options.parse(arguments)) return 0;
  const int threads = options.get<int>("threads");
  const int epochs = options.get<int>("epochs");
  if (threads < 1 || epochs < 1) {
    throw ConfigError("--threads " + std::to_string(threads) + ", --epochs " +
                      std::to_string(epochs) + ": expected 1 or more");
  }
  const LoadedConfig loaded = load(options);
  const Pipeline pipeline(loaded.config);
  GraphOptions graph;
  graph.threads = threads;
  graph.max_in_flight = loaded.config.run.max_in_flight;
  graph.batch_size = pipeline.stream_info().batch_size;

  drain(pipeline, graph, options.get_or<std::string>("png", ""));
  graph.epochs = static_cast<std::uint32_t>(epochs);
  const double cpu_before = cpu_seconds();
  const auto start = Clock::now();
  const std::uint64_t images = drain(pipeline, graph);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const nlohmann::ordered_json result = {
      {"images", images},
      {"seconds", seconds},
      {"images_per_second", static_cast<double>(images) / seconds},
      {"cpu_seconds", cpu_seconds() - cpu_before},
      {"threads", threads},
      {"batch_size", graph.batch_size},
      {"version", GP_BUILD_ID}};
  std::cout << result.dump() << '\n';
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  return gp::run_command("data_bench", "Measures a configuration's data path by itself.",
                         {{"run", "CONFIG [--threads N] [--epochs N] [--png FILE]", gp::run}}, argc,
                         argv);
}
