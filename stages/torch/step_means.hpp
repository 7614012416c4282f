#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "stages/torch/gan_step.hpp"

namespace gp {

/// Means over the steps since the last reset.
class StepMeans {
 public:
  void add(const GanStep& step, int images);
  void reset() { *this = {}; }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t images() const { return images_; }
  double loss_d() const { return mean(loss_d_); }
  double loss_g() const { return mean(loss_g_); }
  double accuracy_real() const { return mean(accuracy_real_); }
  double accuracy_fake() const { return mean(accuracy_fake_); }
  /// Of GanStep::extras, over the steps that measured them.
  std::map<std::string, double> extras() const;

  /// The sums, exactly: read_json(json()) is the same object. Throws nlohmann's exceptions.
  nlohmann::ordered_json json() const;
  static StepMeans read_json(const nlohmann::ordered_json& json);

 private:
  double mean(double sum) const { return steps_ == 0 ? 0 : sum / static_cast<double>(steps_); }

  std::uint64_t steps_ = 0;
  std::uint64_t images_ = 0;
  double loss_d_ = 0, loss_g_ = 0, accuracy_real_ = 0, accuracy_fake_ = 0;
  struct Sum {
    double sum = 0;
    std::uint64_t count = 0;
  };
  std::map<std::string, Sum> extras_;
};

}  // namespace gp
