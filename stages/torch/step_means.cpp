#include "stages/torch/step_means.hpp"

#include <nlohmann/json.hpp>

namespace gp {

void StepMeans::add(const GanStep& step, int images) {
  ++steps_;
  images_ += static_cast<std::uint64_t>(images);
  loss_d_ += step.loss_d();
  loss_g_ += step.loss_g;
  accuracy_real_ += step.accuracy_real;
  accuracy_fake_ += step.accuracy_fake;
}

nlohmann::ordered_json StepMeans::json() const {
  return {{"steps", steps_},
          {"images", images_},
          {"loss_d", loss_d_},
          {"loss_g", loss_g_},
          {"accuracy_real", accuracy_real_},
          {"accuracy_fake", accuracy_fake_}};
}

StepMeans StepMeans::read_json(const nlohmann::ordered_json& json) {
  StepMeans means;
  means.steps_ = json.at("steps").get<std::uint64_t>();
  means.images_ = json.at("images").get<std::uint64_t>();
  means.loss_d_ = json.at("loss_d").get<double>();
  means.loss_g_ = json.at("loss_g").get<double>();
  means.accuracy_real_ = json.at("accuracy_real").get<double>();
  means.accuracy_fake_ = json.at("accuracy_fake").get<double>();
  return means;
}

}  // namespace gp
