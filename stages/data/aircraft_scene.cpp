#include "stages/data/aircraft_scene.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include "pipeline/rng.hpp"

namespace gp {
namespace {

/// One group's random numbers. Only exact or correctly rounded operations: the same values
/// everywhere, provided that no expression draws twice, since compilers differ in the order.
class Draws {
 public:
  Draws(std::uint64_t seed, std::string_view group, std::uint64_t draw)
      : rng_(seed, "synthetic." + std::string(group), draw) {}

  float in(float low, float high) { return low + (high - low) * rng_.uniform(); }
  /// Triangular over the range: the middle is likelier than the ends.
  float middle(float low, float high) {
    const float u = rng_.uniform();
    return low + (high - low) * 0.5F * (u + rng_.uniform());
  }
  bool chance(float p) { return rng_.uniform() < p; }
  /// An index with the given weights.
  std::size_t pick(std::initializer_list<float> weights) {
    float total = 0;
    for (const float w : weights) total += w;
    float left = rng_.uniform() * total;
    std::size_t i = 0;
    for (const float w : weights) {
      if (left < w) return i;
      left -= w;
      ++i;
    }
    return weights.size() - 1;
  }
  std::uint32_t below(std::uint32_t n) { return rng_.below(n); }
  std::uint32_t bits() { return rng_.next_u32(); }

 private:
  Rng rng_;
};

/// From a display colour 0xRRGGBB, with the gamma of 2 that the painter undoes.
LinearRgb rgb(std::uint32_t hex) {
  const auto channel = [&](int shift) {
    const float c = static_cast<float>((hex >> shift) & 255) / 255.0F;
    return c * c;
  };
  return {channel(16), channel(8), channel(0)};
}

LinearRgb mix(LinearRgb a, LinearRgb b, float t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

LinearRgb scale(LinearRgb a, float s) { return {a.r * s, a.g * s, a.b * s}; }

constexpr float kDegree = 0.017453293F;

void sample_shape(Draws& d, AircraftScene& s) {
  auto& f = s.fuselage;
  auto& w = s.wing;
  auto& e = s.engines;
  auto& t = s.tail;
  // An airliner with engines under its wings; the other types change what differs.
  f.slenderness = d.in(5.4F, 7.2F);
  f.nose_length = d.in(0.11F, 0.15F);
  f.nose_sharpness = d.in(0.1F, 0.4F);
  f.nose_droop = d.in(0.12F, 0.3F);
  f.tail_length = d.in(0.32F, 0.4F);
  f.upsweep = d.in(0.7F, 0.95F);
  w.root = d.in(0.31F, 0.36F);
  w.chord = d.in(0.18F, 0.22F);
  w.half_span = d.in(0.44F, 0.52F);
  w.sweep = d.in(0.42F, 0.6F);
  w.taper = d.in(0.22F, 0.32F);
  w.dihedral = d.in(0.08F, 0.14F);
  w.winglet = d.chance(0.5F) ? d.in(0.03F, 0.06F) : 0;
  e.radius = d.in(0.44F, 0.6F);
  e.length = d.in(0.105F, 0.135F);
  e.place = d.in(0.32F, 0.37F);
  t.fin_height = d.in(0.18F, 0.22F);
  t.fin_chord = d.in(0.17F, 0.21F);
  t.fin_sweep = d.in(0.6F, 0.85F);
  t.stabiliser = d.in(0.16F, 0.2F);
  t.stabiliser_place = 0;
  switch (s.type) {
    case AircraftType::kTwinJet:
      break;
    case AircraftType::kFourEngineJet:
      f.slenderness = d.in(5.8F, 7.2F);
      f.hump = d.chance(0.5F) ? d.in(0.3F, 0.5F) : 0;
      e.radius = d.in(0.34F, 0.44F);
      e.length = d.in(0.085F, 0.105F);
      e.place = d.in(0.33F, 0.38F);
      w.half_span = d.in(0.48F, 0.56F);
      break;
    case AircraftType::kTriJet:
      e.radius = d.in(0.42F, 0.5F);
      t.fin_height = d.in(0.18F, 0.21F);
      break;
    case AircraftType::kRearEngineJet:
      f.slenderness = d.in(6.6F, 8.2F);
      w.root = d.in(0.4F, 0.45F);
      w.half_span = d.in(0.36F, 0.43F);
      w.chord = d.in(0.15F, 0.19F);
      e.radius = d.in(0.42F, 0.52F);
      e.length = d.in(0.13F, 0.16F);
      e.place = d.in(0.7F, 0.74F);  // t of the intake
      t.fin_height = d.in(0.17F, 0.2F);
      t.stabiliser_place = 1;
      break;
    case AircraftType::kPropeller:
      f.slenderness = d.in(6.2F, 7.6F);
      f.nose_sharpness = d.in(0.3F, 0.55F);
      w.high = d.chance(0.8F);
      w.root = d.in(0.36F, 0.41F);
      w.chord = d.in(0.11F, 0.13F);
      w.half_span = d.in(0.46F, 0.54F);
      w.sweep = d.in(0.02F, 0.08F);
      w.taper = d.in(0.45F, 0.6F);
      w.dihedral = w.high ? d.in(0.0F, 0.03F) : d.in(0.07F, 0.1F);
      w.winglet = 0;
      e.radius = d.in(0.34F, 0.42F);
      e.length = d.in(0.17F, 0.21F);
      e.place = d.in(0.3F, 0.34F);
      t.fin_height = d.in(0.18F, 0.21F);
      t.fin_sweep = d.in(0.35F, 0.6F);
      t.stabiliser_place = w.high || d.chance(0.3F) ? 1 : 0;
      break;
    case AircraftType::kBusinessJet:
      f.slenderness = d.in(5.8F, 7.0F);
      f.nose_length = d.in(0.18F, 0.22F);
      f.nose_sharpness = d.in(0.6F, 0.9F);
      w.root = d.in(0.4F, 0.45F);
      w.half_span = d.in(0.42F, 0.5F);
      w.chord = d.in(0.16F, 0.2F);
      w.sweep = d.in(0.3F, 0.5F);
      e.radius = d.in(0.44F, 0.54F);
      e.length = d.in(0.15F, 0.18F);
      e.place = d.in(0.63F, 0.67F);
      t.fin_height = d.in(0.16F, 0.19F);
      t.stabiliser_place = 1;
      break;
    case AircraftType::kFighter:
      f.slenderness = d.in(7.5F, 9.0F);
      f.nose_length = d.in(0.3F, 0.36F);
      f.nose_sharpness = d.in(0.9F, 1.0F);
      f.nose_droop = d.in(0.0F, 0.15F);
      f.tail_length = d.in(0.2F, 0.28F);
      f.upsweep = d.in(0.1F, 0.3F);
      w.high = d.chance(0.5F);
      w.root = d.in(0.38F, 0.44F);
      w.chord = d.in(0.36F, 0.44F);
      w.half_span = d.in(0.3F, 0.36F);
      w.sweep = d.in(0.8F, 1.15F);
      w.taper = d.in(0.12F, 0.2F);
      w.dihedral = d.in(-0.04F, 0.02F);
      w.winglet = 0;
      t.fin_height = d.in(0.15F, 0.19F);
      t.fin_chord = d.in(0.2F, 0.25F);
      t.fin_sweep = d.in(0.8F, 1.0F);
      t.stabiliser = d.in(0.15F, 0.19F);
      t.stabiliser_place = 0;
      break;
  }
}

void sample_pose(Draws& d, AircraftScene& s) {
  auto& p = s.pose;
  p.faces_left = d.chance(0.5F);
  // Most photographs of aircraft are taken from the side; one in five here is three-quarter.
  const bool three_quarter = d.chance(0.22F);
  const float yaw = three_quarter ? d.in(24, 42) : d.middle(0, 24);
  p.yaw = (d.chance(0.4F) ? yaw : -yaw) * kDegree;
  const float a = d.middle(-1, 1);
  const float b = d.in(0, 1);
  const float c = d.middle(-1, 1);
  // In flight, seen a little from above or below: edge on, the wings would vanish.
  const bool from_below = d.chance(s.situation == Situation::kLow ? 0.65F : 0.4F);
  switch (s.situation) {
    case Situation::kOnGround:
      p.elevation = (4 + 8 * b) * kDegree;
      break;
    case Situation::kLow:
      p.pitch = (4 + 5 * a) * kDegree;
      p.roll = 5 * c * kDegree;
      p.elevation = (from_below ? -(5 + 10 * b) : 4 + 7 * b) * kDegree;
      break;
    case Situation::kCruise:
      p.pitch = (2 + 6 * a) * kDegree;
      p.roll = 16 * c * kDegree;
      p.elevation = (from_below ? -(5 + 11 * b) : 5 + 12 * b) * kDegree;
      break;
  }
}

void sample_framing(Draws& d, AircraftScene& s) {
  s.framing.width = d.in(0.76F, 0.95F);
  const float slack = 0.5F * (1 - s.framing.width);
  s.framing.centre_x = 0.5F + d.middle(-0.6F, 0.6F) * slack;
  s.framing.centre_y = 0.5F + d.middle(-0.06F, 0.06F);
  if (s.situation == Situation::kOnGround) s.framing.centre_y += 0.05F;
}

void sample_livery(Draws& d, AircraftScene& s) {
  auto& l = s.livery;
  constexpr std::array<std::uint32_t, 14> kAccents = {
      0x0B2A63, 0x14459E, 0x1E7CC8, 0xC3142D, 0x8E1230, 0xE2581B, 0xEFA51E,
      0x12734A, 0x0E8C8A, 0x5B2A86, 0x23272E, 0xD01F6E, 0x3B8C2E, 0x16325C};
  const std::uint32_t hue = d.below(kAccents.size());
  // Jittered towards a neighbour in brightness, so that no two airlines agree exactly.
  l.accent = scale(rgb(kAccents[hue]), d.in(0.8F, 1.25F));
  const std::uint32_t other = (hue + 3 + d.below(8)) % kAccents.size();
  l.second = d.chance(0.4F) ? rgb(0xF2F3F3) : rgb(kAccents[other]);
  const LinearRgb white = mix(rgb(0xF4F5F6), rgb(0xECE7DA), d.in(0, 0.6F));
  const LinearRgb grey = mix(rgb(0xB9BEC4), rgb(0x8D959D), d.in(0, 1));
  l.base = white;
  l.belly = d.chance(0.5F) ? grey : white;
  l.scheme = static_cast<LiveryScheme>(d.pick({0.26F, 0.24F, 0.2F, 0.12F, 0.1F, 0.08F}));
  l.fin = static_cast<FinPattern>(d.pick({0.4F, 0.22F, 0.2F, 0.18F}));
  l.stripe_width = d.in(0.14F, 0.34F);
  l.stripe_centre = d.in(-0.15F, 0.2F);
  l.sweep_start = d.in(0.62F, 0.78F);
  l.sweep_slope = d.in(0.03F, 0.1F);
  l.window_height = d.in(0.16F, 0.26F);
  l.windows = 22 + static_cast<int>(d.below(10));
  l.titles = d.chance(0.6F) ? d.in(0.12F, 0.22F) : 0;
  l.titles_seed = d.bits();
  l.wing = mix(rgb(0xC4C9CE), rgb(0x9AA2AA), d.in(0, 1));
  const std::size_t engine = d.pick({0.45F, 0.25F, 0.3F});
  if (l.scheme == LiveryScheme::kFullColour) l.base = mix(l.accent, white, d.in(0.0F, 0.35F));
  if (l.scheme == LiveryScheme::kBareMetal) {
    l.base = mix(rgb(0xC9CDD2), rgb(0xAEB5BD), d.in(0, 1));
    l.belly = l.base;
  }
  if (l.scheme == LiveryScheme::kTwoTone) l.belly = l.accent;
  l.engine = engine == 0 ? white : engine == 1 ? grey : l.accent;
  if (s.type == AircraftType::kBusinessJet) {
    l.windows = 6 + static_cast<int>(d.below(3));
    l.titles = 0;
    l.stripe_width = d.in(0.08F, 0.16F);
  }
  if (s.type == AircraftType::kFighter) {
    constexpr std::array<std::uint32_t, 5> kWarPaint = {0x8C959D, 0x6E7B86, 0x75806A, 0x9A9078,
                                                        0xA3ADB6};
    const LinearRgb war_paint = rgb(kWarPaint[d.below(kWarPaint.size())]);
    l.base = scale(war_paint, d.in(0.85F, 1.15F));
    l.belly = mix(l.base, rgb(0xC2C9CF), d.in(0.2F, 0.7F));
    l.wing = scale(l.base, 0.9F);
    l.engine = scale(l.base, 0.6F);
    l.scheme = LiveryScheme::kTwoTone;
    l.windows = 0;
    l.titles = 0;
    l.gloss = false;
  }
}

void sample_sky_and_light(Draws& d, Draws& sun, AircraftScene& s) {
  struct Palette {
    std::uint32_t zenith, horizon, cloud, sun;
    float sun_power, sky_power, low_sun;
  };
  constexpr std::array<Palette, 8> kPalettes = {{
      {0x3A7CCB, 0xBFDAEE, 0xFFFFFF, 0xFFFAF0, 0.86F, 0.46F, 0},     // clear
      {0x2460B4, 0x93BEE8, 0xF7FAFF, 0xFFFAF2, 0.92F, 0.40F, 0},     // deep blue
      {0x86B3DC, 0xDFE9EE, 0xFFFFFF, 0xFFF8EA, 0.74F, 0.54F, 0},     // haze
      {0xAEB8C1, 0xD9DDDE, 0x97A3AE, 0xF6F8FF, 0.30F, 0.74F, 0},     // overcast
      {0x66747F, 0xBAC2C6, 0x4F5C68, 0xFFF4E0, 0.55F, 0.55F, 0.3F},  // after the storm
      {0x4B6297, 0xF2B583, 0xE58E6A, 0xFFD0A6, 0.82F, 0.42F, 1},     // dusk
      {0x7D95C6, 0xF3CCC3, 0xEDB5B4, 0xFFDEC6, 0.74F, 0.48F, 0.8F},  // dawn
      {0x6CA2D2, 0xF4E1B6, 0xFFF0CC, 0xFFE6C0, 0.88F, 0.42F, 0.7F},  // golden hour
  }};
  const std::size_t one = d.pick({0.24F, 0.18F, 0.16F, 0.12F, 0.06F, 0.09F, 0.07F, 0.08F});
  const std::size_t two = d.below(kPalettes.size());
  const float t = d.in(0, 0.3F);
  const Palette& a = kPalettes[one];
  const Palette& b = kPalettes[two];
  const float bright = d.in(0.88F, 1.1F);
  s.sky.zenith = scale(mix(rgb(a.zenith), rgb(b.zenith), t), bright);
  s.sky.horizon = scale(mix(rgb(a.horizon), rgb(b.horizon), t), bright);
  s.sky.cloud = scale(mix(rgb(a.cloud), rgb(b.cloud), t), bright);
  s.sky.cloud_cover = d.in(0, 1);
  s.sky.cloud_contrast = d.in(0.15F, 0.55F);
  s.sky.cloud_scale = d.in(2.2F, 4.5F);
  s.sky.cloud_seed = d.bits();
  s.sky.haze = d.middle(0, 0.14F);

  const float low = a.low_sun + (b.low_sun - a.low_sun) * t;
  auto& l = s.light;
  l.azimuth = sun.in(-75, 75) * kDegree;
  const float height = sun.in(0, 1);
  l.elevation = ((1 - low) * (28 + 44 * height) + low * (8 + 14 * height)) * kDegree;
  const float contrast = sun.in(0.85F, 1.15F);
  const float power = (a.sun_power + (b.sun_power - a.sun_power) * t) * contrast;
  const float sky_power = (a.sky_power + (b.sky_power - a.sky_power) * t) / contrast;
  l.sun = scale(mix(rgb(a.sun), rgb(b.sun), t), power);
  // Light from the whole sky: its colour, but paler, as clouds and ground mix in.
  l.sky = scale(mix(mix(s.sky.zenith, s.sky.horizon, 0.6F), {0.8F, 0.8F, 0.8F}, 0.6F), sky_power);
}

void sample_ground(Draws& d, AircraftScene& s) {
  auto& g = s.ground;
  const LinearRgb grass = mix(rgb(0x6F8A45), rgb(0x9A9A5C), d.in(0, 1));
  const LinearRgb concrete = mix(rgb(0x8E9091), rgb(0xB4B0A8), d.in(0, 1));
  const LinearRgb sea = mix(rgb(0x1F5478), rgb(0x3D7F93), d.in(0, 1));
  const LinearRgb field = mix(rgb(0x7C8F5B), rgb(0xB3A777), d.in(0, 1));
  g.seed = d.bits();
  g.trees = mix(rgb(0x3B5238), rgb(0x56644A), d.in(0, 1));
  g.trees_height = d.in(0.012F, 0.045F);
  g.hills = d.chance(0.3F);
  const float height = d.in(0, 1);
  const bool runway = d.chance(0.75F);
  const std::size_t below = d.pick({0.35F, 0.3F, 0.35F});
  const bool plain_sky = d.chance(0.75F);
  switch (s.situation) {
    case Situation::kOnGround:
      g.kind = runway ? GroundKind::kRunway : GroundKind::kGrass;
      g.horizon = 0.05F + 0.1F * height;
      g.near = runway ? concrete : grass;
      g.far = grass;
      break;
    case Situation::kLow:
      g.kind = below == 0   ? GroundKind::kGrass
               : below == 1 ? GroundKind::kSea
                            : GroundKind::kFields;
      g.horizon = 0.8F + 0.13F * height;
      break;
    case Situation::kCruise:
      if (!plain_sky) {
        g.kind = below == 1 ? GroundKind::kSea : GroundKind::kFields;
        g.horizon = 0.84F + 0.1F * height;
      }
      break;
  }
  if (g.kind == GroundKind::kSea) {
    g.near = scale(sea, 0.85F);
    g.far = mix(sea, s.sky.horizon, 0.35F);
    g.trees_height = 0;
    g.hills = false;
  } else if (g.kind == GroundKind::kFields) {
    g.near = field;
    g.far = mix(field, s.sky.horizon, 0.55F);
    g.trees_height *= 0.4F;
  } else if (s.situation == Situation::kLow) {
    g.near = grass;
    g.far = mix(grass, s.sky.horizon, 0.3F);
  }
  g.trees = mix(g.trees, s.sky.horizon, 0.25F);
  // What the ground throws back at the belly.
  const LinearRgb floor = g.kind == GroundKind::kNone ? mix(s.sky.horizon, sea, 0.5F) : g.near;
  s.light.bounce = mix(scale(floor, 0.45F), scale(s.light.sky, 0.5F), 0.4F);
}

/// Narrows a scene in cruise to a side view. Shape, livery, colours of sky and light stay as free
/// as they were; pose and place keep a part of their range.
void narrow_to_side_view(AircraftScene& s) {
  s.pose.yaw *= 0.2F;
  s.pose.pitch *= 0.5F;
  s.pose.roll *= 0.25F;
  if (s.pose.elevation < 0) s.pose.elevation = -s.pose.elevation;
  s.framing.width = 0.8F + 0.5F * (s.framing.width - 0.76F);
  s.framing.centre_x = 0.5F + 0.5F * (s.framing.centre_x - 0.5F);
  s.framing.centre_y = 0.5F + 0.5F * (s.framing.centre_y - 0.5F);
  s.sky.cloud_contrast *= 0.25F;
  // Lettering and windows are details below a pixel at 64x64.
  s.livery.titles = 0;
  s.livery.windows = 0;
}

}  // namespace

const std::vector<std::string>& aircraft_type_names() {
  static const std::vector<std::string> names = {
      "twin jet",  "four-engine jet", "tri-jet", "rear-engine jet",
      "propeller", "business jet",    "fighter"};
  return names;
}

AircraftType aircraft_type_of(std::uint64_t seed, std::uint64_t draw, AircraftViews views) {
  if (views == AircraftViews::kSide) return AircraftType::kTwinJet;
  Draws type(seed, "type", draw);
  return static_cast<AircraftType>(type.pick({0.38F, 0.17F, 0.08F, 0.14F, 0.1F, 0.08F, 0.05F}));
}

AircraftScene sample_aircraft_scene(std::uint64_t seed, std::uint64_t draw, AircraftViews views) {
  AircraftScene s;
  s.type = aircraft_type_of(seed, draw, views);
  Draws situation(seed, "situation", draw);
  s.situation = static_cast<Situation>(situation.pick({0.36F, 0.26F, 0.38F}));
  if (views == AircraftViews::kSide) s.situation = Situation::kCruise;
  const float gear = s.situation == Situation::kOnGround ? 1.0F
                     : s.situation == Situation::kLow    ? 0.7F
                                                         : 0.0F;
  s.gear_down = situation.chance(gear);
  Draws shape(seed, "shape", draw);
  sample_shape(shape, s);
  Draws pose(seed, "pose", draw);
  sample_pose(pose, s);
  Draws framing(seed, "framing", draw);
  sample_framing(framing, s);
  Draws livery(seed, "livery", draw);
  sample_livery(livery, s);
  Draws sky(seed, "sky", draw);
  Draws sun(seed, "sun", draw);
  sample_sky_and_light(sky, sun, s);
  Draws ground(seed, "ground", draw);
  sample_ground(ground, s);
  if (views == AircraftViews::kSide) narrow_to_side_view(s);
  return s;
}

}  // namespace gp
