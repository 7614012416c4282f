// A C++ stage module; a fault is chosen when it is compiled.
#include "pipeline/module.hpp"

#include <stdexcept>

#include "pipeline/error.hpp"

namespace {

class Brighten : public gp::TransformStage {
 public:
  void process(const gp::StageInput& in, gp::Rng&, gp::StageOutput& out) const override {
    const gp::ImageView to = out.image(in.image.height, in.image.width);
    for (int y = 0; y < to.height; ++y) {
      for (int i = 0; i < to.width * gp::kChannels; ++i) {
        to.row(y)[i] = static_cast<std::uint8_t>(in.image.row(y)[i] | 1);
      }
    }
  }
};

}  // namespace

#ifdef STALE_MODULE
extern "C" const char* gp_module_build_id() { return "gan-pipeline 0.0.1, made yesterday"; }
extern "C" void gp_module_register(gp::StageRegistry& registry)
#else
GP_STAGE_MODULE(registry)
#endif
{
#ifdef THROWING_MODULE
  throw std::runtime_error("the camera is not plugged in");
#endif
  gp::StageInfo info;
  info.name = "test.brighten";
  info.doc = "Sets the lowest bit.";
  info.in = gp::Kind::kImage;
  info.out = gp::Kind::kImage;
  info.create = [](const gp::Params&) { return std::make_unique<Brighten>(); };
  registry.add(info);
}
