#include "stages/data/synthetic.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "stages/data/aircraft_mesh.hpp"
#include "stages/data/aircraft_painter.hpp"
#include "stages/data/aircraft_scene.hpp"

namespace gp {
namespace {

Image draw(std::uint64_t seed, std::uint64_t number, int size = 64) {
  Image image(size, size);
  draw_aircraft(seed, number, image.view());
  return image;
}

Image paint(const AircraftScene& scene, int size = 64) {
  Image image(size, size);
  paint_aircraft_scene(scene, image.view());
  return image;
}

double mean_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.shape(), b.shape());
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels().size(); ++i) {
    sum += std::abs(int{a.pixels()[i]} - int{b.pixels()[i]});
  }
  return sum / static_cast<double>(a.pixels().size());
}

/// Mean of every 2x2 block.
Image halved(const Image& image) {
  const int n = image.shape().width / 2;
  Image half(n, n);
  for (int y = 0; y < n; ++y) {
    for (int x = 0; x < n * kChannels; ++x) {
      const int from = x / kChannels * 2 * kChannels + x % kChannels;
      const auto view = image.view();
      half.view().row(y)[x] = static_cast<std::uint8_t>(
          (view.row(2 * y)[from] + view.row(2 * y)[from + kChannels] + view.row(2 * y + 1)[from] +
           view.row(2 * y + 1)[from + kChannels] + 2) /
          4);
    }
  }
  return half;
}

/// The same aircraft in even light before black: what is not black is aircraft.
AircraftScene silhouette(AircraftScene scene) {
  scene.sky = {};
  scene.ground = {};
  scene.light.sun = {};
  scene.light.sky = scene.light.bounce = {1, 1, 1};
  return scene;
}

AircraftScene white_airliner() {
  AircraftScene scene = silhouette({});
  scene.livery = {};
  scene.livery.base = scene.livery.belly = scene.livery.accent = scene.livery.second =
      scene.livery.engine = scene.livery.wing = {0.5F, 0.5F, 0.5F};
  scene.livery.windows = 0;
  scene.livery.gloss = false;
  return scene;
}

TEST(Synthetic, TenThousandDrawsAllDiffer) {
  std::set<std::string> seen;
  Image image(64, 64);
  for (std::uint64_t i = 0; i < 10000; ++i) {
    draw_aircraft(1, i, image.view());
    const auto& p = image.pixels();
    ASSERT_TRUE(seen.insert(std::string(p.begin(), p.end())).second) << "draw " << i;
  }
}

TEST(Synthetic, SameBytesAtEveryCallAndInEveryThread) {
  constexpr int kDraws = 24;
  std::vector<Image> expected;
  for (int i = 0; i < kDraws; ++i) expected.push_back(draw(7, i));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      // Each thread in another order and with other sizes in between, so that kept buffers differ.
      for (int i = 0; i < kDraws; ++i) {
        const int number = (i * 5 + static_cast<int>(t) * 7) % kDraws;
        draw(7, i, 16 + 24 * static_cast<int>(t));
        if (draw(7, number).pixels() != expected[static_cast<std::size_t>(number)].pixels()) {
          ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Synthetic, SeedAndNumberBothMatter) {
  EXPECT_GT(mean_difference(draw(1, 5), draw(2, 5)), 3);
  EXPECT_GT(mean_difference(draw(1, 5), draw(1, 6)), 3);
}

// The bytes are the same on every machine. Where this fails after a change of the renderer, the
// pictures have changed: raise kSyntheticVersion and take the new values.
TEST(Synthetic, GoldenBytes) {
  ASSERT_EQ(kSyntheticVersion, 1);
  Sha256 small;
  for (std::uint64_t i = 0; i < 200; ++i) small.update(std::span(draw(1, i).pixels()));
  EXPECT_EQ(small.hex(), "9cc1410d216ffefa9c5c63054a225d6b9e254d81d38d234e4ef539bbf93fe091");
  Sha256 large;
  for (std::uint64_t i = 0; i < 20; ++i) large.update(std::span(draw(1, i, 200).pixels()));
  EXPECT_EQ(large.hex(), "9193366023c6176b29cdf3872a232b5568452e00f4cdf1c81f6ed7c0da27ccc7");
}

TEST(Synthetic, EverySizeShowsTheSameScene) {
  for (std::uint64_t i = 0; i < 40; ++i) {
    const Image small = draw(1, i, 64);
    EXPECT_LT(mean_difference(halved(draw(1, i, 128)), small), 2.0) << "draw " << i;
    EXPECT_GT(mean_difference(halved(draw(1, i + 1, 128)), small), 4.0) << "draw " << i;
  }
  // Across the steps in the level of detail, and at the ends of the range.
  EXPECT_LT(mean_difference(halved(draw(1, 3, 512)), draw(1, 3, 256)), 1.0);
  EXPECT_LT(mean_difference(halved(halved(draw(1, 3, 1024))), draw(1, 3, 256)), 1.0);
  EXPECT_LT(mean_difference(halved(halved(halved(draw(1, 3, 64)))), draw(1, 3, 8)), 6.0);
  EXPECT_EQ(draw(1, 3, 37).shape().width, 37);
}

TEST(Synthetic, OnlySquaresOfTheRightSize) {
  Image wide(64, 65);
  Image tiny(7, 7);
  Image huge(1025, 1025);
  EXPECT_THROW(draw_aircraft(1, 0, wide.view()), std::invalid_argument);
  EXPECT_THROW(draw_aircraft(1, 0, tiny.view()), std::invalid_argument);
  EXPECT_THROW(draw_aircraft(1, 0, huge.view()), std::invalid_argument);
  EXPECT_THROW(draw_aircraft(1, 0, {}), std::invalid_argument);
}

TEST(Synthetic, WritesOnlyItsOwnPixels) {
  Image frame(40, 48);
  std::fill(frame.pixels().begin(), frame.pixels().end(), std::uint8_t{77});
  const ImageView all = frame.view();
  draw_aircraft(1, 4, {all.row(5) + 6 * kChannels, 32, 32, all.stride});
  const Image alone = draw(1, 4, 32);
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 48 * kChannels; ++x) {
      const bool inside = y >= 5 && y < 37 && x >= 6 * kChannels && x < 38 * kChannels;
      const int expected = inside ? alone.view().row(y - 5)[x - 6 * kChannels] : 77;
      ASSERT_EQ(all.row(y)[x], expected) << x << "," << y;
    }
  }
}

TEST(Synthetic, EdgesAreAntiAliased) {
  const Image image = paint(white_airliner());
  // Along the outline a pixel is covered by eighths; inside, everything has the same brightness.
  std::set<int> levels;
  int partial = 0;
  int outline = 0;
  const auto at = [&](int x, int y) { return int{image.view().row(y)[x * kChannels]}; };
  for (int y = 1; y < 63; ++y) {
    for (int x = 1; x < 63; ++x) {
      const int value = at(x, y);
      const auto [low, high] =
          std::minmax({at(x - 1, y), at(x + 1, y), at(x, y - 1), at(x, y + 1), value});
      if (low > 20 || high < 150) continue;
      ++outline;
      if (value > 30 && value < 150) {
        ++partial;
        levels.insert(value);
      }
    }
  }
  EXPECT_GT(outline, 100);
  EXPECT_GT(partial, outline / 5);
  EXPECT_GE(levels.size(), 5U);
}

TEST(Synthetic, AircraftFillTheFrameAndStayInside) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Image image = paint(silhouette(sample_aircraft_scene(3, i)), 96);
    int left = 96, right = -1, top = 96, bottom = -1;
    for (int y = 0; y < 96; ++y) {
      for (int x = 0; x < 96; ++x) {
        const std::uint8_t* p = image.view().row(y) + x * kChannels;
        if (p[0] + p[1] + p[2] < 12) continue;
        left = std::min(left, x);
        right = std::max(right, x);
        top = std::min(top, y);
        bottom = std::max(bottom, y);
      }
    }
    EXPECT_GE(right - left + 1, 0.68 * 96) << "draw " << i;
    EXPECT_LE(right - left + 1, 0.97 * 96) << "draw " << i;
    EXPECT_GT(left, 0) << "draw " << i;
    EXPECT_LT(right, 95) << "draw " << i;
    EXPECT_GT(top, 4) << "draw " << i;
    EXPECT_LT(bottom, 94) << "draw " << i;
    EXPECT_NEAR((left + right + 1) / 2.0, 48, 8) << "draw " << i;
  }
}

TEST(Synthetic, FacingLeftIsTheMirrorImage) {
  AircraftScene scene = white_airliner();
  scene.light.sun = {0.8F, 0.8F, 0.8F};
  scene.light.sky = scene.light.bounce = {0.3F, 0.3F, 0.3F};
  scene.pose.yaw = -0.3F;
  scene.pose.pitch = 0.1F;
  scene.pose.roll = 0.2F;
  scene.pose.elevation = 0.15F;
  const Image right = paint(scene, 128);
  scene.pose.faces_left = true;
  const Image left = paint(scene, 128);
  Image mirrored(128, 128);
  for (int y = 0; y < 128; ++y) {
    for (int x = 0; x < 128; ++x) {
      std::copy_n(left.view().row(y) + (127 - x) * kChannels, kChannels,
                  mirrored.view().row(y) + x * kChannels);
    }
  }
  EXPECT_LT(mean_difference(mirrored, right), 0.6);
  EXPECT_GT(mean_difference(left, right), 5);
}

TEST(Synthetic, EveryFactorShows) {
  AircraftScene base = sample_aircraft_scene(1, 0);
  base.type = AircraftType::kTwinJet;
  base.situation = Situation::kLow;
  base.gear_down = false;
  base.ground.kind = GroundKind::kGrass;
  base.ground.horizon = 0.85F;
  base.ground.near = {0.2F, 0.25F, 0.1F};
  base.ground.far = {0.3F, 0.35F, 0.2F};
  base.sky.cloud_contrast = 0.3F;
  base.wing.winglet = 0;
  const Image before = paint(base, 128);
  const std::vector<std::pair<std::string, std::function<void(AircraftScene&)>>> changes = {
      {"type", [](auto& s) { s.type = AircraftType::kFourEngineJet; }},
      {"side", [](auto& s) { s.pose.faces_left = !s.pose.faces_left; }},
      {"yaw", [](auto& s) { s.pose.yaw += 0.2F; }},
      {"pitch", [](auto& s) { s.pose.pitch += 0.05F; }},
      {"roll", [](auto& s) { s.pose.roll += 0.15F; }},
      {"elevation", [](auto& s) { s.pose.elevation += 0.1F; }},
      {"width", [](auto& s) { s.framing.width *= 0.9F; }},
      {"place", [](auto& s) { s.framing.centre_y += 0.02F; }},
      {"fuselage", [](auto& s) { s.fuselage.slenderness *= 1.15F; }},
      {"hump", [](auto& s) { s.fuselage.hump = 0.45F; }},
      {"wing", [](auto& s) { s.wing.half_span *= 0.8F; }},
      {"winglet", [](auto& s) { s.wing.winglet = 0.06F; }},
      {"engines", [](auto& s) { s.engines.radius *= 1.3F; }},
      {"fin", [](auto& s) { s.tail.fin_height *= 1.15F; }},
      {"t tail", [](auto& s) { s.tail.stabiliser_place = 1 - s.tail.stabiliser_place; }},
      {"scheme",
       [](auto& s) {
         s.livery.scheme = s.livery.scheme == LiveryScheme::kTwoTone ? LiveryScheme::kWhite
                                                                     : LiveryScheme::kTwoTone;
       }},
      {"accent", [](auto& s) { std::swap(s.livery.accent.r, s.livery.accent.b); }},
      {"windows", [](auto& s) { s.livery.windows = s.livery.windows > 0 ? 0 : 24; }},
      {"sky", [](auto& s) { s.sky.zenith.r += 0.1F; }},
      {"clouds", [](auto& s) { ++s.sky.cloud_seed; }},
      {"ground", [](auto& s) { s.ground.kind = GroundKind::kSea; }},
      {"horizon", [](auto& s) { s.ground.horizon += 0.05F; }},
      {"sun", [](auto& s) { s.light.azimuth += 0.8F; }},
      {"gear", [](auto& s) { s.gear_down = true; }},
  };
  for (const auto& [name, change] : changes) {
    AircraftScene scene = base;
    change(scene);
    EXPECT_GT(mean_difference(paint(scene, 128), before), 0.02) << name;
  }
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  double sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sa += a[i];
    sb += b[i];
    saa += a[i] * a[i];
    sbb += b[i] * b[i];
    sab += a[i] * b[i];
  }
  return (sab - sa * sb / n) / std::sqrt((saa - sa * sa / n) * (sbb - sb * sb / n));
}

double luminance(const LinearRgb& c) { return 0.2 * c.r + 0.7 * c.g + 0.1 * c.b; }

TEST(Synthetic, FactorsVaryIndependently) {
  const std::vector<std::pair<std::string, std::function<double(const AircraftScene&)>>> factors = {
      {"type", [](auto& s) { return s.type == AircraftType::kTwinJet ? 1.0 : 0.0; }},
      {"situation", [](auto& s) { return s.situation == Situation::kOnGround ? 1.0 : 0.0; }},
      {"side", [](auto& s) { return s.pose.faces_left ? 1.0 : 0.0; }},
      {"yaw", [](auto& s) { return double{s.pose.yaw}; }},
      {"width", [](auto& s) { return double{s.framing.width}; }},
      {"place", [](auto& s) { return double{s.framing.centre_x}; }},
      {"nose droop", [](auto& s) { return double{s.fuselage.nose_droop}; }},
      {"accent", [](auto& s) { return luminance(s.livery.accent); }},
      {"fin", [](auto& s) { return s.livery.fin == FinPattern::kPlain ? 1.0 : 0.0; }},
      {"sky", [](auto& s) { return luminance(s.sky.zenith); }},
      {"clouds", [](auto& s) { return double{s.sky.cloud_cover}; }},
      {"trees", [](auto& s) { return double{s.ground.hills ? 1.0 : 0.0}; }},
      {"sun", [](auto& s) { return double{s.light.azimuth}; }},
  };
  constexpr int kDraws = 6000;
  std::vector<std::vector<double>> values(factors.size());
  for (int i = 0; i < kDraws; ++i) {
    const AircraftScene scene = sample_aircraft_scene(11, i);
    for (std::size_t f = 0; f < factors.size(); ++f) values[f].push_back(factors[f].second(scene));
  }
  // Pairs that belong together by their meaning: there are no hills at sea, nor fighters' noses on
  // airliners.
  const std::set<std::pair<std::string, std::string>> related = {{"situation", "trees"},
                                                                 {"type", "nose droop"}};
  for (std::size_t a = 0; a < factors.size(); ++a) {
    for (std::size_t b = a + 1; b < factors.size(); ++b) {
      if (related.count({factors[a].first, factors[b].first}) > 0) continue;
      // Five standard deviations of the estimate.
      EXPECT_LT(std::abs(correlation(values[a], values[b])), 5 / std::sqrt(kDraws))
          << factors[a].first << " and " << factors[b].first;
    }
  }
}

TEST(Synthetic, SkyInThePixelsDoesNotTellTheFuselage) {
  std::vector<double> sky;
  std::vector<double> slenderness;
  for (std::uint64_t i = 0; i < 1500; ++i) {
    const Image image = draw(5, i, 16);
    double sum = 0;
    for (int x = 0; x < 16 * kChannels; ++x) sum += image.view().row(0)[x];
    sky.push_back(sum);
    slenderness.push_back(sample_aircraft_scene(5, i).fuselage.slenderness);
  }
  EXPECT_LT(std::abs(correlation(sky, slenderness)), 5 / std::sqrt(1500.0));
}

TEST(Synthetic, TypesOccurInFixedShares) {
  std::vector<int> counts(aircraft_type_names().size(), 0);
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const AircraftType type = aircraft_type_of(1, i);
    EXPECT_EQ(type, sample_aircraft_scene(1, i).type);
    ++counts.at(static_cast<std::size_t>(type));
  }
  for (std::size_t t = 0; t < counts.size(); ++t) {
    EXPECT_GT(counts[t], 120) << aircraft_type_names()[t];
  }
  EXPECT_GT(counts[0], counts[6]);
}

TEST(Synthetic, GearIsDownOnTheGroundAndUpInCruise) {
  int low_down = 0;
  int low = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const AircraftScene scene = sample_aircraft_scene(1, i);
    if (scene.situation == Situation::kOnGround) {
      EXPECT_TRUE(scene.gear_down);
    }
    if (scene.situation == Situation::kCruise) {
      EXPECT_FALSE(scene.gear_down);
    }
    if (scene.situation == Situation::kLow) {
      ++low;
      low_down += scene.gear_down ? 1 : 0;
    }
  }
  EXPECT_GT(low_down, low / 2);
  EXPECT_LT(low_down, low);
}

TEST(AircraftMesh, IsSoundForEveryType) {
  AircraftMesh mesh;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const AircraftScene scene = sample_aircraft_scene(1, i);
    for (const int detail : {1, 4}) {
      build_aircraft_mesh(scene, detail, mesh);
      ASSERT_LT(mesh.vertices.size(), 65536U);
      ASSERT_LT(mesh.triangles.size(), 65535U);
      float lowest = 1;
      for (const MeshVertex& v : mesh.vertices) {
        ASSERT_NEAR(dot(v.normal, v.normal), 1, 1e-4);
        ASSERT_LT(std::abs(v.position.x), 0.75F);
        ASSERT_LT(std::abs(v.position.z), 0.65F);
        lowest = std::min(lowest, v.position.y);
      }
      for (const MeshTriangle& t : mesh.triangles) {
        ASSERT_LT(std::max({t.a, t.b, t.c}), mesh.vertices.size());
        const auto& [a, b, c] =
            std::tie(mesh.vertices[t.a], mesh.vertices[t.b], mesh.vertices[t.c]);
        const Vec3 face = cross(b.position - a.position, c.position - a.position);
        ASSERT_GE(dot(face, a.normal + b.normal + c.normal), 0) << "turned inside out";
      }
      // The wheels stand on the ground, everything else is above it.
      if (scene.gear_down) {
        EXPECT_NEAR(lowest, mesh.lowest, 0.002);
      }
    }
  }
}

TEST(PortableSincos, AgreesWithTheLibrary) {
  for (double angle = -6.28; angle <= 6.28; angle += 0.0137) {
    float sine = 0;
    float cosine = 0;
    portable_sincos(static_cast<float>(angle), sine, cosine);
    EXPECT_NEAR(sine, std::sin(static_cast<float>(angle)), 3e-7) << angle;
    EXPECT_NEAR(cosine, std::cos(static_cast<float>(angle)), 3e-7) << angle;
  }
}

/// Takes the one image that a source delivers.
class ImageOutput : public StageOutput {
 public:
  ImageView image(int height, int width) override {
    result.reshape(height, width);
    return result.view();
  }
  std::vector<std::uint8_t>& bytes() override { throw std::logic_error("bytes"); }
  void pass_through() override { throw std::logic_error("pass_through"); }
  void set_geometry(const Geometry&) override {}
  void drop(std::string) override { throw std::logic_error("drop"); }
  void count(const std::string&) override {}
  Image result;
};

std::unique_ptr<SourceStage> make_source(const std::map<std::string, Value>& given) {
  const StageInfo info = synthetic_source_info();
  std::unique_ptr<Stage> stage = info.create(make_params(info.params, given));
  auto* source = dynamic_cast<SourceStage*>(stage.get());
  if (source == nullptr) throw std::logic_error("not a source");
  stage.release();
  return std::unique_ptr<SourceStage>(source);
}

TEST(SyntheticSource, DeliversTheDrawsItNames) {
  const auto source = make_source({{"size", std::int64_t{48}},
                                   {"draws", std::int64_t{2048}},
                                   {"first", std::int64_t{1000000}},
                                   {"seed", std::int64_t{3}}});
  EXPECT_EQ(source->size(), 2048U);
  EXPECT_EQ(source->output_shape(), (ImageShape{48, 48}));
  EXPECT_EQ(source->key(0), "synthetic/3/01000000");
  EXPECT_EQ(source->key(2047), "synthetic/3/01002047");
  ASSERT_EQ(source->class_names().size(), 7U);
  ImageOutput out;
  for (const std::uint64_t item : {0, 17, 2047}) {
    source->read(item, out);
    EXPECT_EQ(out.result.pixels(), draw(3, 1000000 + item, 48).pixels());
    EXPECT_EQ(source->label(item), static_cast<int>(sample_aircraft_scene(3, 1000000 + item).type));
  }
  EXPECT_THROW(source->key(2048), std::out_of_range);
  EXPECT_THROW(source->read(2048, out), std::out_of_range);
}

TEST(SyntheticSource, DefaultsAndContract) {
  const StageInfo info = synthetic_source_info();
  EXPECT_EQ(info.name, "source.synthetic");
  EXPECT_EQ(info.in, Kind::kNothing);
  EXPECT_EQ(info.out, Kind::kImage);
  EXPECT_FALSE(info.random) << "what it draws belongs to the data, not to the run";
  const auto source = make_source({});
  EXPECT_EQ(source->size(), 10000U);
  EXPECT_EQ(source->output_shape(), (ImageShape{64, 64}));
  EXPECT_EQ(source->key(9), "synthetic/1/00000009");
}

TEST(SyntheticSource, TheDigestFollowsEveryParameter) {
  std::set<std::string> digests = {make_source({})->digest()};
  EXPECT_EQ(digests.begin()->size(), 64U);
  EXPECT_EQ(digests.count(make_source({{"draws", std::int64_t{10000}}})->digest()), 1U);
  for (const char* name : {"size", "draws", "first", "seed"}) {
    EXPECT_TRUE(digests.insert(make_source({{name, std::int64_t{77}}})->digest()).second) << name;
  }
}

TEST(SyntheticSource, RefusesWhatItCannotDraw) {
  EXPECT_THROW(make_source({{"size", std::int64_t{7}}}), ConfigError);
  EXPECT_THROW(make_source({{"size", std::int64_t{1025}}}), ConfigError);
  EXPECT_THROW(make_source({{"draws", std::int64_t{0}}}), ConfigError);
  EXPECT_THROW(make_source({{"first", std::int64_t{-1}}}), ConfigError);
  EXPECT_THROW(make_source({{"seed", std::int64_t{-1}}}), ConfigError);
}

TEST(AircraftViews, SideViewsAreTwinJetsInFlightThatStillVary) {
  std::set<std::vector<std::uint8_t>> pictures;
  float most_yaw = 0;
  int facing_left = 0;
  for (std::uint64_t i = 0; i < 500; ++i) {
    const AircraftScene scene = sample_aircraft_scene(1, i, AircraftViews::kSide);
    EXPECT_EQ(scene.type, AircraftType::kTwinJet);
    EXPECT_EQ(scene.situation, Situation::kCruise);
    most_yaw = std::max(most_yaw, std::abs(scene.pose.yaw));
    facing_left += scene.pose.faces_left ? 1 : 0;
    Image image(32, 32);
    draw_aircraft(1, i, image.view(), AircraftViews::kSide);
    pictures.insert(image.pixels());
  }
  EXPECT_EQ(pictures.size(), 500U);
  EXPECT_LT(most_yaw, 0.15F);
  EXPECT_NEAR(facing_left, 250, 4 * 11.2);
}

}  // namespace
}  // namespace gp
