#include "stages/torch/compute_device.hpp"

#include <ATen/Context.h>
#include <ATen/cpu/Utils.h>
#include <dlfcn.h>

#include <optional>

#include "pipeline/error.hpp"

namespace gp {
namespace {

/// What the NVIDIA driver says, without any CUDA library.
class Driver {
 public:
  Driver() : library_(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    const auto init = function<int (*)(unsigned)>("cuInit");
    const auto count = function<int (*)(int*)>("cuDeviceGetCount");
    if (init == nullptr || count == nullptr || init(0) != 0 || count(&devices_) != 0) devices_ = 0;
  }
  bool loaded() const { return library_ != nullptr; }
  int devices() const { return devices_; }
  /// Major number of the compute capability; 0 when unknown.
  int capability(int device) const {
    constexpr int kCapabilityMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    const auto get = function<int (*)(int*, int)>("cuDeviceGet");
    const auto attribute = function<int (*)(int*, int, int)>("cuDeviceGetAttribute");
    int handle = 0;
    int major = 0;
    if (get == nullptr || attribute == nullptr || get(&handle, device) != 0 ||
        attribute(&major, kCapabilityMajor, handle) != 0) {
      return 0;
    }
    return major;
  }

 private:
  template <class Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(::dlsym(library_, name));
  }

  void* library_;  ///< never closed: the driver keeps threads
  int devices_ = 0;
};

/// N of "cuda:N", 0 for "cuda".
std::optional<int> cuda_index(const std::string& name) {
  if (name == "cuda") return 0;
  if (name.rfind("cuda:", 0) != 0) return {};
  const std::string digits = name.substr(5);
  if (digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return {};
  }
  return std::stoi(digits);
}

}  // namespace

at::Device resolve_device(const std::string& name) {
  const at::Device cpu(at::kCPU);
  if (name == "cpu") return cpu;
  const bool any = name == "auto";
  const std::optional<int> index = any ? 0 : cuda_index(name);
  if (!index) {
    throw ConfigError("device '" + name + "' is unknown; expected auto, cpu, cuda or cuda:N");
  }
  const Driver driver;
  if (any && driver.devices() == 0) return cpu;
  if (driver.devices() == 0) {
    throw RunError("device '" + name + "': " +
                   (driver.loaded() ? "the NVIDIA driver sees no GPU"
                                    : "no NVIDIA driver (libcuda.so.1) on this machine") +
                   "; choose device cpu or auto");
  }
  if (*index >= driver.devices()) {
    throw RunError("device '" + name + "': this machine has " + std::to_string(driver.devices()) +
                   " GPU(s), counted from 0");
  }
  // Before anything asks torch about CUDA: it looks once only.
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw RunError("device '" + name + "': cannot load the CUDA half of libtorch: " + ::dlerror() +
                   "; tools/bootstrap --gpu installs what it needs, or choose device cpu");
  }
  if (!at::globalContext().hasCUDA()) {
    throw RunError("device '" + name +
                   "': libtorch_cuda.so is loaded, but libtorch cannot use the GPU (is the driver "
                   "too old?); choose device cpu");
  }
  return {at::kCUDA, static_cast<at::DeviceIndex>(*index)};
}

bool has_native_bf16(at::Device device) {
  if (device.is_cuda()) return Driver().capability(device.index()) >= 8;
#if defined(__x86_64__)
  // Every processor with AMX has AVX512_BF16 too.
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool is_faster_in_bf16(at::Device device) {
  if (!has_native_bf16(device)) return false;
#if defined(__x86_64__)
  if (device.is_cpu()) return !__builtin_cpu_is("intel") || at::cpu::init_amx();
#endif
  return true;
}

bool resolve_bf16(const std::string& precision, at::Device device) {
  if (precision == "bf16") return true;
  if (precision == "fp32") return false;
  if (precision == "auto") return is_faster_in_bf16(device);
  throw ConfigError("precision '" + precision + "' is unknown; expected auto, fp32 or bf16");
}

}  // namespace gp
