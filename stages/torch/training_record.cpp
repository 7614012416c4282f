#include "stages/torch/training_record.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pipeline/files.hpp"
#include "stages/common/plot.hpp"

namespace gp {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kPlotPoints = 1000;

std::filesystem::path in(const std::filesystem::path& directory, const char* name) {
  return directory.empty() ? directory : directory / name;
}

void put_findings(ordered_json& json, const std::vector<std::string>& findings) {
  for (const std::string& finding : findings) {
    json["findings"].push_back(ordered_json::parse(finding));
  }
}

}  // namespace

TrainingRecord::TrainingRecord(const std::filesystem::path& directory, Log& log)
    : directory_(directory),
      metrics_file_(in(directory, "metrics.jsonl"), log),
      rejects_file_(in(directory, "rejects.jsonl"), log) {}

void TrainingRecord::resume_after(std::uint64_t step, std::uint64_t rejects) {
  metrics_file_.keep_lines([&](std::uint64_t, const std::string& text) {
    try {
      const ordered_json line = ordered_json::parse(text);
      if (line.at("step").get<std::uint64_t>() > step) return false;
      add_point(line.at("step").get<double>(), line.at("loss_d").get<double>(),
                line.at("loss_g").get<double>(), line.at("accuracy_real").get<double>(),
                line.at("accuracy_fake").get<double>());
      return true;
    } catch (const nlohmann::json::exception&) {  // half a line, or findings alone
      return false;
    }
  });
  rejects_file_.keep_lines(
      [&](std::uint64_t number, const std::string&) { return number < rejects; });
  rejected_ = rejects;
}

void TrainingRecord::sync() {
  metrics_file_.sync();
  rejects_file_.sync();
}

void TrainingRecord::add_point(double step, double loss_d, double loss_g, double accuracy_real,
                               double accuracy_fake) {
  steps_.push_back(step);
  loss_d_.push_back(loss_d);
  loss_g_.push_back(loss_g);
  accuracy_real_.push_back(accuracy_real);
  accuracy_fake_.push_back(accuracy_fake);
}

void TrainingRecord::add(const Line& line) {
  const StepMeans& means = line.means;
  add_point(static_cast<double>(line.step), means.loss_d(), means.loss_g(), means.accuracy_real(),
            means.accuracy_fake());
  ordered_json json{{"step", line.step},
                    {"epoch", line.epoch},
                    {"images", line.images},
                    {"loss_d", means.loss_d()},
                    {"loss_g", means.loss_g()},
                    {"accuracy_real", means.accuracy_real()},
                    {"accuracy_fake", means.accuracy_fake()},
                    {"images_per_second", line.images_per_second},
                    {"waited", line.waited}};
  for (const auto& [name, mean] : means.extras()) json[name] = mean;
  if (line.data_epoch > 0) json["data_epoch"] = line.data_epoch;
  put_findings(json, line.findings);
  metrics_file_.add(json.dump());
}

void TrainingRecord::add_findings(std::uint64_t step, const std::vector<std::string>& findings) {
  ordered_json json{{"step", step}};
  put_findings(json, findings);
  metrics_file_.add(json.dump());
}

void TrainingRecord::add_rejects(const std::vector<Reject>& rejects) {
  rejected_ += rejects.size();
  for (const Reject& reject : rejects) {
    // File names need not be UTF-8; what is not becomes U+FFFD.
    rejects_file_.add(ordered_json{
        {"key", reject.key},
        {"stage", reject.stage},
        {"reason", reject.reason},
        {"dropped",
         reject.dropped}}.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
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
  write_plot(
      folder / "loss.png",
      {"Losses", "step", "loss", {series("discriminator", loss_d_), series("generator", loss_g_)}});
  write_plot(folder / "acc.png",
             {"Discriminator accuracy",
              "step",
              "share classified correctly",
              {series("reals", accuracy_real_), series("fakes", accuracy_fake_)}});
}

}  // namespace gp
