#include "stages/data/aircraft_painter.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "stages/data/aircraft_mesh.hpp"

namespace gp {
namespace {

// Sample positions in a pixel, sorted by y: no two share a row or a column, so that edges near the
// horizontal and the vertical, which are most of an aircraft, get nine levels of coverage.
constexpr int kSamples = 8;
constexpr std::array<float, kSamples> kSampleX = {15.0F / 16, 5.0F / 16, 9.0F / 16, 1.0F / 16,
                                                  13.0F / 16, 7.0F / 16, 3.0F / 16, 11.0F / 16};
// Where all eight lie on one part, these four are enough: one in each quarter, both ways.
constexpr std::array<int, 4> kInnerSamples = {1, 3, 4, 7};

LinearRgb operator+(LinearRgb a, LinearRgb b) { return {a.r + b.r, a.g + b.g, a.b + b.b}; }
LinearRgb operator*(LinearRgb a, float s) { return {a.r * s, a.g * s, a.b * s}; }
LinearRgb operator*(LinearRgb a, LinearRgb b) { return {a.r * b.r, a.g * b.g, a.b * b.b}; }
LinearRgb mix(LinearRgb a, LinearRgb b, float t) { return a + (b + a * -1) * t; }

float clamp01(float x) { return std::clamp(x, 0.0F, 1.0F); }
float smooth(float edge0, float edge1, float x) {
  const float t = clamp01((x - edge0) / (edge1 - edge0));
  return t * t * (3 - 2 * t);
}

/// A value in [0, 1) that belongs to a lattice point.
float lattice(std::uint32_t seed, int x, int y) {
  std::uint32_t h = seed ^ (static_cast<std::uint32_t>(x) * 0x8DA6B343U) ^
                    (static_cast<std::uint32_t>(y) * 0xD8163841U);
  h = (h ^ (h >> 16)) * 0x7FEB352DU;
  h = (h ^ (h >> 15)) * 0x846CA68BU;
  h ^= h >> 16;
  return static_cast<float>(h >> 8) * 0x1p-24F;
}

/// Smooth noise in [0, 1) with one bump a unit.
float value_noise(std::uint32_t seed, float x, float y) {
  const float fx = std::floor(x);
  const float fy = std::floor(y);
  const int ix = static_cast<int>(fx);
  const int iy = static_cast<int>(fy);
  const float u = (x - fx) * (x - fx) * (3 - 2 * (x - fx));
  const float v = (y - fy) * (y - fy) * (3 - 2 * (y - fy));
  const float top = lattice(seed, ix, iy) * (1 - u) + lattice(seed, ix + 1, iy) * u;
  const float bottom = lattice(seed, ix, iy + 1) * (1 - u) + lattice(seed, ix + 1, iy + 1) * u;
  return top * (1 - v) + bottom * v;
}

/// Clouds on a coarse grid of their own, interpolated: they are soft, and the same at every size.
class Clouds {
 public:
  void make(const AircraftScene::Sky& sky) {
    const float threshold = 0.72F - 0.4F * sky.cloud_cover;
    for (int y = 0; y < kGrid; ++y) {
      for (int x = 0; x < kGrid; ++x) {
        const float px = static_cast<float>(x) * sky.cloud_scale / kGrid;
        // Clouds are wider than high, and flatter towards the horizon.
        const float py = static_cast<float>(y) * sky.cloud_scale * 2.2F / kGrid;
        const float noise = 0.58F * value_noise(sky.cloud_seed, px, py) +
                            0.28F * value_noise(sky.cloud_seed + 1, 2.1F * px, 2.1F * py) +
                            0.14F * value_noise(sky.cloud_seed + 2, 4.3F * px, 4.3F * py);
        grid_[y][x] = smooth(threshold, threshold + 0.4F, noise) * sky.cloud_contrast;
      }
    }
  }
  /// Prepares row y, 0..1 down the picture.
  void set_row(float y) {
    const Place p = place(y);
    for (int x = 0; x < kGrid; ++x) {
      row_[x] = p.a * grid_[p.i][x] + p.b * grid_[p.i + 1][x] + p.c * grid_[p.i + 2][x];
    }
  }
  float at(float x) const {
    const Place p = place(x);
    return p.a * row_[p.i] + p.b * row_[p.i + 1] + p.c * row_[p.i + 2];
  }

 private:
  static constexpr int kGrid = 22;
  /// A quadratic B-spline's weights.
  struct Place {
    int i;
    float a, b, c;
  };
  static Place place(float u) {
    const float position = u * (kGrid - 3);
    const int i = std::clamp(static_cast<int>(position), 0, kGrid - 3);
    const float f = position - static_cast<float>(i);
    return {i, 0.5F * (1 - f) * (1 - f), 0.5F + f * (1 - f), 0.5F * f * f};
  }
  float grid_[kGrid][kGrid];
  float row_[kGrid];
};

/// What the camera makes of the model: a rotation, a scale and a shift; no perspective.
struct Camera {
  Vec3 right, up, toward;  ///< of the picture, in the aircraft's coordinates
  float scale = 1;         ///< picture widths per fuselage length
  float x = 0;             ///< of the aircraft's origin in the picture
  float y = 0;

  float screen_x(Vec3 p) const { return x + scale * dot(right, p); }
  float screen_y(Vec3 p) const { return y - scale * dot(up, p); }
};

Camera make_camera(const AircraftScene::Pose& pose) {
  struct Turn {
    float s = 0, c = 1;
    explicit Turn(float angle) { portable_sincos(angle, s, c); }
  };
  const Turn roll(pose.roll);
  const Turn pitch(pose.pitch);
  const Turn yaw(pose.faces_left ? 3.14159265F - pose.yaw : pose.yaw);
  const Turn lift(pose.elevation);
  // An aircraft that faces left shows its other side: the wing that is near has the other sign.
  const float roll_sine = pose.faces_left ? -roll.s : roll.s;
  const auto to_camera = [&](Vec3 v) {
    v = {v.x, v.y * roll.c - v.z * roll_sine, v.y * roll_sine + v.z * roll.c};
    v = {v.x * pitch.c - v.y * pitch.s, v.x * pitch.s + v.y * pitch.c, v.z};
    v = {v.x * yaw.c + v.z * yaw.s, v.y, v.z * yaw.c - v.x * yaw.s};
    return Vec3{v.x, v.y * lift.c - v.z * lift.s, v.y * lift.s + v.z * lift.c};
  };
  const Vec3 x = to_camera({1, 0, 0});
  const Vec3 y = to_camera({0, 1, 0});
  const Vec3 z = to_camera({0, 0, 1});
  Camera camera;
  camera.right = {x.x, y.x, z.x};
  camera.up = {x.y, y.y, z.y};
  camera.toward = {x.z, y.z, z.z};
  return camera;
}

/// The paint on the aircraft: albedo at a point of a part.
class Paint {
 public:
  explicit Paint(const AircraftScene& scene)
      : s_(scene), fin_(fin_plan(scene)), per_radius_(2 * scene.fuselage.slenderness) {}

  struct Surface {
    LinearRgb albedo;
    float gloss;
  };

  Surface at(Part part, Vec3 p) const {
    const auto& l = s_.livery;
    const float gloss = l.gloss ? 1 : 0.25F;
    switch (part) {
      case Part::kFuselage:
        return fuselage(p);
      case Part::kGlass:
        return {kGlass, 1.6F};
      case Part::kWing:
        return {l.wing, 0.5F * gloss};
      case Part::kWinglet:
        return {l.accent, gloss};
      case Part::kFin:
        return {fin(p), 0.6F * gloss};
      case Part::kStabiliser:
        return {l.wing, 0.5F * gloss};
      case Part::kNacelle:
        return {l.engine, gloss};
      case Part::kIntake:
        return {{0.015F, 0.017F, 0.02F}, 0};
      case Part::kExhaust:
        return {{0.16F, 0.15F, 0.15F}, 0.4F};
      case Part::kPropeller:
        return {{0.3F, 0.3F, 0.3F}, 0};
      case Part::kGear:
        return {{0.42F, 0.43F, 0.45F}, 0.3F};
      case Part::kTyre:
        return {{0.022F, 0.022F, 0.025F}, 0};
      case Part::kHub:
        return {{0.4F, 0.41F, 0.43F}, 0.5F};
    }
    return {};
  }

 private:
  static constexpr LinearRgb kGlass = {0.02F, 0.03F, 0.045F};

  Surface fuselage(Vec3 p) const {
    const auto& l = s_.livery;
    const float t = 0.5F - p.x;
    const float v = p.y * per_radius_;  // radii above the axis
    const float gloss = l.gloss ? 1 : 0.25F;
    if (s_.type == AircraftType::kFighter) {
      const float edge = -0.1F + 0.25F * value_noise(l.titles_seed, 9 * t, 0);
      return {v < edge ? l.belly : l.base, gloss};
    }
    if (in_cockpit_window(t, p.y)) return {kGlass, 1.6F};

    LinearRgb colour = v < -0.42F ? l.belly : l.base;
    const float from_stripe = v - l.stripe_centre;
    switch (l.scheme) {
      case LiveryScheme::kCheatline:
      case LiveryScheme::kBareMetal:
        if (std::abs(from_stripe) < l.stripe_width) colour = l.accent;
        // A thin second line under the first.
        if (from_stripe < -l.stripe_width - 0.06F && from_stripe > -l.stripe_width - 0.2F) {
          colour = l.second;
        }
        break;
      case LiveryScheme::kTwoTone: {
        // The lower colour sweeps up towards the tail.
        const float rise = smooth(0.55F, 1.0F, t) * 1.2F;
        if (v < -0.2F + rise) colour = l.accent;
        break;
      }
      case LiveryScheme::kTailSweep:
        if (t > l.sweep_start - l.sweep_slope * v)
          colour = l.accent;
        else if (t > l.sweep_start - l.sweep_slope * v - 0.02F)
          colour = l.second;
        break;
      case LiveryScheme::kWhite:
      case LiveryScheme::kFullColour:
        break;
    }
    if (l.windows > 0) colour = with_windows(colour, t, v);
    if (l.titles > 0) colour = with_titles(colour, t, v);
    return {colour, gloss};
  }

  bool in_cockpit_window(float t, float y) const {
    const auto& f = s_.fuselage;
    const float place = t / f.nose_length;
    if (place < 0.1F || place > 0.62F) return false;
    const FuselageSection section = fuselage_section(s_, t);
    const float q = (y - section.centre) / section.height;
    return place > 0.18F + 0.16F * q && q > 0.26F && q < 0.72F;
  }

  LinearRgb with_windows(LinearRgb colour, float t, float v) const {
    const auto& l = s_.livery;
    const float from = s_.fuselage.nose_length * 1.05F;
    const float to = s_.type == AircraftType::kBusinessJet ? 0.6F : 0.8F;
    const auto row = [&](float start, float end, float height, float count) {
      if (t < start || t > end || std::abs(v - height) > 0.1F) return false;
      const float cell = (t - start) / (end - start) * count;
      return cell - std::floor(cell) < 0.5F;
    };
    const auto count = static_cast<float>(l.windows);
    const bool hit = row(from, to, l.window_height, count) ||
                     (s_.fuselage.hump > 0 && row(0.1F, 0.28F, 0.85F, 0.27F * count));
    return hit ? LinearRgb{0.03F, 0.035F, 0.05F} : colour;
  }

  /// A name that nobody can read: bars of letter size, some of them cut.
  LinearRgb with_titles(LinearRgb colour, float t, float v) const {
    const auto& l = s_.livery;
    const float start = s_.fuselage.nose_length + 0.05F;
    if (t < start || t > start + l.titles || v < 0.42F || v > 0.72F) return colour;
    const float cell = (t - start) / 0.022F;
    const float column = cell - std::floor(cell);
    const int letter = static_cast<int>(cell);
    if (column > 0.72F || lattice(l.titles_seed, letter, 7) < 0.12F) return colour;
    const float cut = lattice(l.titles_seed, letter, 3);
    const float height = (v - 0.42F) / 0.3F;
    const bool hole =
        column > 0.25F && (cut < 0.5F ? height < 0.4F : height > 0.35F && height < 0.65F);
    if (hole) return colour;
    return l.scheme == LiveryScheme::kFullColour ? l.second : l.accent;
  }

  LinearRgb fin(Vec3 p) const {
    const auto& l = s_.livery;
    if (s_.type == AircraftType::kFighter) return l.base;
    const float share = (p.y - fin_.root_y) / fin_.height;
    const float along = (fin_.leading_edge(share) - p.x) / fin_.chord(share);
    const bool white_fin = l.scheme == LiveryScheme::kFullColour;
    const LinearRgb ground = white_fin ? mix(l.second, l.base, 0.2F) : l.accent;
    const LinearRgb figure = white_fin ? l.accent : l.second;
    switch (l.fin) {
      case FinPattern::kPlain:
        return ground;
      case FinPattern::kBands:
        return (share > 0.5F && share < 0.62F) || (share > 0.72F && share < 0.84F) ? figure
                                                                                   : ground;
      case FinPattern::kDisc: {
        const float dy = (share - 0.62F) * fin_.height;
        const float dx = (along - 0.5F) * fin_.chord(share);
        const float radius = 0.2F * fin_.height;
        return dx * dx + dy * dy < radius * radius ? figure : ground;
      }
      case FinPattern::kDiagonal:
        return along + 0.9F * share > 1.1F ? figure : ground;
    }
    return ground;
  }

  const AircraftScene& s_;
  FinPlan fin_;
  float per_radius_;
};

class Painter {
 public:
  void paint(const AircraftScene& scene, ImageView out);

 private:
  void place_aircraft();
  void project();
  void rasterise(int top, int bottom);
  LinearRgb shade(const MeshTriangle& triangle, float x, float line) const;
  void make_columns();
  void background_row(int y);
  void aircraft_row(int y, int top);

  /// A vertex: x in pixels; y in lines of samples, kSamples a pixel, whole numbers on the samples;
  /// depth grows towards the camera.
  struct Projected {
    float x, line, depth;
  };

  const AircraftScene* s_ = nullptr;
  const Paint* paint_ = nullptr;
  int size_ = 0;
  AircraftMesh mesh_;
  Camera camera_;
  Vec3 sun_, up_, half_;  // in the aircraft's coordinates
  std::vector<Projected> projected_;
  std::vector<MeshTriangle> visible_;
  float min_y_ = 0, max_y_ = 0;  // of the aircraft, pixels
  float wheels_y_ = 0;           // where the aircraft stands, 0..1
  float horizon_ = 2;            // 0..1 down the picture; > 1: no ground
  std::vector<float> depth_;
  std::vector<std::uint16_t> hit_;  // 1 + index into visible_
  Clouds clouds_;
  std::vector<float> skyline_;  // y of hills and trees for each column, 0..1
  std::vector<float> hills_;
  std::vector<LinearRgb> row_;
};

void Painter::place_aircraft() {
  camera_ = make_camera(s_->pose);
  float left = std::numeric_limits<float>::max();
  float right = -left;
  float top = -left;
  float bottom = left;
  for (const MeshVertex& v : mesh_.vertices) {
    const float x = dot(camera_.right, v.position);
    const float y = dot(camera_.up, v.position);
    left = std::min(left, x);
    right = std::max(right, x);
    bottom = std::min(bottom, y);
    top = std::max(top, y);
  }
  constexpr float kMostHeight = 0.7F;
  camera_.scale = std::min(s_->framing.width / (right - left), kMostHeight / (top - bottom));
  camera_.x = s_->framing.centre_x - 0.5F * camera_.scale * (left + right);
  camera_.y = s_->framing.centre_y + 0.5F * camera_.scale * (bottom + top);
  // Where the axis' foot meets the ground.
  wheels_y_ = camera_.screen_y({0, mesh_.lowest, 0});

  const auto& light = s_->light;
  float azimuth_sine = 0;
  float azimuth_cosine = 0;
  float sine = 0;
  float cosine = 0;
  portable_sincos(light.azimuth, azimuth_sine, azimuth_cosine);
  portable_sincos(light.elevation, sine, cosine);
  const auto to_model = [&](Vec3 v) {
    return camera_.right * v.x + camera_.up * v.y + camera_.toward * v.z;
  };
  sun_ = to_model({azimuth_sine * cosine, sine, azimuth_cosine * cosine});
  up_ = to_model({0, 1, 0});
  half_ = normalised(sun_ + camera_.toward);
}

void Painter::project() {
  const auto size = static_cast<float>(size_);
  projected_.clear();
  min_y_ = size;
  max_y_ = 0;
  for (const MeshVertex& v : mesh_.vertices) {
    const float y = camera_.screen_y(v.position) * size;
    min_y_ = std::min(min_y_, y);
    max_y_ = std::max(max_y_, y);
    projected_.push_back({camera_.screen_x(v.position) * size, y * kSamples - 0.5F,
                          dot(camera_.toward, v.position)});
  }
  visible_.clear();
  for (const MeshTriangle& t : mesh_.triangles) {
    const Projected& a = projected_[t.a];
    const Projected& b = projected_[t.b];
    const Projected& c = projected_[t.c];
    // y points down, so a triangle that faces the camera has a negative area.
    const float area = (b.x - a.x) * (c.line - a.line) - (c.x - a.x) * (b.line - a.line);
    if (area < 0 || (t.part == Part::kPropeller && area != 0)) visible_.push_back(t);
  }
}

/// The least integer >= v, for |v| < 2^14. std::ceil is a slow call on plain x86-64.
int ceil_to_int(float v) {
  constexpr int kBias = 1 << 14;
  return kBias - static_cast<int>(static_cast<float>(kBias) - v);
}

void Painter::rasterise(int top, int bottom) {
  const auto stride = static_cast<std::size_t>(size_);
  const std::size_t used = stride * kSamples * static_cast<std::size_t>(bottom - top);
  depth_.assign(used, -std::numeric_limits<float>::max());
  hit_.assign(used, 0);
  const int first_line = top * kSamples;
  const int end_line = bottom * kSamples;
  for (std::size_t index = 0; index < visible_.size(); ++index) {
    const MeshTriangle& t = visible_[index];
    const Projected* p0 = &projected_[t.a];
    const Projected* p1 = &projected_[t.b];
    const Projected* p2 = &projected_[t.c];
    if (p1->line < p0->line) std::swap(p0, p1);
    if (p2->line < p1->line) std::swap(p1, p2);
    if (p1->line < p0->line) std::swap(p0, p1);
    const int first = std::max(first_line, ceil_to_int(p0->line));
    const int end = std::min(end_line, ceil_to_int(p2->line));
    if (first >= end) continue;

    const float dx1 = p1->x - p0->x;
    const float dx2 = p2->x - p0->x;
    const float dy1 = p1->line - p0->line;
    const float dy2 = p2->line - p0->line;
    const float area = dx1 * dy2 - dx2 * dy1;
    if (area == 0) continue;
    const float d1 = p1->depth - p0->depth;
    const float d2 = p2->depth - p0->depth;
    const float depth_x = (d1 * dy2 - d2 * dy1) / area;
    const float depth_line = (d2 * dx1 - d1 * dx2) / area;
    const float long_slope = dx2 / dy2;
    const float upper_slope = dy1 > 0 ? dx1 / dy1 : 0;
    const float lower_slope = dy2 > dy1 ? (p2->x - p1->x) / (dy2 - dy1) : 0;
    // Two samples of eight: the disc is three quarters transparent.
    const bool see_through = t.part == Part::kPropeller;

    for (int line = first; line < end; ++line) {
      const int k = line % kSamples;
      if (see_through && k % 4 != 1) continue;
      const float down = static_cast<float>(line) - p0->line;
      const float one = p0->x + down * long_slope;
      const float two =
          down < dy1 ? p0->x + down * upper_slope : p1->x + (down - dy1) * lower_slope;
      const float offset = kSampleX[static_cast<std::size_t>(k)];
      const int begin_x = std::max(0, ceil_to_int(std::min(one, two) - offset));
      const int end_x = std::min(size_, ceil_to_int(std::max(one, two) - offset));
      const std::size_t row = static_cast<std::size_t>(line - first_line) * stride;
      const float base = p0->depth + down * depth_line + (offset - p0->x) * depth_x;
      for (int x = begin_x; x < end_x; ++x) {
        const float depth = base + static_cast<float>(x) * depth_x;
        const std::size_t at = row + static_cast<std::size_t>(x);
        if (depth > depth_[at]) {
          depth_[at] = depth;
          hit_[at] = static_cast<std::uint16_t>(index + 1);
        }
      }
    }
  }
}

LinearRgb Painter::shade(const MeshTriangle& t, float x, float line) const {
  const Projected& a = projected_[t.a];
  const Projected& b = projected_[t.b];
  const Projected& c = projected_[t.c];
  const float inverse = 1 / ((b.x - a.x) * (c.line - a.line) - (c.x - a.x) * (b.line - a.line));
  const float wb = ((x - a.x) * (c.line - a.line) - (c.x - a.x) * (line - a.line)) * inverse;
  const float wc = ((b.x - a.x) * (line - a.line) - (x - a.x) * (b.line - a.line)) * inverse;
  const float wa = 1 - wb - wc;
  const MeshVertex& va = mesh_.vertices[t.a];
  const MeshVertex& vb = mesh_.vertices[t.b];
  const MeshVertex& vc = mesh_.vertices[t.c];
  const Vec3 position = va.position * wa + vb.position * wb + vc.position * wc;
  Vec3 normal = normalised(va.normal * wa + vb.normal * wb + vc.normal * wc);
  if (t.part == Part::kPropeller && dot(normal, camera_.toward) < 0) normal = normal * -1;

  const Paint::Surface surface = paint_->at(t.part, position);
  const auto& light = s_->light;
  const float lit = std::max(0.0F, dot(normal, sun_));
  const float sky_share = 0.5F + 0.5F * dot(normal, up_);
  LinearRgb colour = surface.albedo * (light.sun * lit + mix(light.bounce, light.sky, sky_share));
  if (surface.gloss > 0) {
    // A highlight of the sun, and the sky mirrored at grazing angles.
    float shine = std::max(0.0F, dot(normal, half_));
    shine *= shine;
    shine *= shine;
    shine *= shine;
    shine *= shine * shine;
    const float facing = 1 - clamp01(dot(normal, camera_.toward));
    const float grazing = facing * facing * facing;
    colour = colour + light.sun * (0.3F * surface.gloss * shine) +
             mix(light.bounce, s_->sky.horizon, sky_share) * (0.16F * surface.gloss * grazing);
  }
  return mix(colour, s_->sky.horizon, s_->sky.haze);
}

void Painter::make_columns() {
  const auto& g = s_->ground;
  horizon_ = 2;
  if (g.kind == GroundKind::kNone) return;
  horizon_ = s_->situation == Situation::kOnGround ? wheels_y_ - g.horizon : g.horizon;
  skyline_.resize(static_cast<std::size_t>(size_));
  hills_.resize(static_cast<std::size_t>(size_));
  for (int i = 0; i < size_; ++i) {
    const float x = (static_cast<float>(i) + 0.5F) / static_cast<float>(size_);
    const float bumps =
        0.6F * value_noise(g.seed, 9 * x, 0) + 0.4F * value_noise(g.seed, 23 * x, 5);
    const float ridge = value_noise(g.seed + 9, 2.2F * x, 0);
    skyline_[static_cast<std::size_t>(i)] = horizon_ - g.trees_height * (0.35F + 0.8F * bumps);
    hills_[static_cast<std::size_t>(i)] = g.hills ? horizon_ - 0.02F - 0.09F * ridge : 2;
  }
}

void Painter::background_row(int row) {
  const auto& sky = s_->sky;
  const auto& g = s_->ground;
  const auto size = static_cast<float>(size_);
  const float y = (static_cast<float>(row) + 0.5F) / size;
  const float sky_end = std::min(horizon_, 1.1F);
  const float down = clamp01(y / sky_end);
  const LinearRgb air = mix(sky.zenith, sky.horizon, down * (0.35F + 0.65F * down));
  clouds_.set_row(clamp01(y));
  const bool with_ground = horizon_ <= 1 && y > horizon_ - 0.15F;

  // The ground's own colour in this row.
  LinearRgb floor;
  float shadow_y = 0;
  if (with_ground) {
    const float depth = clamp01((y - horizon_) / std::max(0.05F, 1 - horizon_));
    floor = mix(g.far, g.near, smooth(0, 0.5F, depth));
    if (g.kind == GroundKind::kRunway) {
      const float pixel = 1 / size;
      const auto band = [&](float from, float to) {
        return clamp01((y - from) / pixel + 0.5F) * clamp01((to - y) / pixel + 0.5F);
      };
      // Grass to the edge of the concrete, then a painted line between wheels and camera.
      const float edge = wheels_y_ - 0.35F * g.horizon;
      floor = mix(g.far, mix(g.near * 0.92F, g.near * 1.08F, depth), band(edge, 2));
      const float line = wheels_y_ + 0.055F + 0.3F * g.horizon;
      floor = mix(floor, {0.8F, 0.78F, 0.7F}, 0.55F * band(line, line + 0.012F));
    }
    shadow_y = (y - wheels_y_) / (0.016F + 0.35F * std::max(0.0F, s_->pose.elevation));
  }
  const bool on_ground = s_->situation == Situation::kOnGround;
  // Under the fuselage and both wings, blurred.
  const float half_length = 0.5F * camera_.scale * std::abs(camera_.right.x);
  const float middle = camera_.x;

  for (int i = 0; i < size_; ++i) {
    const float x = (static_cast<float>(i) + 0.5F) / size;
    LinearRgb colour = mix(air, sky.cloud, clouds_.at(x));
    if (with_ground) {
      const auto column = static_cast<std::size_t>(i);
      const auto covered = [&](float edge) { return clamp01((y - edge) * size + 0.5F); };
      if (g.hills) colour = mix(colour, mix(g.trees, sky.horizon, 0.55F), covered(hills_[column]));
      if (g.trees_height > 0) colour = mix(colour, g.trees, covered(skyline_[column]));
      LinearRgb here = floor;
      if (g.kind == GroundKind::kSea) {
        const float streak = value_noise(g.seed, 5 * x, 60 * (y - horizon_));
        here = here * (0.9F + 0.2F * streak);
      } else if (g.kind == GroundKind::kFields) {
        const float patch = value_noise(g.seed, 6 * x, 26 * (y - horizon_));
        here = mix(here, g.trees, 0.45F * smooth(0.45F, 0.75F, patch));
      }
      if (on_ground) {
        const float shadow_x = (x - middle) / half_length;
        const float distance = shadow_x * shadow_x + shadow_y * shadow_y;
        here = here * (1 - 0.5F * smooth(1.2F, 0.1F, distance));
      }
      colour = mix(colour, here, covered(horizon_));
    }
    row_[static_cast<std::size_t>(i)] = colour;
  }
}

void Painter::aircraft_row(int y, int top) {
  const auto size = static_cast<std::size_t>(size_);
  const std::uint16_t* hits = &hit_[static_cast<std::size_t>(y - top) * kSamples * size];
  const auto line_of = [&](int k) { return static_cast<float>(y * kSamples + k); };
  for (std::size_t x = 0; x < size; ++x) {
    std::array<std::uint16_t, kSamples> hit;
    int covered = 0;
    bool one_part = true;
    Part part{};
    for (std::size_t k = 0; k < kSamples; ++k) {
      hit[k] = hits[k * size + x];
      if (hit[k] == 0) continue;
      const Part here = visible_[hit[k] - 1U].part;
      one_part = one_part && (covered == 0 || here == part);
      part = here;
      ++covered;
    }
    if (covered == 0) continue;
    LinearRgb sum;
    const auto add = [&](int k) {
      const auto i = static_cast<std::size_t>(k);
      sum = sum + shade(visible_[hit[i] - 1U], static_cast<float>(x) + kSampleX[i], line_of(k));
    };
    if (covered == kSamples && one_part) {
      for (const int k : kInnerSamples) add(k);
      row_[x] = sum * (1.0F / kInnerSamples.size());
    } else {
      for (int k = 0; k < kSamples; ++k) {
        if (hit[static_cast<std::size_t>(k)] != 0) add(k);
      }
      row_[x] = (row_[x] * static_cast<float>(kSamples - covered) + sum) * (1.0F / kSamples);
    }
  }
}

void Painter::paint(const AircraftScene& scene, ImageView out) {
  s_ = &scene;
  const Paint paint(scene);
  paint_ = &paint;
  size_ = out.width;
  build_aircraft_mesh(scene, size_ <= 96 ? 1 : size_ <= 288 ? 2 : 4, mesh_);
  place_aircraft();
  project();
  clouds_.make(scene.sky);
  make_columns();
  row_.resize(static_cast<std::size_t>(size_));

  // In bands, so that the sample buffers stay in the cache and small.
  const int band = std::max(1, 65536 / (size_ * kSamples));
  for (int top = 0; top < size_; top += band) {
    const int bottom = std::min(size_, top + band);
    const int first = std::max(top, static_cast<int>(std::floor(min_y_)));
    const int last = std::min(bottom, static_cast<int>(std::floor(max_y_)) + 1);
    if (first < last) rasterise(first, last);
    for (int y = top; y < bottom; ++y) {
      background_row(y);
      if (y >= first && y < last) aircraft_row(y, first);
      // Floats are read through r, g, b in turn.
      const float* linear = &row_[0].r;
      std::uint8_t* bytes = out.row(y);
      for (int i = 0; i < size_ * kChannels; ++i) {
        bytes[i] = static_cast<std::uint8_t>(std::sqrt(clamp01(linear[i])) * 255 + 0.5F);
      }
    }
  }
}

}  // namespace

void paint_aircraft_scene(const AircraftScene& scene, ImageView out) {
  // The buffers are kept for the thread's next picture.
  thread_local Painter painter;
  painter.paint(scene, out);
}

}  // namespace gp
