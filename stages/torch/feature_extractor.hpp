#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/image.hpp"

namespace gp {

/// Turns images into the vectors over which a Frechet distance is taken. The numbers mean something
/// only together with how they were made: protocol() says that, and goes into every record.
class FeatureExtractor {
 public:
  virtual ~FeatureExtractor() = default;
  virtual std::string name() const = 0;  ///< as in the YAML: "efficientnet_lite0"
  /// What a distance is called: "FD-EfficientNet-Lite0", "FID (Inception, clean)". Only Inception's
  /// is FID.
  virtual std::string distance() const = 0;
  virtual int dimensions() const = 0;
  virtual std::string digest() const = 0;  ///< SHA-256 of the weights file
  virtual std::map<std::string, std::string> protocol() const = 0;
  virtual void to(at::Device device) = 0;
  virtual at::Device device() const = 0;
  /// Features of `count` images (uint8 NHWC, RGB, any size): float [count, dimensions()] on the
  /// CPU. A function of the images alone, up to rounding that depends on batch size and threads.
  virtual at::Tensor features(const std::uint8_t* images, ImageShape shape, int count) = 0;
  /// Class scores of such features, before softmax and without the bias: float [count, classes] on
  /// the CPU. Undefined where the Inception score is not taken from this network.
  virtual at::Tensor unbiased_logits(const at::Tensor& /*features*/) const { return {}; }
};

/// The names `make_feature_extractor` knows.
std::vector<std::string> feature_extractor_names();

/// How an image of any size becomes a network's input, where an extractor leaves the choice:
/// - "clean": antialiased bicubic (clean-fid), the default;
/// - "legacy_pytorch": bilinear without antialiasing (pytorch-fid);
/// - "legacy_tensorflow": TensorFlow 1's bilinear (torch-fidelity, and the original FID).
/// Distances of different protocols do not compare.
std::vector<std::string> feature_protocol_names();

/// Throws ConfigError when `extractor` does not have `protocol`; "" is each extractor's default.
void check_feature_protocol(const std::string& extractor, const std::string& protocol);

/// Finds the weights file `name`.safetensors: `given` where not empty; otherwise in the folder that
/// GAN_PIPELINE_WEIGHTS names, else beside the installation (share/gan-pipeline), else where
/// tools/bootstrap puts it (.deps of the source tree). Throws DataError that lists the places
/// tried.
std::filesystem::path find_weights(const std::string& name, const std::filesystem::path& given);

/// What a network given as TorchScript takes: see torchscript_extractor.hpp.
struct TorchScriptInput {
  int size = 224;   ///< pixels, of both sides
  double low = -1;  ///< the value of a black pixel
  double high = 1;  ///< of a white one
};

/// Loads the extractor, on the CPU. Throws DataError when the file is not what it should be, and
/// ConfigError as check_feature_protocol does.
std::unique_ptr<FeatureExtractor> make_feature_extractor(const std::string& name,
                                                         const std::filesystem::path& weights,
                                                         const std::string& protocol = {},
                                                         const TorchScriptInput& input = {});

/// What networks trained on photographs of `size` x `size` see of an image of any size: squashed by
/// antialiased bicubic interpolation in float32, clamped to 0..255, not rounded.
///
/// The kernel is Keys' cubic with a = -0.5, widened by the scale where the image shrinks; pixel
/// centres at half-integers; weights cut at the border and normalised. That is Pillow's BICUBIC on
/// its float mode "F" and the resize of "clean" FID (Parmar et al., CVPR 2022).
///
/// `images`: uint8 NHWC on the CPU, `count` of `shape`. Returns float [count,3,size,size] on
/// `device`, channels_last.
at::Tensor squash_bicubic(const std::uint8_t* images, ImageShape shape, int count, int size,
                          at::Device device);

/// The same by TensorFlow 1's resize_bilinear with align_corners = False: pixel centres at integers
/// (so the image shifts by up to half a pixel), two neighbours each way, no antialiasing, float32.
/// Equal to torch-fidelity's interpolate_bilinear_2d_like_tensorflow1x.
at::Tensor squash_bilinear_tf1(const std::uint8_t* images, ImageShape shape, int count, int size,
                               at::Device device);

}  // namespace gp
