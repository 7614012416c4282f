#include "pipeline/transform_chain.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "pipeline/batcher.hpp"
#include "pipeline/error.hpp"
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
  Workspace workspace(chain);
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

/// Delivers bytes, of which a part of the picture counts.
class BoxSource : public testing::FakeSource {
 public:
  BoxSource() : FakeSource(4, {}) {}
  void read(std::uint64_t item, StageOutput& out) const override {
    out.bytes().assign(3, 9);
    if (item == 0) out.set_geometry({0, 0, {1, 2, 3, 4}});
  }
};

TEST(TransformChain, WhatCountsOfTheBytesReachesTheDecoderOnWhicheverThread) {
  const BoxSource source;
  for (const Concurrency concurrency : {Concurrency::kUnlimited, Concurrency::kSerial}) {
    Built built;
    std::vector<RectF> seen;
    built.add(
        std::make_unique<testing::FakeTransform>([&](const StageInput& in, Rng&, StageOutput& out) {
          EXPECT_EQ(in.bytes.size(), 3U);
          seen.push_back(in.geometry.region);
          out.drop("seen");
        }));
    built.infos.back()->concurrency = concurrency;
    const TransformChain chain(source, "source.box", built.links, 1);
    EXPECT_EQ(chain.segments().size(), concurrency == Concurrency::kSerial ? 2U : 1U);
    Workspace workspace(chain);
    for (const std::uint64_t item : {0, 1}) {
      Sample sample;
      sample.item = item;
      for (const auto& segment : chain.segments()) chain.run(segment, sample, workspace);
    }
    EXPECT_EQ(seen, (std::vector<RectF>{{1, 2, 3, 4}, {}}));
  }
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
  EXPECT_EQ(chain.totals()[1].samples, 1U);
  EXPECT_EQ(chain.totals()[2].samples, 1U);
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

/// Paints the whole image in one colour.
class Paint : public TransformStage {
 public:
  explicit Paint(std::uint8_t colour) : colour_(colour) {}
  void process(const StageInput& in, Rng&, StageOutput& out) const override {
    const ImageView image = out.image(in.image.height, in.image.width);
    for (int y = 0; y < image.height; ++y) {
      std::fill_n(image.row(y), image.width * kChannels, colour_);
    }
  }

 private:
  std::uint8_t colour_;
};

/// A link that chooses among `choices` with their weights.
TransformChain::Link one_of(std::vector<TransformChain::Link> choices, const StageInfo& info,
                            double p) {
  TransformChain::Link link{"one_of", nullptr, &info};
  link.choices = std::move(choices);
  link.p = p;
  return link;
}

std::vector<std::uint8_t> pixels_of(const TransformChain& chain, std::uint64_t key) {
  Sample sample;
  sample.info = {"sample", key, -1, 0};
  sample.slab = SlabPool(kShape.bytes()).take();
  Workspace workspace(chain);
  for (const auto& segment : chain.segments()) chain.run(segment, sample, workspace);
  EXPECT_FALSE(sample.reject);
  return {sample.slab.get(), sample.slab.get() + kShape.bytes()};
}

TEST(TransformChain, ChoosesOneByWeightOrNone) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Paint>(200));
  built.add(std::make_unique<Paint>(201));
  built.add(std::make_unique<Paint>(202));
  built.links[0].weight = 3;
  built.links[1].weight = 0;
  const StageInfo info;
  const TransformChain chain(source, "source.place", {one_of(built.links, info, 0.8)}, 1);
  EXPECT_EQ(chain.output_shape(), kShape);
  constexpr int kSamples = 4000;
  std::map<int, int> counts;
  int again = 0;
  for (std::uint64_t key = 0; key < kSamples; ++key) {
    const auto pixels = pixels_of(chain, key);
    ++counts[pixels.back()];  // 7 where nothing was chosen
    if (key < 20) {
      EXPECT_EQ(pixels_of(chain, key), pixels);
      again += pixels.back() == 200 ? 1 : 0;
    }
  }
  const auto expect_share = [&](int colour, double share) {
    const double spread = std::sqrt(kSamples * share * (1 - share));
    EXPECT_NEAR(counts[colour], kSamples * share, 5 * spread) << colour;
  };
  expect_share(200, 0.6);
  expect_share(202, 0.2);
  expect_share(7, 0.2);
  EXPECT_EQ(counts.size(), 3U);
  EXPECT_EQ(chain.totals()[1].address, "stage0");
  EXPECT_EQ(chain.totals()[1].samples, static_cast<std::uint64_t>(counts[200] + again));
}

TEST(TransformChain, AChosenMapJoinsItsNeighbours) {
  const PlaceSource source;
  // Half a pixel there and back: two resamplings would blur, one changes nothing.
  Built built;
  built.add(std::make_unique<Map>(Affine{{1, 0, 0.5, 0, 1, 0}}), true);
  built.add(std::make_unique<Map>(Affine{{1, 0, -0.5, 0, 1, 0}}), true);
  const StageInfo info;
  const TransformChain alone(source, "source.place", {}, 1);
  const TransformChain chain(source, "source.place",
                             {built.links[0], one_of({built.links[1]}, info, 1)}, 1);
  EXPECT_EQ(pixels_of(chain, 5), pixels_of(alone, 5));
}

TEST(TransformChain, ChoicesMustAgreeOnTheSize) {
  class Half : public TransformStage {
   public:
    void process(const StageInput&, Rng&, StageOutput&) const override {}
    ImageShape output_shape(ImageShape in) const override { return {in.height / 2, in.width / 2}; }
  };
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Paint>(1));
  built.add(std::make_unique<Half>());
  const StageInfo info;
  const auto message = [&](std::vector<TransformChain::Link> choices, double p) -> std::string {
    try {
      const TransformChain chain(source, "source.place", {one_of(std::move(choices), info, p)}, 1);
      return chain.output_shape().fixed() ? "fixed" : "open";
    } catch (const ConfigError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message(built.links, 1),
            "'one_of': 'stage0' gives 8x6 pixels, 'stage1' 4x3; all must give the same size: put a "
            "resize behind those that differ, or set their sizes");
  EXPECT_EQ(message({built.links[1]}, 1), "fixed");
  EXPECT_EQ(message({built.links[1]}, 0.5),
            "'one_of': 'stage1' gives 4x3 pixels, an image for which none is chosen 8x6; all must "
            "give the same size: put a resize behind those that differ, or set their sizes");
}

TEST(TransformChain, AChoiceThatIsSerialMakesTheLinkSerial) {
  const PlaceSource source;
  Built built;
  built.add(std::make_unique<Paint>(1));
  built.infos[0]->concurrency = Concurrency::kSerial;
  const StageInfo info;
  const TransformChain chain(source, "source.place", {one_of(built.links, info, 1)}, 1);
  ASSERT_EQ(chain.segments().size(), 2U);
  EXPECT_TRUE(chain.segments()[1].serial);
}

}  // namespace
}  // namespace gp
