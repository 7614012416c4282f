#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "pipeline/image.hpp"
#include "pipeline/plugin_abi.h"

namespace gp::testing {

/// The only stage of a shipped plugin, called over the C ABI with chosen random numbers, so that
/// its result can be compared with another library's for exactly the same amounts.
class ScriptedPlugin {
 public:
  /// `numbers`: parameters that differ from their defaults.
  ScriptedPlugin(const std::string& plugin, const std::map<std::string, double>& numbers,
                 const std::map<std::string, std::string>& texts = {}) {
    const std::string file = GP_BINARY_DIR "/lib/gan-pipeline/plugins/" + plugin + ".so";
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) throw std::runtime_error(dlerror());
    stage_ = static_cast<const gp_plugin*>(dlsym(library, "gp_plugin_entry"))->stages[0];
    std::vector<gp_value> values(stage_->n_params);
    std::vector<const gp_value*> pointers;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const gp_param& param = *stage_->params[i];
      const auto number = numbers.find(param.name);
      const auto text = texts.find(param.name);
      values[i] = {sizeof(gp_value),
                   param.type,
                   param.default_int,
                   param.default_real,
                   param.default_text == nullptr ? "" : param.default_text,
                   nullptr,
                   0};
      if (number != numbers.end()) {
        values[i].real = number->second;
        values[i].integer = static_cast<std::int64_t>(number->second);
      }
      if (text != texts.end()) values[i].text = text->second.c_str();
      pointers.push_back(&values[i]);
    }
    host_.struct_size = sizeof host_;
    host_.ctx = this;
    host_.uniform = [](const gp_host* host) { return self(host).next(); };
    host_.random_u32 = [](const gp_host* host) {
      return static_cast<std::uint32_t>(self(host).next() * 4294967296.0);
    };
    host_.normal = [](const gp_host* host) { return self(host).next(); };
    host_.fail = [](const gp_host* host, const char* text) { self(host).said_ = text; };
    if (stage_->create(&host_, pointers.data(), pointers.size(), &self_) != GP_OK) {
      throw std::runtime_error(said_);
    }
  }
  ~ScriptedPlugin() { stage_->destroy(self_); }
  ScriptedPlugin(const ScriptedPlugin&) = delete;
  ScriptedPlugin& operator=(const ScriptedPlugin&) = delete;

  /// `draws`: what uniform() gives, in this order; all of them must be used.
  Image process(const Image& in, std::vector<double> draws) {
    start(std::move(draws));
    Image out(in.shape().height, in.shape().width);
    const ConstImageView from = in.view();
    const ImageView to = out.view();
    const gp_image_in source{sizeof source, from.height, from.width,
                             kChannels,     from.stride, from.data};
    const gp_image_out target{sizeof target, to.height, to.width, kChannels, to.stride, to.data};
    EXPECT_EQ(stage_->process(self_, &host_, &source, &target), GP_OK) << said_;
    EXPECT_EQ(used_, draws_.size());
    return out;
  }
  Affine matrix(ImageShape in, std::vector<double> draws) {
    start(std::move(draws));
    Affine map;
    EXPECT_EQ(stage_->matrix(self_, &host_, in.height, in.width, map.m), GP_OK) << said_;
    EXPECT_EQ(used_, draws_.size());
    return map;
  }

 private:
  static ScriptedPlugin& self(const gp_host* host) {
    return *static_cast<ScriptedPlugin*>(host->ctx);
  }
  void start(std::vector<double> draws) {
    draws_ = std::move(draws);
    used_ = 0;
  }
  double next() {
    if (used_ == draws_.size()) {
      ADD_FAILURE() << "drew more than " << used_ << " numbers";
      return 0;
    }
    return draws_[used_++];
  }

  const gp_stage* stage_ = nullptr;
  void* self_ = nullptr;
  gp_host host_{};
  std::vector<double> draws_;
  std::size_t used_ = 0;
  std::string said_;
};

}  // namespace gp::testing
