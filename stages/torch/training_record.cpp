#include "stages/torch/training_record.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pipeline/files.hpp"
#include "stages/common/plot.hpp"

namespace gp {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kPlotPoints = 1000;

}  // namespace

void StepMeans::add(const GanStep& step, int images) {
  ++steps_;
  images_ += static_cast<std::uint64_t>(images);
  loss_d_ += step.loss_d();
  loss_g_ += step.loss_g;
  accuracy_real_ += step.accuracy_real;
  accuracy_fake_ += step.accuracy_fake;
}

void TrainingRecord::add(const Line& line) {
  steps_.push_back(static_cast<double>(line.step));
  loss_d_.push_back(line.means.loss_d());
  loss_g_.push_back(line.means.loss_g());
  accuracy_real_.push_back(line.means.accuracy_real());
  accuracy_fake_.push_back(line.means.accuracy_fake());
  if (directory_.empty()) return;
  append_line(directory_ / "metrics.jsonl",
              ordered_json{{"step", line.step},
                           {"epoch", line.epoch},
                           {"images", line.images},
                           {"loss_d", line.means.loss_d()},
                           {"loss_g", line.means.loss_g()},
                           {"accuracy_real", line.means.accuracy_real()},
                           {"accuracy_fake", line.means.accuracy_fake()},
                           {"images_per_second", line.images_per_second},
                           {"waited", line.waited}}
                  .dump());
}

void TrainingRecord::add_rejects(const std::vector<Reject>& rejects) {
  if (directory_.empty()) return;
  for (const Reject& reject : rejects) {
    // File names need not be UTF-8; what is not becomes U+FFFD.
    append_line(directory_ / "rejects.jsonl",
                ordered_json{{"key", reject.key},
                             {"stage", reject.stage},
                             {"reason", reject.reason},
                             {"dropped", reject.dropped}}
                    .dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  }
}

std::vector<double> thin(const std::vector<double>& values, std::size_t points) {
  const std::size_t run = (values.size() + points - 1) / points;
  if (run <= 1) return values;
  std::vector<double> means;
  for (std::size_t begin = 0; begin < values.size(); begin += run) {
    const std::size_t end = std::min(begin + run, values.size());
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += values[i];
    means.push_back(sum / static_cast<double>(end - begin));
  }
  return means;
}

void TrainingRecord::write_plots() const {
  if (directory_.empty() || steps_.empty()) return;
  const std::filesystem::path folder = directory_ / "plots";
  make_folders(folder);
  const std::vector<double> x = thin(steps_, kPlotPoints);
  const auto series = [&](const std::string& name, const std::vector<double>& y) {
    return PlotSeries{name, x, thin(y, kPlotPoints)};
  };
  write_plot(folder / "loss.png",
             {"Losses",
              "step",
              "binary cross-entropy",
              {series("discriminator", loss_d_), series("generator", loss_g_)}});
  write_plot(folder / "acc.png",
             {"Discriminator accuracy",
              "step",
              "share classified correctly",
              {series("reals", accuracy_real_), series("fakes", accuracy_fake_)}});
}

}  // namespace gp
