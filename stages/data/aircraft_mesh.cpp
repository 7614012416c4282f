#include "stages/data/aircraft_mesh.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace gp {
namespace {

constexpr float kPi = 3.14159265F;

float smooth(float edge0, float edge1, float x) {
  const float t = std::clamp((x - edge0) / (edge1 - edge0), 0.0F, 1.0F);
  return t * t * (3 - 2 * t);
}

float fuselage_radius(const AircraftScene& s) { return 0.5F / s.fuselage.slenderness; }

/// One ring of a tube along x.
struct Ring {
  float x, y, z;
  float height, width;  ///< half axes
};

/// One section of a wing-like surface: a profile from the leading edge backwards, thick along
/// (up_y, up_z).
struct Section {
  Vec3 leading_edge;
  float chord;
  float half_thickness;
  float up_y, up_z;
};

class Builder {
 public:
  Builder(const AircraftScene& scene, int detail, AircraftMesh& mesh)
      : s_(scene), detail_(detail), mesh_(mesh), r_(fuselage_radius(scene)) {}

  void build();

 private:
  std::uint16_t add(Vec3 position, Vec3 normal) {
    mesh_.vertices.push_back({position, normal});
    return static_cast<std::uint16_t>(mesh_.vertices.size() - 1);
  }
  /// Turns the triangle so that it faces the way its vertices' normals do.
  void triangle(std::uint16_t a, std::uint16_t b, std::uint16_t c, Part part) {
    const MeshVertex& va = mesh_.vertices[a];
    const MeshVertex& vb = mesh_.vertices[b];
    const MeshVertex& vc = mesh_.vertices[c];
    const Vec3 face = cross(vb.position - va.position, vc.position - va.position);
    if (dot(face, va.normal + vb.normal + vc.normal) < 0) std::swap(b, c);
    mesh_.triangles.push_back({a, b, c, part});
  }
  void quad(std::uint16_t a, std::uint16_t b, std::uint16_t c, std::uint16_t d, Part part) {
    triangle(a, b, c, part);
    triangle(a, c, d, part);
  }

  void tube(std::span<const Ring> rings, int segments, Part part);
  /// A flat elliptic disc across x, facing `facing` (+1 or -1).
  void disc(const Ring& ring, float facing, int segments, Part part);
  void surface(std::span<const Section> sections, Part part);
  /// A cylinder between two points, closed at both ends.
  void cylinder(Vec3 from, Vec3 to, float radius, int segments, Part side, Part ends);

  void fuselage();
  void wings();
  void tail();
  void engines();
  void jet_engine(float front_x, float y, float z, float radius, float length);
  void propeller_engine(float front_x, float y, float z, float radius, float length);
  void gear();
  void leg(float x, float z, float top, float radius);

  float wing_y() const { return s_.wing.high ? 0.82F * r_ : -0.5F * r_; }
  /// Leading edge of the wing at a distance from the middle.
  Vec3 wing_edge(float z) const {
    const float out = std::abs(z);
    return {0.5F - s_.wing.root - s_.wing.sweep * out, wing_y() + s_.wing.dihedral * out, z};
  }

  const AircraftScene& s_;
  int detail_;
  AircraftMesh& mesh_;
  float r_;
  float clearance_ = 0;  ///< lowest point of engines and belly
};

void Builder::tube(std::span<const Ring> rings, int segments, Part part) {
  const auto first = static_cast<std::uint16_t>(mesh_.vertices.size());
  for (std::size_t i = 0; i < rings.size(); ++i) {
    const Ring& ring = rings[i];
    const Ring& before = rings[i == 0 ? 0 : i - 1];
    const Ring& after = rings[i + 1 == rings.size() ? i : i + 1];
    const float dx = after.x - before.x;
    const float inverse = dx != 0 ? 1 / dx : 0;
    const float dh = (after.height - before.height) * inverse;
    const float dw = (after.width - before.width) * inverse;
    const float dy = (after.y - before.y) * inverse;
    for (int k = 0; k < segments; ++k) {
      float sine = 0;
      float cosine = 0;
      portable_sincos(2 * kPi * static_cast<float>(k) / static_cast<float>(segments), sine, cosine);
      // The gradient of the implicit surface ((y-c)/h)^2 + ((z-z0)/w)^2 = 1.
      const Vec3 normal = normalised({-(cosine * cosine * ring.width * dh +
                                        sine * sine * ring.height * dw + cosine * ring.width * dy),
                                      cosine * ring.width, sine * ring.height});
      add({ring.x, ring.y + ring.height * cosine, ring.z + ring.width * sine}, normal);
    }
  }
  const auto n = static_cast<std::uint16_t>(segments);
  for (std::size_t i = 0; i + 1 < rings.size(); ++i) {
    const auto base = static_cast<std::uint16_t>(first + i * n);
    for (std::uint16_t k = 0; k < n; ++k) {
      const auto next = static_cast<std::uint16_t>((k + 1) % n);
      quad(static_cast<std::uint16_t>(base + k), static_cast<std::uint16_t>(base + next),
           static_cast<std::uint16_t>(base + n + next), static_cast<std::uint16_t>(base + n + k),
           part);
    }
  }
}

void Builder::disc(const Ring& ring, float facing, int segments, Part part) {
  const Vec3 normal = {facing, 0, 0};
  const std::uint16_t centre = add({ring.x, ring.y, ring.z}, normal);
  const auto first = static_cast<std::uint16_t>(centre + 1);
  for (int k = 0; k < segments; ++k) {
    float sine = 0;
    float cosine = 0;
    portable_sincos(2 * kPi * static_cast<float>(k) / static_cast<float>(segments), sine, cosine);
    add({ring.x, ring.y + ring.height * cosine, ring.z + ring.width * sine}, normal);
  }
  for (int k = 0; k < segments; ++k) {
    triangle(centre, static_cast<std::uint16_t>(first + k),
             static_cast<std::uint16_t>(first + (k + 1) % segments), part);
  }
}

void Builder::surface(std::span<const Section> sections, Part part) {
  // A symmetric profile: place along the chord, half thickness, and the normal's share of each.
  struct Point {
    float chord, thickness, forward, up;
  };
  constexpr std::array<Point, 5> kProfile = {{{0, 0, 1, 0.05F},
                                              {0.06F, 0.62F, 0.55F, 0.83F},
                                              {0.28F, 1, 0.02F, 1},
                                              {0.65F, 0.66F, -0.1F, 0.99F},
                                              {1, 0.04F, -0.14F, 0.99F}}};
  constexpr int kPoints = static_cast<int>(kProfile.size());
  for (const float side : {1.0F, -1.0F}) {
    const auto first = static_cast<int>(mesh_.vertices.size());
    for (const Section& section : sections) {
      for (const Point& point : kProfile) {
        const float out = side * point.thickness * section.half_thickness;
        const Vec3& edge = section.leading_edge;
        add({edge.x - point.chord * section.chord, edge.y + out * section.up_y,
             edge.z + out * section.up_z},
            normalised(
                {point.forward, side * point.up * section.up_y, side * point.up * section.up_z}));
      }
    }
    for (int i = 0; i + 1 < static_cast<int>(sections.size()); ++i) {
      for (int k = 0; k + 1 < kPoints; ++k) {
        const int a = first + i * kPoints + k;
        quad(static_cast<std::uint16_t>(a), static_cast<std::uint16_t>(a + 1),
             static_cast<std::uint16_t>(a + kPoints + 1), static_cast<std::uint16_t>(a + kPoints),
             part);
      }
    }
  }
}

void Builder::cylinder(Vec3 from, Vec3 to, float radius, int segments, Part side, Part ends) {
  const Vec3 axis = normalised(to - from);
  const Vec3 across =
      normalised(cross(axis, std::abs(axis.x) < 0.8F ? Vec3{1, 0, 0} : Vec3{0, 1, 0}));
  const Vec3 other = cross(axis, across);
  const auto first = static_cast<int>(mesh_.vertices.size());
  for (int k = 0; k < segments; ++k) {
    float sine = 0;
    float cosine = 0;
    portable_sincos(2 * kPi * static_cast<float>(k) / static_cast<float>(segments), sine, cosine);
    const Vec3 out = across * cosine + other * sine;
    add(from + out * radius, out);
    add(to + out * radius, out);
    add(from + out * radius, axis * -1);
    add(to + out * radius, axis);
  }
  const std::uint16_t from_centre = add(from, axis * -1);
  const std::uint16_t to_centre = add(to, axis);
  for (int k = 0; k < segments; ++k) {
    const int a = first + 4 * k;
    const int b = first + 4 * ((k + 1) % segments);
    const auto at = [](int i) { return static_cast<std::uint16_t>(i); };
    quad(at(a), at(a + 1), at(b + 1), at(b), side);
    triangle(from_centre, at(a + 2), at(b + 2), ends);
    triangle(to_centre, at(a + 3), at(b + 3), ends);
  }
}

void Builder::fuselage() {
  const auto& f = s_.fuselage;
  std::vector<Ring> rings;
  const auto ring = [&](float t) {
    const FuselageSection section = fuselage_section(s_, t);
    rings.push_back({0.5F - t, section.centre, 0, section.height, section.width});
  };
  // Denser where it curves.
  const int nose = 7 + 2 * detail_;
  for (int i = 0; i < nose; ++i) {
    const float u = static_cast<float>(i) / static_cast<float>(nose);
    ring(f.nose_length * u * u);
  }
  const int middle = f.hump > 0 ? 8 * detail_ : 3;
  for (int i = 0; i < middle; ++i) {
    const float u = static_cast<float>(i) / static_cast<float>(middle);
    ring(f.nose_length + (1 - f.tail_length - f.nose_length) * u);
  }
  const int tail = 5 + 2 * detail_;
  for (int i = 0; i <= tail; ++i) {
    const float u = static_cast<float>(i) / static_cast<float>(tail);
    ring(1 - f.tail_length * (1 - u));
  }
  tube(rings, 10 + 6 * detail_, Part::kFuselage);
  disc(rings.back(), -1, 10, Part::kExhaust);

  if (s_.type == AircraftType::kFighter) {
    std::vector<Ring> canopy;
    const int n = 6 + 2 * detail_;
    for (int i = 0; i <= n; ++i) {
      const float u = static_cast<float>(i) / static_cast<float>(n);
      const float t = 0.17F + 0.22F * u;
      const float bulge = 4 * u * (1 - u) * (1.15F - 0.3F * u);
      const FuselageSection section = fuselage_section(s_, t);
      const float h = (0.02F + 0.62F * bulge) * r_;
      canopy.push_back({0.5F - t, section.centre + section.height - 0.2F * r_, 0, h, h * 0.8F});
    }
    tube(canopy, 8 + 4 * detail_, Part::kGlass);
  }
}

void Builder::wings() {
  const auto& w = s_.wing;
  for (const float side : {1.0F, -1.0F}) {
    std::vector<Section> sections;
    const auto add_section = [&](float out, float chord, float relative_thickness) {
      sections.push_back({wing_edge(side * out), chord, 0.5F * relative_thickness * chord, 1, 0});
    };
    // A kink at a third of the span, with the trailing edge straight inboard, as on airliners.
    const float tip = w.chord * w.taper;
    const float kink = 0.36F * w.half_span;
    const bool swept = w.sweep > 0.2F && s_.type != AircraftType::kFighter;
    const float kink_chord = swept ? std::max(w.chord * 1.06F - w.sweep * kink * 0.75F, 1.3F * tip)
                                   : w.chord + (tip - w.chord) * 0.36F;
    const float thin = s_.type == AircraftType::kFighter ? 0.4F : 1;
    add_section(0, w.chord * (swept ? 1.12F : 1), 0.13F * thin);
    add_section(kink, kink_chord, 0.12F * thin);
    add_section(w.half_span, tip, 0.1F * thin);
    surface(sections, Part::kWing);
    if (w.winglet > 0) {
      const Vec3 edge = wing_edge(side * w.half_span);
      const std::array<Section, 2> winglet = {
          {{edge, tip, 0.04F * tip, 0.5F, -0.86F * side},
           {{edge.x - 0.9F * w.winglet, edge.y + w.winglet, edge.z + side * 0.3F * w.winglet},
            0.5F * tip,
            0.04F * tip,
            0.3F,
            -0.95F * side}}};
      surface(winglet, Part::kWinglet);
    }
  }
}

void Builder::tail() {
  const FinPlan fin = fin_plan(s_);
  const auto fin_section = [&](float share) {
    return Section{{fin.leading_edge(share), fin.root_y + fin.height * share, 0},
                   fin.chord(share),
                   0.05F * fin.chord(share),
                   0,
                   1};
  };
  const std::array<Section, 2> sections = {{fin_section(0), fin_section(1)}};
  surface(sections, Part::kFin);

  const auto& tail = s_.tail;
  const bool on_top = tail.stabiliser_place > 0.5F;
  const float t = s_.type == AircraftType::kFighter ? 0.82F : 0.865F;
  const FuselageSection body = fuselage_section(s_, t + 0.06F);
  const float chord = on_top ? 0.62F * fin.root_chord : 0.125F;
  const float x = on_top ? fin.leading_edge(0.96F) + 0.01F : 0.5F - t;
  const float y = on_top ? fin.root_y + fin.height * 0.97F : body.centre + 0.25F * body.height;
  const float sweep = s_.wing.sweep < 0.2F ? 0.12F : 0.62F;
  const float rise = on_top ? 0 : s_.type == AircraftType::kFighter ? -0.05F : 0.1F;
  for (const float side : {1.0F, -1.0F}) {
    const float out = tail.stabiliser;
    const std::array<Section, 2> half = {
        {{{x, y, 0}, chord, 0.05F * chord, 1, 0},
         {{x - sweep * out, y + rise * out, side * out}, 0.42F * chord, 0.02F * chord, 1, 0}}};
    surface(half, Part::kStabiliser);
  }
}

void Builder::jet_engine(float front_x, float y, float z, float radius, float length) {
  const int segments = 8 + 4 * detail_;
  const auto ring = [&](float along, float r) {
    return Ring{front_x - along * length, y, z, r * radius, r * radius};
  };
  const std::array<Ring, 6> cowl = {{ring(0, 0.8F), ring(0.04F, 0.93F), ring(0.2F, 1),
                                     ring(0.5F, 0.97F), ring(0.75F, 0.84F), ring(0.9F, 0.68F)}};
  tube(cowl, segments, Part::kNacelle);
  disc(ring(0.01F, 0.8F), 1, segments, Part::kIntake);
  const std::array<Ring, 3> core = {{ring(0.8F, 0.6F), ring(1, 0.48F), ring(1.16F, 0.12F)}};
  tube(core, segments, Part::kExhaust);
  clearance_ = std::min(clearance_, y - radius);
}

void Builder::propeller_engine(float front_x, float y, float z, float radius, float length) {
  const int segments = 8 + 4 * detail_;
  const auto ring = [&](float along, float r) {
    return Ring{front_x - along * length, y - 0.1F * along * radius, z, r * radius,
                r * radius * 0.85F};
  };
  const std::array<Ring, 6> cowl = {{ring(0, 0.5F), ring(0.08F, 0.78F), ring(0.3F, 1),
                                     ring(0.6F, 0.95F), ring(0.85F, 0.6F), ring(1.1F, 0.15F)}};
  tube(cowl, segments, Part::kNacelle);
  const std::array<Ring, 3> spinner = {
      {ring(-0.16F, 0.04F), ring(-0.1F, 0.32F), ring(0.01F, 0.48F)}};
  tube(spinner, segments, Part::kHub);
  Ring blades = ring(-0.05F, 1);
  blades.height = blades.width = 1.15F * r_;
  disc(blades, 1, segments + 6, Part::kPropeller);
  clearance_ = std::min(clearance_, y - 1.15F * r_);
}

void Builder::engines() {
  const auto& e = s_.engines;
  const float radius = e.radius * r_;
  switch (s_.type) {
    case AircraftType::kTwinJet:
    case AircraftType::kFourEngineJet:
    case AircraftType::kTriJet: {
      const int pairs = s_.type == AircraftType::kFourEngineJet ? 2 : 1;
      for (int pair = 0; pair < pairs; ++pair) {
        for (const float side : {1.0F, -1.0F}) {
          const float z = side * s_.wing.half_span * e.place * (pair == 0 ? 1 : 1.9F);
          const Vec3 edge = wing_edge(z);
          const float y = edge.y - 1.25F * radius;
          const float front = edge.x + 0.62F * e.length;
          jet_engine(front, y, z, radius, e.length);
          const std::array<Section, 2> pylon = {
              {{{front - 0.25F * e.length, y + 0.9F * radius, z}, e.length, 0.004F, 0, 1},
               {{edge.x + 0.02F * e.length, edge.y, z}, 0.9F * e.length, 0.004F, 0, 1}}};
          surface(pylon, Part::kWing);
        }
      }
      if (s_.type == AircraftType::kTriJet) {
        const FuselageSection body = fuselage_section(s_, 0.86F);
        jet_engine(0.5F - 0.8F, body.centre + body.height + 0.55F * radius, 0, 0.85F * radius,
                   0.19F);
      }
      break;
    }
    case AircraftType::kRearEngineJet:
    case AircraftType::kBusinessJet: {
      const FuselageSection body = fuselage_section(s_, e.place + 0.5F * e.length);
      const float y = body.centre + 0.35F * body.height;
      const float front = 0.5F - e.place;
      for (const float side : {1.0F, -1.0F}) {
        const float z = side * (body.width + 1.05F * radius);
        jet_engine(front, y, z, radius, e.length);
        const std::array<Section, 2> pylon = {
            {{{front - 0.25F * e.length, y, 0}, 0.6F * e.length, 0.006F, 1, 0},
             {{front - 0.25F * e.length, y, z}, 0.6F * e.length, 0.006F, 1, 0}}};
        surface(pylon, Part::kWing);
      }
      break;
    }
    case AircraftType::kPropeller:
      for (const float side : {1.0F, -1.0F}) {
        const float z = side * s_.wing.half_span * e.place;
        const Vec3 edge = wing_edge(z);
        propeller_engine(edge.x + 0.5F * e.length, edge.y - 0.15F * radius, z, radius, e.length);
      }
      break;
    case AircraftType::kFighter: {
      const FuselageSection body = fuselage_section(s_, 0.45F);
      for (const float side : {1.0F, -1.0F}) {
        const auto ring = [&](float t, float h, float w) {
          return Ring{0.5F - t, body.centre - 0.2F * r_, side * 0.85F * body.width, h * r_, w * r_};
        };
        const std::array<Ring, 4> duct = {{ring(0.36F, 0.62F, 0.42F), ring(0.4F, 0.7F, 0.46F),
                                           ring(0.65F, 0.7F, 0.45F), ring(0.95F, 0.4F, 0.3F)}};
        tube(duct, 8 + 4 * detail_, Part::kFuselage);
        disc(ring(0.361F, 0.55F, 0.36F), 1, 10, Part::kIntake);
      }
      break;
    }
  }
}

void Builder::leg(float x, float z, float top, float radius) {
  const float axle = mesh_.lowest + radius;
  cylinder({x, top, z}, {x, axle, z}, 0.22F * radius, 5, Part::kGear, Part::kGear);
  for (const float side : {1.0F, -1.0F}) {
    const Vec3 inner = {x, axle, z + side * 0.2F * radius};
    const Vec3 outer = {x, axle, z + side * 0.75F * radius};
    cylinder(inner, outer, radius, 8 + 2 * detail_, Part::kTyre, Part::kTyre);
    const Vec3 face = {x, axle, z + side * 0.8F * radius};
    cylinder(outer, face, 0.45F * radius, 8, Part::kHub, Part::kHub);
  }
}

void Builder::gear() {
  const bool fighter = s_.type == AircraftType::kFighter;
  const float wheel = fighter ? 0.024F : 0.2F * r_ + 0.006F;
  mesh_.lowest = std::min({clearance_ - 0.012F, -r_ - 0.05F});
  // The nose wheel, then the main legs just behind the middle of the wing.
  leg(0.5F - (fighter ? 0.27F : 0.85F * s_.fuselage.nose_length + 0.01F), 0, -0.5F * r_,
      0.85F * wheel);
  const float x = 0.5F - s_.wing.root - (fighter ? 0.26F : 0.72F * s_.wing.chord);
  const float track = fighter ? 0.06F : 0.85F * r_;
  const float tops = s_.wing.high ? -0.4F * r_ : wing_y();
  for (const float side : {1.0F, -1.0F}) {
    leg(x, side * track, tops, wheel);
    if (s_.type == AircraftType::kFourEngineJet) {
      leg(x - 2.3F * wheel, side * track * 0.8F, tops, wheel);
    }
  }
}

void Builder::build() {
  mesh_.vertices.clear();
  mesh_.triangles.clear();
  clearance_ = -r_;
  fuselage();
  wings();
  tail();
  engines();
  mesh_.lowest = clearance_;
  if (s_.gear_down) gear();
}

}  // namespace

void portable_sincos(float angle, float& sine, float& cosine) {
  // Reduced to an eighth of a turn around a multiple of a quarter, then Taylor's series in double.
  const double quarters = static_cast<double>(angle) * (2.0 / 3.14159265358979323846);
  const double nearest = std::floor(quarters + 0.5);
  const double x = (quarters - nearest) * (3.14159265358979323846 / 2.0);
  const double xx = x * x;
  const double s =
      x * (1 + xx * (-1.0 / 6 + xx * (1.0 / 120 + xx * (-1.0 / 5040 + xx * (1.0 / 362880)))));
  const double c = 1 + xx * (-1.0 / 2 + xx * (1.0 / 24 + xx * (-1.0 / 720 + xx * (1.0 / 40320))));
  const int quadrant = static_cast<int>(nearest) & 3;
  const double sines[4] = {s, c, -s, -c};
  sine = static_cast<float>(sines[quadrant]);
  cosine = static_cast<float>(sines[(quadrant + 1) & 3]);
}

FuselageSection fuselage_section(const AircraftScene& s, float t) {
  const auto& f = s.fuselage;
  const float r = fuselage_radius(s);
  FuselageSection section{0, r, r};
  const float tail_start = 1 - f.tail_length;
  if (t < f.nose_length) {
    const float left = 1 - std::max(t, 0.0F) / f.nose_length;  // 1 at the tip
    const float ellipse = std::sqrt(std::max(0.0F, 1 - left * left));
    const float parabola = 1 - left * left;
    const float shape = ellipse + (parabola - ellipse) * f.nose_sharpness;
    section.height = section.width = r * std::max(shape, 0.02F);
    section.centre = -r * f.nose_droop * left * left;
  } else if (t > tail_start) {
    const float u = std::min((t - tail_start) / f.tail_length, 1.0F);
    const bool nozzle = s.type == AircraftType::kFighter;
    const float end = nozzle ? 0.6F : 0.13F;
    section.height = r * (1 - (1 - end) * u * std::sqrt(u));
    section.width = r * (1 - (1 - (nozzle ? 0.6F : 0.08F)) * u * u);
    section.centre = f.upsweep * (r - section.height);
  }
  if (f.hump > 0) {
    // Only the top rises.
    const float rise = 0.5F * f.hump * r * smooth(0.02F, 0.11F, t) * (1 - smooth(0.26F, 0.38F, t));
    section.height += rise;
    section.centre += rise;
  }
  return section;
}

FinPlan fin_plan(const AircraftScene& s) {
  const bool fighter = s.type == AircraftType::kFighter;
  const float end = fighter ? 0.93F : 0.965F;
  FinPlan fin;
  fin.root_chord = s.tail.fin_chord;
  fin.tip_chord = s.tail.fin_chord * (s.tail.stabiliser_place > 0.5F ? 0.62F : 0.4F);
  fin.sweep = s.tail.fin_sweep;
  fin.root_x = 0.5F - end + fin.root_chord;
  const FuselageSection body = fuselage_section(s, end - 0.5F * fin.root_chord);
  fin.root_y = body.centre + 0.55F * body.height;
  fin.height = s.tail.fin_height + 0.45F * body.height;
  return fin;
}

void build_aircraft_mesh(const AircraftScene& scene, int detail, AircraftMesh& mesh) {
  Builder(scene, detail, mesh).build();
}

}  // namespace gp
