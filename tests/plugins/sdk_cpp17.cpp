// Every feature of the SDK in C++17; loaded by augment_test.
#include <memory>
#include <string>
#include <vector>

#include "pipeline/plugin_sdk.hpp"

namespace {

/// Half the size, through a table made in init; cannot be copied.
class Half {
 public:
  static constexpr auto name = "sdk.half";
  static constexpr auto doc = "Every second pixel, through a table.";
  static constexpr bool serial = true;

  static void params(gp::sdk::Params<Half>& params) {
    params.add("flag", &Half::flag_, "throws from init");
    params.add("add", &Half::add_, "added to every byte", 0, 10);
    params.add("share", &Half::share_, "unused", 0, 1);
    params.add("text", &Half::text_, "what a bad sample is told");
    params.add("list", &Half::list_, "unused", -1, 1);
    params.choice("mode", &Half::mode_, "what to do", {"half", "throw", "drop", "odd"});
  }
  void init() {
    if (flag_) throw std::runtime_error("told to fail");
    table_ = std::make_unique<std::uint8_t[]>(256);
    for (int i = 0; i < 256; ++i) table_[i] = static_cast<std::uint8_t>(i + add_);
  }
  gp::sdk::Size output_size(gp::sdk::Size in) const { return {in.height / 2, in.width / 2}; }
  void process(gp::sdk::Host&, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    if (mode_ == "throw") throw std::runtime_error(text_);
    if (mode_ == "drop") throw gp::sdk::Drop(text_);
    if (mode_ == "odd") throw 7;
    for (int y = 0; y < out.height; ++y) {
      for (int i = 0; i < out.width * 3; ++i) {
        out.row(y)[i] = table_[in.row(2 * y)[i / 3 * 6 + i % 3]];
      }
    }
  }

 private:
  bool flag_ = false;
  int add_ = 1;
  double share_ = 0.5;
  std::string text_ = "bad picture";
  std::vector<double> list_{0.5, -0.5};
  std::string mode_ = "half";
  std::unique_ptr<std::uint8_t[]> table_;
};

/// The least that a stage can be.
struct Copy {
  static constexpr auto name = "sdk.copy";
  static constexpr auto doc = "Copies.";
  void process(gp::sdk::Host&, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
    gp::sdk::copy(in, out);
  }
};

}  // namespace

GP_PLUGIN("sdk_cpp17", "2.3.4", Half, Copy)
