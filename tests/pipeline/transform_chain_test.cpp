#include "pipeline/transform_chain.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

constexpr ImageShape kShape{6, 8};

/// Delivers one image in which every pixel tells its place: red is x, green is y.
class PlaceSource : public testing::FakeSource {
 public:
  PlaceSource() : FakeSource(4, kShape) {}
  void read(std::uint64_t, StageOutput& out) const override {
    const ImageView image = out.image(kShape.height, kShape.width);
    for (int y = 0; y < kShape.height; ++y) {
      for (int x = 0; x < kShape.width; ++x) {
        image.row(y)[x * 3] = static_cast<std::uint8_t>(10 * x);
        image.row(y)[x * 3 + 1] = static_cast<std::uint8_t>(10 * y);
        image.row(y)[x * 3 + 2] = 7;
      }
    }
  }
};

class Crop : public TransformStage {
 public:
  explicit Crop(RectF region) : region_(region) {}
  void process(const StageInput& in, Rng&, StageOutput& out) const override {
    Geometry geometry = in.geometry;
    geometry.region = region_;
    out.pass_through();
    out.set_geometry(geometry);
  }
  bool reads_region() const override { return true; }

 private:
  RectF region_;
};

/// A geometric stage with a given map; draws one number, as a random one would.
class Map : public TransformStage {
 public:
  explicit Map(Affine map) : map_(map) {}
  void process(const StageInput&, Rng&, StageOutput&) const override {
    throw std::logic_error("the host is to use the matrix");
  }
  Affine matrix(ImageShape, Rng& rng) const override {
    rng.next_u32();
    return map_;
  }

 private:
  Affine map_;
};

struct Built {
  std::vector<std::unique_ptr<TransformStage>> stages;
  std::vector<std::unique_ptr<StageInfo>> infos;
  std::vector<TransformChain::Link> links;
  void add(std::unique_ptr<TransformStage> stage, bool geometric = false) {
    stages.push_back(std::move(stage));
    infos.push_back(std::make_unique<StageInfo>());
    infos.back()->geometric = geometric;
    links.push_back(
        {"stage" + std::to_string(links.size()), stages.back().get(), infos.back().get()});
  }
};

/// What the chain makes of item 0, through a slab of the chain's output shape when it has one.
Sample run(const TransformChain& chain, ImageShape shape) {
  Sample sample;
  sample.info.key = "item0";
  sample.slab = std::make_shared<std::uint8_t[]>(2 * shape.bytes());
  sample.slot = 1;
  Workspace workspace;
  for (const auto& segment : chain.segments()) chain.run(segment, sample, workspace);
  return sample;
}

TEST(TransformChain, WritesIntoTheSamplesPlaceInItsBatch) {
  const PlaceSource source;
  const TransformChain chain(source, "source.place", {}, 1);
  const Sample sample = run(chain, kShape);
  ASSERT_FALSE(sample.reject);
  EXPECT_EQ(sample.slab[0], 0);                        // slot 0 untouched
  EXPECT_EQ(sample.slab[kShape.bytes() + 3 * 5], 50);  // slot 1, x = 5
}

TEST(TransformChain, CutsTheRegionOutForStagesThatDoNotReadIt) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Crop>(RectF{1.5, 1, 4, 3}));
  ImageShape seen;
  int first_red = -1;
  built.add(
      std::make_unique<testing::FakeTransform>([&](const StageInput& in, Rng&, StageOutput& out) {
        seen = in.image.shape();
        first_red = in.image.row(0)[0];
        EXPECT_TRUE(in.geometry.is_whole());
        out.drop("seen");
      }));
  const TransformChain chain(source, "source.place", built.links, 1);
  const Sample sample = run(chain, kShape);
  // 1.5 .. 5.5 rounded outwards is columns 1 .. 5.
  EXPECT_EQ(seen, (ImageShape{3, 5}));
  EXPECT_EQ(first_red, 10);
  ASSERT_TRUE(sample.reject);
  EXPECT_TRUE(sample.reject->dropped);
  EXPECT_EQ(sample.reject->stage, "stage1");
}

TEST(TransformChain, NeighbouringGeometricStagesAreOneResampling) {
  const PlaceSource source;
  // Half a pixel right and half a pixel left again: one resampling is exact, two would blur.
  Built built;
  built.add(std::make_unique<Map>(Affine{{1, 0, 0.5, 0, 1, 0}}), true);
  built.add(std::make_unique<Map>(Affine{{1, 0, -0.5, 0, 1, 0}}), true);
  const TransformChain chain(source, "source.place", built.links, 1);
  const Sample sample = run(chain, kShape);
  ASSERT_FALSE(sample.reject);
  for (int x = 0; x < kShape.width; ++x) {
    EXPECT_EQ(sample.slab[kShape.bytes() + 3 * x], 10 * x);
  }
  EXPECT_EQ(chain.stats()[1]->samples, 1U);
  EXPECT_EQ(chain.stats()[2]->samples, 1U);
}

TEST(TransformChain, GeometricStageOnACroppedImageWorksOnTheRegion) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Crop>(RectF{2, 0, 6, 6}));
  built.add(std::make_unique<Map>(Affine{{-1, 0, 5, 0, 1, 0}}), true);
  built.add(
      std::make_unique<testing::FakeTransform>([](const StageInput& in, Rng&, StageOutput& out) {
        EXPECT_EQ(in.image.shape(), (ImageShape{6, 6}));
        EXPECT_EQ(in.image.row(0)[0], 70);  // the mirrored last column
        out.drop("seen");
      }));
  const TransformChain chain(source, "source.place", built.links, 1);
  EXPECT_TRUE(run(chain, kShape).reject);
}

TEST(TransformChain, MatrixThatIsNotFiniteIsAFaultOfTheStage) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Map>(Affine{{1, 0, std::nan(""), 0, 1, 0}}), true);
  const TransformChain chain(source, "source.place", built.links, 1);
  EXPECT_THROW(run(chain, kShape), Error);
}

TEST(TransformChain, WrongOutputSizeIsAFaultOfTheStage) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<testing::FakeTransform>(
      [](const StageInput&, Rng&, StageOutput& out) { out.image(3, 3); }));
  const TransformChain chain(source, "source.place", built.links, 1);
  try {
    run(chain, kShape);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("3x3"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("8x6"), std::string::npos) << error.what();
  }
}

TEST(TransformChain, AStageMayDropASampleAfterItGotItsBuffer) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<testing::FakeTransform>([](const StageInput&, Rng&, StageOutput& out) {
    out.image(6, 8);
    out.drop("too dark");
  }));
  const TransformChain chain(source, "source.place", built.links, 1);
  const Sample sample = run(chain, kShape);
  ASSERT_TRUE(sample.reject);
  EXPECT_TRUE(sample.reject->dropped);
  EXPECT_EQ(sample.reject->reason, "too dark");
}

TEST(TransformChain, StagesDrawIndependentNumbersForTheSameSample) {
  const PlaceSource source;
  std::vector<std::uint32_t> draws;
  Built built;
  for (int i = 0; i < 2; ++i) {
    built.add(std::make_unique<testing::FakeTransform>(
        [&](const StageInput&, Rng& rng, StageOutput& out) {
          draws.push_back(rng.next_u32());
          out.pass_through();
        }));
  }
  const TransformChain chain(source, "source.place", built.links, 1);
  run(chain, kShape);
  ASSERT_EQ(draws.size(), 2U);
  EXPECT_NE(draws[0], draws[1]);
}

}  // namespace
}  // namespace gp
