#include "stages/torch/feature_extractor.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/efficientnet_lite.hpp"
#include "stages/torch/safetensors.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

constexpr char kEfficientNetLite0[] = "efficientnet_lite0";

class EfficientNetLite0Extractor : public FeatureExtractor {
 public:
  explicit EfficientNetLite0Extractor(const fs::path& weights)
      : network_(read_safetensors(weights), weights.string()), digest_(sha256_file(weights)) {}

  std::string name() const override { return kEfficientNetLite0; }
  std::string distance() const override { return "FD-EfficientNet-Lite0"; }
  int dimensions() const override { return EfficientNetLite0::kFeatures; }
  std::string digest() const override { return digest_; }
  std::map<std::string, std::string> protocol() const override {
    return {{"image", "uint8 RGB"},
            {"resize",
             "squash to 224x224, antialiased bicubic (a = -0.5), float32, clamped to "
             "0..255, not rounded"},
            {"normalize", "(x - 127) / 128"},
            {"features", "1280, global average pool before the classifier, float32"},
            {"distance", "Frechet, float64, covariances with N - 1"}};
  }
  void to(at::Device device) override { network_.to(device); }
  at::Device device() const override { return network_.device(); }
  at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) override {
    const at::NoGradGuard no_grad;
    // On a CPU few at a time: the widest layer of 4 images is 19 MB, which stays in the heap
    // between calls; larger blocks are mapped and zeroed anew for every layer.
    const int at_a_time = device().is_cpu() ? 4 : std::max(count, 1);
    at::Tensor result = at::empty({count, dimensions()}, at::kFloat);
    for (int first = 0; first < count; first += at_a_time) {
      const int n = std::min(at_a_time, count - first);
      const at::Tensor input =
          squash_bicubic(images + static_cast<std::size_t>(first) * shape.bytes(), shape, n,
                         EfficientNetLite0::kImageSize, device());
      result.narrow(0, first, n).copy_(network_.features((input - 127) / 128));
    }
    return result;
  }

 private:
  EfficientNetLite0 network_;
  std::string digest_;
};

/// The folder of the library or program that holds this code.
fs::path own_folder() {
  Dl_info info{};
  static const int here = 0;
  if (::dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  return fs::canonical(info.dli_fname, error).parent_path();
}

}  // namespace

std::vector<std::string> feature_extractor_names() { return {kEfficientNetLite0}; }

fs::path find_weights(const std::string& name, const fs::path& given) {
  std::error_code error;
  if (!given.empty()) {
    if (fs::is_regular_file(given, error)) return given;
    throw DataError(given.string() +
                    ": there is no such weights file (parameter 'weights' of the "
                    "evaluation); tools/bootstrap makes one");
  }
  std::vector<fs::path> folders;
  if (const char* folder = std::getenv("GAN_PIPELINE_WEIGHTS"); folder != nullptr && *folder) {
    folders.push_back(folder);  // alone: whoever sets it does not want another file
  } else {
    const fs::path own = own_folder();
    if (!own.empty()) folders.push_back((own / GP_WEIGHTS_FROM_MODULE).lexically_normal());
    folders.push_back(GP_WEIGHTS_DIR);
  }
  std::string tried;
  for (const fs::path& folder : folders) {
    const fs::path file = folder / (name + ".safetensors");
    if (fs::is_regular_file(file, error)) return file;
    tried += "\n  " + file.string();
  }
  throw DataError("the weights of the feature extractor '" + name +
                  "' are not there; looked for:" + tried +
                  "\nRun tools/bootstrap, or give the file as `weights:` of the evaluation, or its "
                  "folder as GAN_PIPELINE_WEIGHTS.");
}

std::unique_ptr<FeatureExtractor> make_feature_extractor(const std::string& name,
                                                         const fs::path& weights) {
  if (name == kEfficientNetLite0) return std::make_unique<EfficientNetLite0Extractor>(weights);
  throw std::invalid_argument("no feature extractor '" + name + "'");
}

at::Tensor squash_bicubic(const std::uint8_t* images, ImageShape shape, int count, int size,
                          at::Device device) {
  if (count < 0 || !shape.fixed()) throw std::invalid_argument("squash_bicubic: empty shape");
  const at::Tensor bytes = at::from_blob(const_cast<std::uint8_t*>(images),
                                         {count, shape.height, shape.width, kChannels},
                                         at::TensorOptions().dtype(at::kByte));
  // Bytes go to the device, a quarter of the floats. NHWC memory seen as NCHW is channels_last.
  const at::Tensor x = bytes.to(device).permute({0, 3, 1, 2}).to(at::kFloat);
  return at::_upsample_bicubic2d_aa(x, {size, size}, /*align_corners=*/false).clamp_(0, 255);
}

}  // namespace gp
