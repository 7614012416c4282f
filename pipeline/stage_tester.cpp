#include "pipeline/stage_tester.hpp"

#include <cstring>

#include "pipeline/error.hpp"
#include "pipeline/plugin_loader.hpp"

namespace gp {

StageResult run_stage(const TransformStage& stage, ConstImageView image, Rng rng) {
  class Output : public StageOutput {
   public:
    ImageView image(int height, int width) override {
      result.image.reshape(height, width);
      // What a stage leaves unwritten shows.
      std::memset(result.image.pixels().data(), 0xEE, result.image.pixels().size());
      return result.image.view();
    }
    std::vector<std::uint8_t>& bytes() override { return bytes_; }
    void pass_through() override { result.passed_through = true; }
    void set_geometry(const Geometry&) override {}
    void drop(std::string reason) override { result.dropped = std::move(reason); }
    void count(const std::string&) override {}
    StageResult result;

   private:
    std::vector<std::uint8_t> bytes_;
  };
  Output out;
  const SampleInfo sample{"sample", 1, -1, 0};
  stage.process({sample, {}, image, Geometry::whole(image.shape())}, rng, out);
  if (out.result.passed_through) {
    out.result.image.reshape(image.height, image.width);
    copy_image(image, out.result.image.view());
  }
  return std::move(out.result);
}

struct StageTester::Impl {
  StageRegistry registry;
  PluginLoader loader{{}, true};
};

StageTester::StageTester(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StageTester::StageTester(StageTester&&) noexcept = default;
StageTester::~StageTester() = default;

StageTester StageTester::plugin(const std::filesystem::path& file) {
  auto impl = std::make_unique<Impl>();
  impl->loader.load_plugin(std::filesystem::absolute(file).string(), impl->registry);
  return StageTester(std::move(impl));
}

StageTester StageTester::module(const std::filesystem::path& file) {
  auto impl = std::make_unique<Impl>();
  impl->loader.load_module(std::filesystem::absolute(file).string(), impl->registry);
  return StageTester(std::move(impl));
}

StageResult StageTester::run(const std::string& stage, const std::map<std::string, Value>& params,
                             ConstImageView image, std::uint64_t seed) const {
  const StageInfo* info = impl_->registry.find(stage);
  if (info == nullptr) {
    std::string names;
    for (const StageInfo* known : impl_->registry.list()) {
      names += (names.empty() ? "" : ", ") + known->name;
    }
    throw PluginError("there is no stage '" + stage + "' in this library; it has " + names);
  }
  const std::unique_ptr<Stage> made = info->create(make_params(info->params, params));
  const auto* transform = dynamic_cast<const TransformStage*>(made.get());
  if (transform == nullptr) {
    throw PluginError("stage '" + stage + "' turns " + to_string(info->in) + " into " +
                      to_string(info->out) + "; only stages that make images can be run on one");
  }
  return run_stage(*transform, image, Rng(seed, stage, 0));
}

}  // namespace gp
