#include "stages/torch/torchscript_extractor.hpp"

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

class TorchScriptExtractor : public FeatureExtractor {
 public:
  TorchScriptExtractor(const fs::path& file, const TorchScriptInput& input)
      : file_(file), input_(input), digest_(sha256_file(file)) {
    try {
      module_ = torch::jit::load(file.string(), at::kCPU);
      module_.eval();
    } catch (const c10::Error& error) {
      throw DataError(
          file.string() +
          ": cannot be loaded as TorchScript (torch.jit.save makes it from a scripted or "
          "traced module; torch.save does not): " +
          first_line(error));
    }
    // Black and gray: two images, so that a lost batch dimension is noticed.
    std::vector<std::uint8_t> images(2 * shape().bytes(), 0);
    std::fill(images.begin() + static_cast<std::ptrdiff_t>(shape().bytes()), images.end(), 128);
    const at::Tensor found = forward(images.data(), shape(), 2);
    if (!at::isfinite(found).all().item<bool>()) {
      throw DataError(file.string() +
                      ": its forward() returns NaN or infinity for a black and a "
                      "gray image; check input_range");
    }
    dimensions_ = static_cast<int>(found.size(1));
  }

  std::string name() const override { return "torchscript"; }
  std::string distance() const override {
    return "FD-" + file_.stem().string() + "-" + digest_.substr(0, 8);
  }
  int dimensions() const override { return dimensions_; }
  std::string digest() const override { return digest_; }
  std::map<std::string, std::string> protocol() const override {
    const std::string size = std::to_string(input_.size);
    char range[96];
    std::snprintf(range, sizeof range, "0..255 to %.9g..%.9g", input_.low, input_.high);
    return {{"image", "uint8 RGB"},
            {"resize", "squash to " + size + "x" + size +
                           ", antialiased bicubic (a = -0.5), float32, clamped to 0..255, not "
                           "rounded"},
            {"normalize", range},
            {"features", std::to_string(dimensions_) + ", forward() of " +
                             file_.filename().string() + ", float32"},
            {"distance", "Frechet, float64, covariances with N - 1"}};
  }
  void to(at::Device device) override {
    if (device == device_) return;
    module_.to(device);
    device_ = device;
  }
  at::Device device() const override { return device_; }
  at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) override {
    if (count == 0) return at::empty({0, dimensions_}, at::kFloat);
    const at::Tensor result = forward(images, shape, count);
    if (result.size(1) != dimensions_) refuse(c10::str(result.sizes()), count);
    return result;
  }

 private:
  ImageShape shape() const { return {input_.size, input_.size}; }

  static std::string first_line(const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return text.substr(0, text.find('\n'));
  }

  [[noreturn]] void refuse(const std::string& found, int count) const {
    throw DataError(file_.string() + ": its forward() returns " + found + " for float [" +
                    std::to_string(count) + ", 3, " + std::to_string(input_.size) + ", " +
                    std::to_string(input_.size) + "]; expected features, a float tensor [" +
                    std::to_string(count) + ", " +
                    (dimensions_ > 0 ? std::to_string(dimensions_) : "D") + "]");
  }

  at::Tensor forward(const std::uint8_t* images, ImageShape shape, int count) {
    const at::NoGradGuard no_grad;
    // Optimised code is another program from the second call on, and rounds differently.
    const torch::jit::GraphOptimizerEnabledGuard as_it_is(false);
    const at::Tensor pixels = squash_bicubic(images, shape, count, input_.size, device_);
    const at::Tensor scaled =
        (pixels * ((input_.high - input_.low) / 255) + input_.low).contiguous();
    torch::jit::IValue found;
    try {
      found = module_.forward({scaled});
    } catch (const std::exception& error) {  // of torch, or of the script
      const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
      throw DataError(file_.string() + ": its forward() fails on float " +
                      c10::str(scaled.sizes()) + " (is input_size right?): " +
                      (of_torch != nullptr ? first_line(*of_torch) : error.what()));
    }
    if (!found.isTensor()) refuse("a " + found.tagKind(), count);
    const at::Tensor features = found.toTensor();
    if (features.dim() != 2 || features.size(0) != count || features.size(1) < 1 ||
        !features.is_floating_point()) {
      refuse(std::string(c10::toString(features.scalar_type())) + " " + c10::str(features.sizes()),
             count);
    }
    return features.to(at::kCPU, at::kFloat);
  }

  fs::path file_;
  TorchScriptInput input_;
  std::string digest_;
  torch::jit::Module module_;
  at::Device device_ = at::kCPU;
  int dimensions_ = 0;
};

}  // namespace

std::unique_ptr<FeatureExtractor> load_torchscript_extractor(const fs::path& file,
                                                             const TorchScriptInput& input) {
  return std::make_unique<TorchScriptExtractor>(file, input);
}

}  // namespace gp
