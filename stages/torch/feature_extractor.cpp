#include "stages/torch/feature_extractor.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/efficientnet_lite.hpp"
#include "stages/torch/inception_v3.hpp"
#include "stages/torch/safetensors.hpp"
#include "stages/torch/torchscript_extractor.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

constexpr char kEfficientNetLite0[] = "efficientnet_lite0";
constexpr char kInceptionV3[] = "inception_v3";
constexpr char kTorchScript[] = "torchscript";
constexpr char kClean[] = "clean";
constexpr char kLegacyPytorch[] = "legacy_pytorch";
constexpr char kLegacyTensorflow[] = "legacy_tensorflow";

/// Runs `network` on few images at a time where that is faster. On a CPU the widest layer of 4
/// images is about 20 MB, which stays in the heap between calls; larger blocks are mapped and
/// zeroed anew for every layer.
template <typename Network>
at::Tensor in_small_batches(const std::uint8_t* images, ImageShape shape, int count, int dimensions,
                            at::Device device, const Network& network) {
  const at::NoGradGuard no_grad;
  const int at_a_time = device.is_cpu() ? 4 : std::max(count, 1);
  at::Tensor result = at::empty({count, dimensions}, at::kFloat);
  for (int first = 0; first < count; first += at_a_time) {
    const int n = std::min(at_a_time, count - first);
    result.narrow(0, first, n)
        .copy_(network(images + static_cast<std::size_t>(first) * shape.bytes(), n));
  }
  return result;
}

/// Float [count,3,H,W] on `device`, 0..255, channels_last.
at::Tensor images_to(at::Device device, const std::uint8_t* images, ImageShape shape, int count) {
  if (count < 0 || !shape.fixed()) throw std::invalid_argument("feature extractor: empty shape");
  const at::Tensor bytes = at::from_blob(const_cast<std::uint8_t*>(images),
                                         {count, shape.height, shape.width, kChannels},
                                         at::TensorOptions().dtype(at::kByte));
  // Bytes go to the device, a quarter of the floats. NHWC memory seen as NCHW is channels_last.
  return bytes.to(device).permute({0, 3, 1, 2}).to(at::kFloat);
}

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
    const auto network = [&](const std::uint8_t* some, int n) {
      const at::Tensor input =
          squash_bicubic(some, shape, n, EfficientNetLite0::kImageSize, device());
      return network_.features((input - 127) / 128);
    };
    return in_small_batches(images, shape, count, dimensions(), device(), network);
  }

 private:
  EfficientNetLite0 network_;
  std::string digest_;
};

class InceptionV3Extractor : public FeatureExtractor {
 public:
  InceptionV3Extractor(const fs::path& weights, std::string protocol)
      : network_(read_safetensors(weights), weights.string()),
        digest_(sha256_file(weights)),
        protocol_(std::move(protocol)) {}

  std::string name() const override { return kInceptionV3; }
  std::string distance() const override { return "FID (Inception, " + protocol_ + ")"; }
  int dimensions() const override { return InceptionV3::kFeatures; }
  std::string digest() const override { return digest_; }
  std::map<std::string, std::string> protocol() const override {
    std::map<std::string, std::string> result = {
        {"name", protocol_},
        {"image", "uint8 RGB"},
        {"normalize", "(x - 128) / 128"},
        {"features", "2048, global average pool before the classifier, float32"},
        {"distance", "Frechet, float64, covariances with N - 1"}};
    if (protocol_ == kClean) {
      result["resize"] =
          "squash to 299x299, antialiased bicubic (a = -0.5), float32, clamped to 0..255, not "
          "rounded";
    } else if (protocol_ == kLegacyPytorch) {
      result["resize"] = "squash to 299x299, bilinear, pixel centres at halves, not antialiased";
      result["normalize"] = "2 * (x / 255) - 1";
    } else {
      result["resize"] =
          "squash to 299x299, bilinear, pixel centres at integers (TensorFlow 1), not antialiased";
    }
    return result;
  }
  void to(at::Device device) override { network_.to(device); }
  at::Device device() const override { return network_.device(); }
  at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) override {
    const at::NoGradGuard no_grad;
    if (!device().is_cpu()) return network_.features(input(images, shape, count)).cpu();
    // An image on each thread rather than all threads on one convolution after the other: none
    // waits for another, what an image needs stays in its core's cache, and its features depend on
    // nothing else, not even by rounding.
    at::Tensor result = at::empty({count, dimensions()}, at::kFloat);
    at::parallel_for(0, count, 1, [&](std::int64_t first, std::int64_t last) {
      const at::NoGradGuard no_grad_on_this_thread;
      for (std::int64_t i = first; i < last; ++i) {
        const std::uint8_t* image = images + static_cast<std::size_t>(i) * shape.bytes();
        result.narrow(0, i, 1).copy_(network_.features(input(image, shape, 1)));
      }
    });
    return result;
  }
  at::Tensor unbiased_logits(const at::Tensor& features) const override {
    return network_.unbiased_logits(features.to(device())).cpu();
  }

 private:
  at::Tensor input(const std::uint8_t* images, ImageShape shape, int count) const {
    constexpr int kSize = InceptionV3::kImageSize;
    if (protocol_ == kClean) {
      return (squash_bicubic(images, shape, count, kSize, device()) - 128) / 128;
    }
    if (protocol_ == kLegacyPytorch) {
      // Divided before the resize and scaled after it, as pytorch-fid does.
      const at::Tensor x = images_to(device(), images, shape, count) / 255;
      return at::upsample_bilinear2d(x, {kSize, kSize}, /*align_corners=*/false) * 2 - 1;
    }
    return (squash_bilinear_tf1(images, shape, count, kSize, device()) - 128) / 128;
  }

  InceptionV3 network_;
  std::string digest_;
  std::string protocol_;
};

/// The folder of the library or program that holds this code.
fs::path own_folder() {
  Dl_info info{};
  static const int here = 0;
  if (::dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  return fs::canonical(info.dli_fname, error).parent_path();
}

std::string where_weights_come_from(const std::string& name) {
  if (name == kInceptionV3) {
    return "tools/fetch_weights downloads it, or tools/convert_weights.py makes it from "
           "pytorch-fid's pt_inception-2015-12-05-6726825d.pth";
  }
  if (name == kTorchScript) return "torch.jit.save makes it";
  return "tools/bootstrap makes it";
}

}  // namespace

std::vector<std::string> feature_extractor_names() {
  return {kEfficientNetLite0, kInceptionV3, kTorchScript};
}

std::vector<std::string> feature_protocol_names() {
  return {kClean, kLegacyPytorch, kLegacyTensorflow};
}

fs::path find_weights(const std::string& name, const fs::path& given) {
  std::error_code error;
  if (!given.empty()) {
    if (fs::is_regular_file(given, error)) return given;
    throw DataError(given.string() +
                    ": there is no such weights file (parameter 'weights' of the evaluation); " +
                    where_weights_come_from(name));
  }
  if (name == kTorchScript) {
    throw ConfigError(
        "the extractor 'torchscript' is a file of your own: give it as `weights` of the "
        "evaluation");
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
                  "' are not there; looked for:" + tried + "\n" + where_weights_come_from(name) +
                  ". Or give the file as `weights:` of the evaluation, or its "
                  "folder as GAN_PIPELINE_WEIGHTS.");
}

std::unique_ptr<FeatureExtractor> make_feature_extractor(const std::string& name,
                                                         const fs::path& weights,
                                                         const std::string& protocol,
                                                         const TorchScriptInput& input) {
  if (name == kEfficientNetLite0) {
    check_feature_protocol(name, protocol);
    return std::make_unique<EfficientNetLite0Extractor>(weights);
  }
  if (name == kInceptionV3) {
    check_feature_protocol(name, protocol);
    return std::make_unique<InceptionV3Extractor>(weights, protocol.empty() ? kClean : protocol);
  }
  if (name == kTorchScript) {
    check_feature_protocol(name, protocol);
    return load_torchscript_extractor(weights, input);
  }
  throw std::invalid_argument("no feature extractor '" + name + "'");
}

void check_feature_protocol(const std::string& extractor, const std::string& protocol) {
  if (protocol.empty()) return;
  const std::vector<std::string> names = feature_protocol_names();
  if (extractor != kInceptionV3) {
    throw ConfigError("protocol = " + protocol + ": the extractor '" + extractor +
                      "' has only its own protocol; leave `protocol` out, or take the extractor '" +
                      kInceptionV3 + "'");
  }
  if (std::find(names.begin(), names.end(), protocol) == names.end()) {
    throw ConfigError("protocol = " + protocol + ": the extractor '" + extractor +
                      "' has the protocols clean, legacy_pytorch and legacy_tensorflow");
  }
}

at::Tensor squash_bicubic(const std::uint8_t* images, ImageShape shape, int count, int size,
                          at::Device device) {
  const at::Tensor x = images_to(device, images, shape, count);
  return at::_upsample_bicubic2d_aa(x, {size, size}, /*align_corners=*/false).clamp_(0, 255);
}

at::Tensor squash_bilinear_tf1(const std::uint8_t* images, ImageShape shape, int count, int size,
                               at::Device device) {
  struct Axis {
    at::Tensor low;   ///< int64 [size], the pixel at or before the point
    at::Tensor high;  ///< the next one, or the last
    at::Tensor part;  ///< float [size], how far the point is on the way to it
  };
  const auto axis = [&](int extent) {
    // The step is rounded to float32 before it is multiplied, as in TensorFlow.
    const auto step = static_cast<float>(static_cast<double>(extent) / size);
    const at::Tensor point = at::arange(size, at::TensorOptions().dtype(at::kFloat)) * step;
    const at::Tensor low = point.to(at::kLong);
    return Axis{low.to(device), (low + 1).clamp_max(extent - 1).to(device),
                (point - low.to(at::kFloat)).to(device)};
  };
  const at::Tensor x = images_to(device, images, shape, count);
  const Axis across = axis(shape.width);
  const at::Tensor left = x.index_select(3, across.low);
  const at::Tensor rows = left + (x.index_select(3, across.high) - left) * across.part;
  const Axis down = axis(shape.height);
  const at::Tensor top = rows.index_select(2, down.low);
  return top + (rows.index_select(2, down.high) - top) * down.part.view({size, 1});
}

}  // namespace gp
