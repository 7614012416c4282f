#include "stages/torch/model.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace gp {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const DcganConfig& model) {
  return {{"type", "dcgan"},
          {"resolution", model.resolution},
          {"latent", model.latent},
          {"channels", model.channels},
          {"channels_d", model.channels_d},
          {"max_channels", model.max_channels},
          {"dropout", model.dropout}};
}

template <class Enum>
Enum read_enum(const ordered_json& model, const char* key, const std::vector<std::string>& names) {
  const std::string name = model.at(key).get<std::string>();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw std::runtime_error(std::string("model.") + key + " = \"" + name + "\" is not known");
  }
  return static_cast<Enum>(found - names.begin());
}

ordered_json to_json(const GanConfig& model) {
  return {{"type", "gan"},
          {"resolution", model.resolution},
          {"latent", model.latent},
          {"channels", model.channels},
          {"channels_d", model.channels_d},
          {"max_channels", model.max_channels},
          {"blocks", GanConfig::block_names()[static_cast<std::size_t>(model.blocks)]},
          {"norm_g", GanConfig::norm_names()[static_cast<std::size_t>(model.norm_g)]},
          {"norm_d", GanConfig::norm_names()[static_cast<std::size_t>(model.norm_d)]},
          {"dropout", model.dropout},
          {"minibatch_stddev", model.minibatch_stddev},
          {"classes", model.classes},
          {"growth", GanConfig::growth_names()[static_cast<std::size_t>(model.growth)]},
          {"first_resolution", model.first_resolution}};
}

int number(const ordered_json& model, const char* name, int min, int max) {
  const std::int64_t value = model.at(name).get<std::int64_t>();
  if (value < min || value > max) {
    throw std::runtime_error(std::string("model.") + name + " = " + std::to_string(value) +
                             " is outside [" + std::to_string(min) + ", " + std::to_string(max) +
                             "]");
  }
  return static_cast<int>(value);
}

int size(const ordered_json& model, const char* name, int min, int max) {
  const int value = number(model, name, min, max);
  if (std::has_single_bit(static_cast<unsigned>(value))) return value;
  throw std::runtime_error(std::string("model.") + name + " = " + std::to_string(value) +
                           " is no power of two");
}

/// What both kinds of model have.
template <class Config>
void read_sizes(const ordered_json& json, Config& model) {
  model.resolution =
      size(json, "resolution", DcganConfig::kMinResolution, DcganConfig::kMaxResolution);
  model.latent = number(json, "latent", 1, DcganConfig::kMaxLatent);
  model.channels = number(json, "channels", 1, DcganConfig::kMaxChannels);
  model.channels_d = number(json, "channels_d", 1, DcganConfig::kMaxChannels);
  model.max_channels = number(json, "max_channels", 1, DcganConfig::kMaxChannels);
  model.dropout = json.at("dropout").get<double>();
  if (!(model.dropout >= 0 && model.dropout < 1)) {
    throw std::runtime_error("model.dropout = " + json.at("dropout").dump() + " is outside [0, 1)");
  }
}

std::shared_ptr<GeneratorNetwork> generator(const DcganConfig& model) {
  return std::make_shared<GeneratorImpl>(model);
}
std::shared_ptr<GeneratorNetwork> generator(const GanConfig& model) {
  return std::make_shared<GanGeneratorImpl>(model);
}

std::shared_ptr<DiscriminatorNetwork> discriminator(const DcganConfig& model) {
  return std::make_shared<DiscriminatorImpl>(model);
}
std::shared_ptr<DiscriminatorNetwork> discriminator(const GanConfig& model) {
  return std::make_shared<GanDiscriminatorImpl>(model);
}

}  // namespace

int resolution_of(const ModelConfig& model) {
  return std::visit([](const auto& config) { return config.resolution; }, model);
}

int latent_of(const ModelConfig& model) {
  return std::visit([](const auto& config) { return config.latent; }, model);
}

int classes_of(const ModelConfig& model) {
  const auto* const gan = std::get_if<GanConfig>(&model);
  return gan == nullptr ? 0 : gan->classes;
}

std::shared_ptr<GeneratorNetwork> make_generator(const ModelConfig& model) {
  return std::visit(
      [](const auto& config) -> std::shared_ptr<GeneratorNetwork> { return generator(config); },
      model);
}

std::shared_ptr<DiscriminatorNetwork> make_discriminator(const ModelConfig& model) {
  return std::visit(
      [](const auto& config) -> std::shared_ptr<DiscriminatorNetwork> {
        return discriminator(config);
      },
      model);
}

ordered_json model_json(const ModelConfig& model) {
  return std::visit([](const auto& config) { return to_json(config); }, model);
}

ModelConfig read_model(const ordered_json& json) {
  const std::string type = json.at("type").get<std::string>();
  if (type == "dcgan") {
    DcganConfig model;
    read_sizes(json, model);
    return model;
  }
  if (type == "gan") {
    GanConfig model;
    read_sizes(json, model);
    model.blocks = read_enum<GanConfig::Blocks>(json, "blocks", GanConfig::block_names());
    model.norm_g = read_enum<GanConfig::Norm>(json, "norm_g", GanConfig::norm_names());
    if (model.norm_g == GanConfig::Norm::kSpectral) {
      throw std::runtime_error("model.norm_g = \"spectral\" is the discriminator's only");
    }
    model.norm_d = read_enum<GanConfig::Norm>(json, "norm_d", GanConfig::norm_names());
    model.minibatch_stddev = json.at("minibatch_stddev").get<bool>();
    model.classes = number(json, "classes", 0, GanConfig::kMaxClasses);
    model.growth = read_enum<GanConfig::Growth>(json, "growth", GanConfig::growth_names());
    model.first_resolution = size(json, "first_resolution", 8, model.resolution);
    return model;
  }
  throw std::runtime_error("its model is \"" + type + "\", expected \"dcgan\" or \"gan\"");
}

}  // namespace gp
