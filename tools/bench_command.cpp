#include <iostream>

#include "pipeline/bench.hpp"
#include "pipeline/error.hpp"
#include "tools/commands.hpp"

namespace gp {

namespace po = boost::program_options;

int bench_command(const std::vector<std::string>& arguments) {
  Options options(
      "gan-pipeline bench CONFIG [options]",
      "Runs a configuration for a while without writing anything, and says how fast its\n"
      "stages are, which one is the bottleneck, and which setting to change.");
  options.positional("CONFIG").with_config_options();
  add_device_options(options);
  options.add()("until", po::value<std::string>()->value_name("STAGE"),
                "measure the data path alone, up to this stage")(
      "seconds", po::value<double>()->default_value(10)->value_name("S"),
      "how long to measure, after a warm-up")(
      "trainer", "measure the training step alone, operation by operation")("json",
                                                                            "machine-readable");
  if (!options.parse(arguments)) return 0;
  BenchRequest request;
  request.seconds = options.get<double>("seconds");
  request.until = options.get_or<std::string>("until", "");
  if (!(request.seconds > 0 && request.seconds <= 86400)) {
    throw ConfigError("--seconds: expected a number above 0, at most 86400");
  }
  const StopOnSignal signals;
  const auto loaded = load_config(options);
  Log log;
  log.set_quiet(options.has("json"));
  if (options.has("trainer")) {
    if (options.has("until")) {
      throw ConfigError(
          "--trainer and --until exclude each other: one measures no data, the other "
          "no training");
    }
    const StepProfile profile = profile_trainer(*loaded, request.seconds, log);
    std::cout << (options.has("json") ? to_json(profile) : to_text(profile));
    return 0;
  }
  const BenchResult result = bench_pipeline(*loaded, request, log);
  std::cout << (options.has("json") ? to_json(result) : to_text(result));
  return 0;
}

}  // namespace gp
