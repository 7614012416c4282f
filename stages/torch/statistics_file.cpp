#include "stages/torch/statistics_file.hpp"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "stages/common/npz.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kMean[] = "mu";
constexpr char kCovariance[] = "sigma";
constexpr char kMadeWith[] = "made_with";
constexpr int kInceptionDimensions = 2048;

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw DataError(path.string() + ": " + what);
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  return c10::str(at::IntArrayRef(shape));
}

/// An array as a tensor, once it has the expected shape and only finite numbers.
at::Tensor take(const fs::path& path, Npz& contents, const char* name,
                const std::vector<std::int64_t>& shape) {
  const auto found = contents.arrays.find(name);
  if (found == contents.arrays.end()) {
    fail(path, std::string("has no array '") + name +
                   "'; expected 'mu' and 'sigma' as pytorch-fid saves them (python -m pytorch_fid "
                   "--save-stats, or gan-pipeline evaluate --save-statistics)");
  }
  NpyArray& array = found->second;
  if (array.shape != shape) {
    fail(path, std::string("'") + name + "' has the shape " + text_of(array.shape) + ", expected " +
                   text_of(shape));
  }
  const at::Tensor tensor = at::tensor(array.values, at::kDouble).view(shape);
  array.values = {};
  if (!at::isfinite(tensor).all().item<bool>()) {
    fail(path, std::string("'") + name + "' holds NaN or infinity");
  }
  return tensor;
}

/// What tells whether two sets of statistics compare.
Json origin_of(const FeatureExtractor& extractor) {
  return {{"extractor", extractor.name()},
          {"weights", extractor.digest()},
          {"protocol", extractor.protocol()}};
}

/// Reads what save_statistics noted; returns the count.
std::int64_t check_origin(const fs::path& path, const std::string& text,
                          const FeatureExtractor& extractor) {
  const Json noted = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!noted.is_object() || !noted.contains("count") || !noted["count"].is_number_integer() ||
      noted["count"].get<std::int64_t>() < 2) {
    fail(path, std::string("'") + kMadeWith + "' is not what gan-pipeline writes");
  }
  const Json asked = origin_of(extractor);
  for (const auto& [what, value] : asked.items()) {
    if (noted.contains(what) && noted[what] == value) continue;
    fail(path, "was made with another " + (what == "weights" ? "weights file" : what) + ": " +
                   (noted.contains(what) ? noted[what].dump() : "none") + ", and now it is " +
                   value.dump() +
                   ". Their distances do not compare: give the --extractor, "
                   "--weights and --protocol that it was made with, or make it again");
  }
  return noted["count"].get<std::int64_t>();
}

}  // namespace

SavedStatistics load_statistics(const fs::path& path, const FeatureExtractor& extractor) {
  const std::int64_t d = extractor.dimensions();
  // Statistics of Inception are told apart from hostile files, whichever extractor is asked for.
  const std::int64_t most = std::max<std::int64_t>(d, kInceptionDimensions);
  Npz contents = read_npz(path, {kMean, kCovariance, kMadeWith}, most * most);
  if (const auto mean = contents.arrays.find(kMean); mean != contents.arrays.end() &&
                                                     mean->second.shape.size() == 1 &&
                                                     mean->second.shape[0] != d) {
    const std::int64_t found = mean->second.shape[0];
    fail(path,
         "holds statistics of " + std::to_string(found) +
             " dimensions, but the features of the extractor " + extractor.name() + " have " +
             std::to_string(d) +
             (found == kInceptionDimensions
                  ? "; 2048 are Inception's: give --extractor inception_v3 and the --protocol "
                    "that the statistics were made with"
                  : "; give the extractor that they were made with"));
  }
  SavedStatistics saved;
  saved.statistics.mean = take(path, contents, kMean, {d});
  saved.statistics.covariance = take(path, contents, kCovariance, {d, d});
  const at::Tensor& sigma = saved.statistics.covariance;
  const double largest = sigma.abs().max().item<double>();
  const double asymmetry = (sigma - sigma.t()).abs().max().item<double>();
  constexpr double kRounding = 1e-6;  // relative; of sums in float32, say
  if (asymmetry > kRounding * largest) {
    fail(path, "'sigma' is no covariance: it differs from its transpose by up to " +
                   std::to_string(asymmetry) + ", its largest value being " +
                   std::to_string(largest));
  }
  if (sigma.diagonal().min().item<double>() < 0) {
    fail(path, "'sigma' is no covariance: it has a negative variance");
  }
  if (const auto text = contents.texts.find(kMadeWith); text != contents.texts.end()) {
    saved.count = saved.statistics.count = check_origin(path, text->second, extractor);
  }
  return saved;
}

void save_statistics(const fs::path& path, const FeatureStatistics& statistics,
                     const FeatureExtractor& extractor) {
  const auto array = [](const at::Tensor& tensor) {
    const at::Tensor values = tensor.to(at::kDouble).contiguous();
    const auto* first = values.const_data_ptr<double>();
    return NpyArray{values.sizes().vec(), {first, first + values.numel()}};
  };
  Json made_with = origin_of(extractor);
  made_with["count"] = statistics.count;
  write_npz(path, {{{kMean, array(statistics.mean)}, {kCovariance, array(statistics.covariance)}},
                   {{kMadeWith, made_with.dump()}}});
}

}  // namespace gp
