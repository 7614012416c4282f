// A C++ plugin that throws, chosen when it is compiled: where the SDK catches it, and across the C
// boundary, where a plugin must not.
#include <stdexcept>

#include "pipeline/plugin_sdk.hpp"

struct TooDark : std::runtime_error {
  TooDark() : std::runtime_error("too dark") {}
};

struct Throwing {
  static constexpr auto name = "bad.throwing";
  static constexpr auto doc = "Throws.";

  void init() {
#ifdef THROW_IN_INIT
    throw std::runtime_error("the table needs more memory than there is");
#endif
  }
  void process(gp::sdk::Host&, gp::sdk::ImageIn, gp::sdk::ImageOut) const {
#ifdef THROW_IN_PROCESS
    throw THROW_IN_PROCESS;
#endif
  }
};

#ifdef THROW_ACROSS
namespace {
gp_status process(const void*, const gp_host*, const gp_image_in*, const gp_image_out*) {
  throw std::runtime_error("nobody caught me");
}
const gp_stage stage = [] {
  gp_stage made = gp::sdk::detail::Adapter<Throwing>::make();
  made.process = &process;
  return made;
}();
const gp_stage* const stages[] = {&stage};
}  // namespace
const gp_plugin gp_plugin_entry = {
    GP_ABI_MAJOR, GP_ABI_MINOR, sizeof(gp_plugin), "throwing", "1.0.0", stages, 1};
#else
GP_PLUGIN("throwing", "1.0.0", Throwing)
#endif
