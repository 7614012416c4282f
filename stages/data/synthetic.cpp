#include "stages/data/synthetic.hpp"

#include <memory>
#include <stdexcept>
#include <string>

#include "pipeline/files.hpp"
#include "stages/data/aircraft_painter.hpp"
#include "stages/data/aircraft_scene.hpp"

namespace gp {
namespace {

constexpr int kMinSize = 8;
constexpr int kMaxSize = 1024;
constexpr int kMostDraws = 100'000'000;  // keys have eight digits

/// Items are draws `first` .. `first + draws - 1`; each is drawn when it is read.
class SyntheticSource : public SourceStage {
 public:
  explicit SyntheticSource(const Params& params)
      : image_size_(static_cast<int>(params.integer("size"))),
        draws_(static_cast<std::uint64_t>(params.integer("draws"))),
        first_(static_cast<std::uint64_t>(params.integer("first"))),
        seed_(static_cast<std::uint64_t>(params.integer("seed"))),
        views_(params.text("views") == "side" ? AircraftViews::kSide : AircraftViews::kAll) {}

  std::uint64_t size() const override { return draws_; }

  std::string key(std::uint64_t item) const override {
    const std::string number = std::to_string(draw(item));
    const std::size_t zeros = number.size() < 8 ? 8 - number.size() : 0;
    return "synthetic/" + std::to_string(seed_) + "/" + std::string(zeros, '0') + number;
  }

  std::int32_t label(std::uint64_t item) const override {
    return static_cast<std::int32_t>(aircraft_type_of(seed_, draw(item), views_));
  }

  const std::vector<std::string>& class_names() const override { return aircraft_type_names(); }

  void read(std::uint64_t item, StageOutput& out) const override {
    draw_aircraft(seed_, draw(item), out.image(image_size_, image_size_), views_);
  }

  ImageShape output_shape() const override { return {image_size_, image_size_}; }

  std::string digest() const override {
    return sha256_hex("source.synthetic version " + std::to_string(kSyntheticVersion) + " size " +
                      std::to_string(image_size_) + " seed " + std::to_string(seed_) + " first " +
                      std::to_string(first_) + " draws " + std::to_string(draws_) +
                      (views_ == AircraftViews::kSide ? " views side" : ""));
  }

 private:
  std::uint64_t draw(std::uint64_t item) const {
    if (item >= draws_) {
      throw std::out_of_range("source.synthetic: item " + std::to_string(item) + " of " +
                              std::to_string(draws_));
    }
    return first_ + item;
  }

  int image_size_;
  std::uint64_t draws_;
  std::uint64_t first_;
  std::uint64_t seed_;
  AircraftViews views_;
};

}  // namespace

void draw_aircraft(std::uint64_t seed, std::uint64_t draw, ImageView out, AircraftViews views) {
  if (out.empty() || out.width != out.height || out.width < kMinSize || out.width > kMaxSize) {
    throw std::invalid_argument("draw_aircraft: found a picture of " + std::to_string(out.width) +
                                "x" + std::to_string(out.height) + " pixels; it must be square, " +
                                std::to_string(kMinSize) + " to " + std::to_string(kMaxSize));
  }
  paint_aircraft_scene(sample_aircraft_scene(seed, draw, views), out);
}

StageInfo synthetic_source_info() {
  StageInfo info;
  info.name = "source.synthetic";
  info.doc = "Draws aircraft procedurally; needs no data";
  info.in = Kind::kNothing;
  info.out = Kind::kImage;
  info.params.integer("size", 64, "width and height of the pictures, pixels", kMinSize, kMaxSize)
      .integer("draws", 10000, "number of pictures", 1, kMostDraws)
      .integer("first", 0, "number of the first draw; held-out pictures begin where others end", 0,
               kMostDraws)
      .choice("views", "all", {"all", "side"},
              "all: seven types on the ground and in the air; side: twin jets in flight from the "
              "side, which a small model learns in minutes")
      .integer("seed", 1, "of the pictures, whatever the run's seed", 0, 9007199254740991.0);
  info.create = [](const Params& params) { return std::make_unique<SyntheticSource>(params); };
  return info;
}

}  // namespace gp
