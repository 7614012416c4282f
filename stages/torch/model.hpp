#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>

#include "stages/torch/dcgan.hpp"
#include "stages/torch/gan_networks.hpp"
#include "stages/torch/networks.hpp"

namespace gp {

/// Which networks a training has: what is needed to build them, as checkpoints hold it.
using ModelConfig = std::variant<DcganConfig, GanConfig>;

int resolution_of(const ModelConfig& model);
int latent_of(const ModelConfig& model);
/// 0: not conditional.
int classes_of(const ModelConfig& model);

std::shared_ptr<GeneratorNetwork> make_generator(const ModelConfig& model);
std::shared_ptr<DiscriminatorNetwork> make_discriminator(const ModelConfig& model);
/// `{"type": "dcgan", ..}`, and back. Numbers size allocations and may come from anywhere, so they
/// are not believed unchecked: throws std::runtime_error that names what is wrong, or one of
/// nlohmann's exceptions.
nlohmann::ordered_json model_json(const ModelConfig& model);
ModelConfig read_model(const nlohmann::ordered_json& json);

}  // namespace gp
