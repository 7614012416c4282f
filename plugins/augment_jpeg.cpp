#include <turbojpeg.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "pipeline/plugin_sdk.hpp"

struct Jpeg {
  static constexpr auto name = "augment.jpeg";
  static constexpr auto doc = "Adds what JPEG compression (4:2:0) of random quality leaves behind.";
  static constexpr bool random = true;

  double p = 0.5;
  int quality_min = 30, quality_max = 95;

  static void params(gp::sdk::Params<Jpeg>& params) {
    params.add("p", &Jpeg::p, "probability", 0, 1);
    params.add("quality_min", &Jpeg::quality_min, "lowest quality", 1, 100);
    params.add("quality_max", &Jpeg::quality_max, "highest quality", 1, 100);
  }

  void init() {
    if (quality_min > quality_max) {
      throw std::invalid_argument("quality_min is greater than quality_max");
    }
  }

  using Handle = std::unique_ptr<void, int (*)(tjhandle)>;
  static void check(tjhandle handle, bool good) {
    if (!good) throw std::runtime_error(std::string("libjpeg-turbo: ") + tjGetErrorStr2(handle));
  }

  void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (!host.chance(p)) return gp::sdk::copy(in, out);
    const int quality =
        quality_min + static_cast<int>(host.uniform() * (quality_max - quality_min + 1));
    // Fresh handles: one that met an error stays in it.
    const Handle compress(tjInitCompress(), tjDestroy);
    const Handle decompress(tjInitDecompress(), tjDestroy);
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    const int compressed =
        tjCompress2(compress.get(), in.data, in.width, static_cast<int>(in.stride), in.height,
                    TJPF_RGB, &bytes, &size, TJSAMP_420, quality, TJFLAG_ACCURATEDCT);
    const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
    check(compress.get(), compressed == 0);
    check(decompress.get(), tjDecompress2(decompress.get(), bytes, size, out.data, out.width,
                                          static_cast<int>(out.stride), out.height, TJPF_RGB,
                                          TJFLAG_ACCURATEDCT) == 0);
  }
};

GP_PLUGIN("augment_jpeg", "1.0.0", Jpeg)
