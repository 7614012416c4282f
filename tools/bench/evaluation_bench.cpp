// What an image's features and a Frechet distance cost, on inputs that the peers get, too.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "stages/torch/feature_extractor.hpp"
#include "stages/torch/frechet.hpp"
#include "stages/torch/safetensors.hpp"
#include "tools/bench/cpu_seconds.hpp"
#include "tools/options.hpp"

namespace gp {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::json;

/// Does the work once to warm up, then once more for the record: its `count` items, the seconds
/// that they took, and the `result` of the work.
template <typename Work>
Json measure(std::int64_t count, const Work& work) {
  work();
  const double cpu_before = cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  const Json result = work();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {{"images", count},
          {"seconds", seconds.count()},
          {"cpu_seconds", cpu_seconds() - cpu_before},
          {"result", result}};
}

Safetensors inputs(Options& options) {
  at::set_num_threads(options.get<int>("threads"));
  return read_safetensors(options.get<std::string>("INPUTS"));
}

void add_threads(Options& options) {
  options.positional("INPUTS");
  options.add()("threads", po::value<int>()->default_value(1)->value_name("N"),
                "threads of libtorch");
}

int features(const std::vector<std::string>& arguments) {
  Options options("evaluation_bench features INPUTS --weights FILE [options]",
                  "Measures Inception's features of `images` (uint8 [N,H,W,3] of the safetensors "
                  "file INPUTS); the result is the first image's.");
  add_threads(options);
  options.add()("weights", po::value<std::string>()->required()->value_name("FILE"),
                "weights of the network")(
      "protocol", po::value<std::string>()->default_value("legacy_pytorch")->value_name("NAME"),
      "how images are resized and scaled");
  if (!options.parse(arguments)) return 0;
  const at::Tensor images = inputs(options).tensors.at("images");
  const auto extractor = make_feature_extractor("inception_v3", options.get<std::string>("weights"),
                                                options.get<std::string>("protocol"));
  const ImageShape shape{static_cast<int>(images.size(1)), static_cast<int>(images.size(2))};
  const auto count = static_cast<int>(images.size(0));
  const Json result = measure(count, [&] {
    const at::Tensor all = extractor->features(images.const_data_ptr<std::uint8_t>(), shape, count);
    const auto* first = all.const_data_ptr<float>();
    return Json(std::vector<float>(first, first + all.size(1)));
  });
  std::cout << result.dump() << '\n';
  return 0;
}

int distance(const std::vector<std::string>& arguments) {
  Options options("evaluation_bench distance INPUTS [options]",
                  "Measures the Frechet distance of mean_a, covariance_a from mean_b, covariance_b "
                  "(of the safetensors file INPUTS).");
  add_threads(options);
  if (!options.parse(arguments)) return 0;
  const Safetensors given = inputs(options);
  const auto statistics = [&](const std::string& name) {
    const at::Tensor& mean = given.tensors.at("mean_" + name);
    return FeatureStatistics{mean.size(0) + 1, mean, given.tensors.at("covariance_" + name)};
  };
  const FeatureStatistics a = statistics("a");
  const FeatureStatistics b = statistics("b");
  std::cout << measure(1, [&] { return Json(frechet_distance(a, b)); }).dump() << '\n';
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  return gp::run_command(
      "evaluation_bench", "Measures the parts of an evaluation by themselves.",
      {{"features", "INPUTS --weights FILE [--protocol NAME] [--threads N]", gp::features},
       {"distance", "INPUTS [--threads N]", gp::distance}},
      argc, argv);
}
