// A stage module with an evaluator that costs nothing: its record tells the snapshots apart.
#include <string>
#include <thread>

#include "pipeline/module.hpp"

namespace {

class MeasuresSnapshot : public gp::EvaluateStage {
 public:
  explicit MeasuresSnapshot(const gp::Params& params)
      : best_(params.integer("best")),
        milliseconds_(params.integer("milliseconds")),
        blocking_(params.flag("blocking")),
        deaf_(params.flag("deaf")) {}

  bool due(std::uint32_t, bool) const override { return true; }
  bool blocking() const override { return blocking_; }
  /// `distance` is how far the step is from `best`; nothing after a stop, which it waits for unless
  /// it is deaf.
  std::string evaluate(gp::Snapshot& snapshot, gp::EvaluateContext& context) override {
    for (std::int64_t waited = 0; waited < milliseconds_; ++waited) {
      if (!deaf_ && context.stop.stop_requested()) return "";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const auto step = static_cast<std::int64_t>(snapshot.step());
    return "{\"step\":" + std::to_string(step) + ",\"epoch\":" + std::to_string(snapshot.epoch()) +
           ",\"digest\":\"" + snapshot.digest() +
           "\",\"metrics\":{\"distance\":" + std::to_string(std::abs(step - best_)) + "}}";
  }

 private:
  std::int64_t best_;
  std::int64_t milliseconds_;
  bool blocking_;
  bool deaf_;
};

}  // namespace

GP_STAGE_MODULE(registry) {
  gp::StageInfo info;
  info.name = "test.measure";
  info.doc = "Measures next to nothing.";
  info.in = gp::Kind::kSnapshot;
  info.out = gp::Kind::kNothing;
  info.params.integer("best", 0, "the step that is the best one", 0, 1000000)
      .integer("milliseconds", 0, "how long it takes", 0, 1000000)
      .flag("blocking", true, "training waits for it")
      .flag("deaf", false, "a stop does not end it");
  info.create = [](const gp::Params& params) { return std::make_unique<MeasuresSnapshot>(params); };
  registry.add(info);
}
