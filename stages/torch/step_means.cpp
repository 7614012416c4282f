#include "stages/torch/step_means.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

namespace gp {

void StepMeans::add(const GanStep& step, int images) {
  ++steps_;
  images_ += static_cast<std::uint64_t>(images);
  loss_d_ += step.loss_d();
  loss_g_ += step.loss_g;
  accuracy_real_ += step.accuracy_real;
  accuracy_fake_ += step.accuracy_fake;
  for (const auto& [name, value] : step.extras) {
    if (std::isnan(value)) continue;
    Sum& sum = extras_[name];
    sum.sum += value;
    ++sum.count;
  }
}

std::map<std::string, double> StepMeans::extras() const {
  std::map<std::string, double> means;
  for (const auto& [name, sum] : extras_) means[name] = sum.sum / static_cast<double>(sum.count);
  return means;
}

nlohmann::ordered_json StepMeans::json() const {
  nlohmann::ordered_json json{{"steps", steps_},
                              {"images", images_},
                              {"loss_d", loss_d_},
                              {"loss_g", loss_g_},
                              {"accuracy_real", accuracy_real_},
                              {"accuracy_fake", accuracy_fake_}};
  nlohmann::ordered_json extras = nlohmann::ordered_json::object();
  for (const auto& [name, sum] : extras_) extras[name] = {sum.sum, sum.count};
  json["extras"] = extras;
  return json;
}

StepMeans StepMeans::read_json(const nlohmann::ordered_json& json) {
  StepMeans means;
  means.steps_ = json.at("steps").get<std::uint64_t>();
  means.images_ = json.at("images").get<std::uint64_t>();
  means.loss_d_ = json.at("loss_d").get<double>();
  means.loss_g_ = json.at("loss_g").get<double>();
  means.accuracy_real_ = json.at("accuracy_real").get<double>();
  means.accuracy_fake_ = json.at("accuracy_fake").get<double>();
  for (const auto& [name, sum] : json.at("extras").items()) {
    means.extras_[name] = {sum.at(0).get<double>(), sum.at(1).get<std::uint64_t>()};
  }
  return means;
}

}  // namespace gp
