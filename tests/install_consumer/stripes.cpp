// A stage module: a source that draws stripes, and an end stage that writes PPM files.
#include <string>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/log.hpp"
#include "pipeline/module.hpp"

namespace {

/// Item i is an image of one gray level, i, with a white column. Thread-safe: it has no state.
class StripesSource : public gp::SourceStage {
 public:
  StripesSource(std::int64_t count, int size) : count_(count), size_(size) {}

  std::uint64_t size() const override { return static_cast<std::uint64_t>(count_); }
  std::string key(std::uint64_t item) const override { return "stripe-" + std::to_string(item); }
  gp::ImageShape output_shape() const override { return {size_, size_}; }
  /// Two sources that deliver the same have the same digest, on every machine.
  std::string digest() const override {
    return gp::sha256_hex("stripes 1 " + std::to_string(count_) + " " + std::to_string(size_));
  }
  void read(std::uint64_t item, gp::StageOutput& out) const override {
    const gp::ImageView image = out.image(size_, size_);
    for (int y = 0; y < size_; ++y) {
      for (int x = 0; x < size_; ++x) {
        const bool white = x == static_cast<int>(item % static_cast<std::uint64_t>(size_)) && y > 0;
        for (int c = 0; c < gp::kChannels; ++c) {
          image.row(y)[x * gp::kChannels + c] = white ? 255 : static_cast<std::uint8_t>(item);
        }
      }
    }
  }

 private:
  std::int64_t count_;
  int size_;
};

/// Writes every image that arrives to ROOT/KEY.ppm. One thread of its own pulls the batches.
class PpmSink : public gp::EndStage {
 public:
  explicit PpmSink(std::filesystem::path root) : root_(std::move(root)) {}

  void run(gp::EndContext& context) override {
    std::filesystem::create_directories(root_);
    std::uint64_t rejected = 0, dropped = 0;
    // `next` waits for the graph; it gives null after the last epoch, and throws its errors.
    while (const auto batch = context.batches.next()) {
      if (context.stop.stop_requested()) return;
      for (int i = 0; i < batch->count; ++i) write(batch->keys[i], batch->image(i));
      for (const gp::Reject& reject : batch->rejects) {
        context.log.info(reject.key + ", " + reject.stage + ": " + reject.reason);
      }
      rejected = batch->counts.rejected;
      dropped = batch->counts.dropped_by_stage;
    }
    context.log.info("rejected " + std::to_string(rejected) + ", dropped " +
                     std::to_string(dropped));
  }

 private:
  void write(const std::string& key, gp::ConstImageView image) const {
    std::string file =
        "P6 " + std::to_string(image.width) + " " + std::to_string(image.height) + " 255\n";
    for (int y = 0; y < image.height; ++y) {
      file.append(reinterpret_cast<const char*>(image.row(y)),
                  static_cast<std::size_t>(image.width) * gp::kChannels);
    }
    gp::write_file(root_ / (key + ".ppm"), file);  // the whole file or none
  }

  std::filesystem::path root_;
};

}  // namespace

GP_STAGE_MODULE(registry) {
  gp::StageInfo source;
  source.name = "source.stripes";
  source.doc = "Draws gray images with a white column.";
  source.out = gp::Kind::kImage;  // a source takes nothing, and gives bytes or images
  source.params.integer("count", 10, "images", 1, 256)
      .integer("size", 16, "edge in pixels", 1, 4096);
  source.create = [](const gp::Params& params) {
    return std::make_unique<StripesSource>(params.integer("count"),
                                           static_cast<int>(params.integer("size")));
  };
  registry.add(std::move(source));

  gp::StageInfo sink;
  sink.name = "sink.ppm";
  sink.doc = "Writes each image as a PPM file.";
  sink.in = gp::Kind::kImage;  // an end takes images or batches, and gives nothing
  sink.params.path("root", "folder to write to");
  sink.create = [](const gp::Params& params) {
    return std::make_unique<PpmSink>(params.text("root"));
  };
  registry.add(std::move(sink));
}
