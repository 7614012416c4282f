// A stage module with an end that takes batches as a trainer does and throws them away.
#include "pipeline/module.hpp"

namespace {

class TrainsNothing : public gp::TrainStage {
 public:
  explicit TrainsNothing(const gp::Params& params)
      : epochs_(static_cast<std::uint32_t>(params.integer("epochs"))),
        small_(static_cast<std::uint64_t>(params.integer("small_images"))) {}

  void run(gp::EndContext& context) override {
    while (context.batches.next() != nullptr) {
    }
  }
  std::uint32_t epochs() const override { return epochs_; }
  std::vector<gp::Phase> schedule() const override {
    if (small_ == 0) return {};
    return {{small_, {{"image.resize.size", "16"}}}, {0, {}}};
  }
  std::unique_ptr<gp::Snapshot> load_snapshot(const gp::RunInfo&,
                                              const std::filesystem::path&) override {
    return nullptr;
  }

 private:
  std::uint32_t epochs_;
  std::uint64_t small_;
};

class MeasuresNothing : public gp::EvaluateStage {
 public:
  bool due(std::uint32_t, bool) const override { return false; }
  std::string evaluate(gp::Snapshot&, gp::EvaluateContext&) override { return ""; }
};

}  // namespace

GP_STAGE_MODULE(registry) {
  gp::StageInfo info;
  info.name = "test.train";
  info.doc = "Takes batches and throws them away.";
  info.in = gp::Kind::kBatch;
  info.out = gp::Kind::kSnapshot;
  info.params.integer("epochs", 3, "how often the data are read", 1, 100)
      .integer("small_images", 0, "images of 16 pixels at first; 0: none", 0, 1000000);
  info.create = [](const gp::Params& params) { return std::make_unique<TrainsNothing>(params); };
  registry.add(info);

  info = {};
  info.name = "test.evaluate";
  info.doc = "Measures nothing.";
  info.in = gp::Kind::kSnapshot;
  info.out = gp::Kind::kNothing;
  info.params.overrides("held_out", "what is kept from training");
  info.create = [](const gp::Params&) { return std::make_unique<MeasuresNothing>(); };
  registry.add(info);
}
