// What the engine itself costs: five stages that do nothing, on pictures of one pixel.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/graph.hpp"
#include "tools/bench/cpu_seconds.hpp"
#include "tools/options.hpp"

namespace gp {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr int kStages = 5;

class OnePixelSource : public SourceStage {
 public:
  explicit OnePixelSource(std::uint64_t size) : size_(size) {}
  std::uint64_t size() const override { return size_; }
  std::string key(std::uint64_t item) const override { return std::to_string(item); }
  void read(std::uint64_t item, StageOutput& out) const override {
    out.image(1, 1).data[0] = static_cast<std::uint8_t>(item);
  }
  ImageShape output_shape() const override { return {1, 1}; }
  std::string digest() const override { return "one pixel"; }

 private:
  std::uint64_t size_;
};

class DoNothing : public TransformStage {
 public:
  void process(const StageInput& /*in*/, Rng& /*rng*/, StageOutput& out) const override {
    out.pass_through();
  }
};

Json measure(std::uint64_t samples, int threads, Concurrency concurrency) {
  constexpr std::uint32_t kEpochs = 4;
  const OnePixelSource source(samples / kEpochs);
  const DoNothing stage;
  StageInfo info;
  info.concurrency = concurrency;
  std::vector<TransformChain::Link> links;
  for (int i = 0; i < kStages; ++i) links.push_back({"nothing" + std::to_string(i), &stage, &info});
  const TransformChain chain(source, "source", links, 1);
  const auto order = std::make_shared<SampleOrder>(source, 1, /*shuffle=*/true);
  GraphOptions options;
  options.threads = threads;
  options.epochs = kEpochs;
  options.batch_size = 64;
  options.keep_last = true;

  const double cpu_before = cpu_seconds();
  const auto start = Clock::now();
  GraphStream stream(source, chain, order, options);
  std::uint64_t drained = 0;
  while (const auto batch = stream.next()) drained += static_cast<std::uint64_t>(batch->count);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (drained != source.size() * kEpochs) throw RunError("samples were lost");
  return {{"stages", concurrency == Concurrency::kSerial ? "serial" : "pure"},
          {"threads", threads},
          {"samples", drained},
          {"seconds", seconds},
          {"samples_per_second", static_cast<double>(drained) / seconds},
          {"cpu_ns_per_sample", (cpu_seconds() - cpu_before) * 1e9 / static_cast<double>(drained)}};
}

int run(const std::vector<std::string>& arguments) {
  Options options("engine_bench run [options]",
                  "Moves samples through five stages that do nothing, into batches of 64; prints\n"
                  "JSON. Pure stages share a task; serial ones take a hop each.");
  options.add()("samples", po::value<std::int64_t>()->default_value(1'000'000)->value_name("N"),
                "samples a measurement");
  if (!options.parse(arguments)) return 0;
  const auto samples = options.get<std::int64_t>("samples");
  if (samples < 1000) {
    throw ConfigError("--samples " + std::to_string(samples) + ": expected 1000 or more");
  }
  Json results = Json::array();
  for (const Concurrency concurrency : {Concurrency::kUnlimited, Concurrency::kSerial}) {
    for (const int threads : {1, 2}) {
      measure(static_cast<std::uint64_t>(samples) / 10, threads, concurrency);
      results.push_back(measure(static_cast<std::uint64_t>(samples), threads, concurrency));
    }
  }
  // The source and five pure stages are one task, the source and five serial ones are six. On one
  // thread, where nothing waits for another processor.
  const auto cost = [&](int i) { return results[i]["cpu_ns_per_sample"].get<double>(); };
  std::cout << Json{{"results", results},
                    {"hop_ns", (cost(2) - cost(0)) / kStages},
                    {"version", GP_BUILD_ID}}
                   .dump()
            << '\n';
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  return gp::run_command("engine_bench", "Measures what the engine itself costs.",
                         {{"run", "[--samples N]", gp::run}}, argc, argv);
}
