#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "stages/data/aircraft_scene.hpp"

namespace gp {

struct Vec3 {
  float x = 0;
  float y = 0;
  float z = 0;
};

inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator*(Vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(Vec3 a, Vec3 b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
inline Vec3 normalised(Vec3 a) {
  const float length = std::sqrt(dot(a, a));
  return length > 0 ? a * (1 / length) : Vec3{0, 1, 0};
}

/// Sine and cosine to about 1e-7 for |angle| <= 2 pi. The library's differ between platforms in the
/// last bit, which would show in a digest of the pixels.
void portable_sincos(float angle, float& sine, float& cosine);

enum class Part : std::uint8_t {
  kFuselage,
  kGlass,
  kWing,
  kWinglet,
  kFin,
  kStabiliser,
  kNacelle,
  kIntake,
  kExhaust,
  kPropeller,  ///< a turning disc: half transparent, seen from both sides
  kGear,
  kTyre,
  kHub
};

struct MeshVertex {
  Vec3 position;
  Vec3 normal;
};

/// Counter-clockwise seen from outside.
struct MeshTriangle {
  std::uint16_t a, b, c;
  Part part;
};

/// An aircraft as triangles. x points to the nose, y up, z to the right wing; the fuselage runs
/// from x = 0.5 to x = -0.5.
struct AircraftMesh {
  std::vector<MeshVertex> vertices;
  std::vector<MeshTriangle> triangles;
  float lowest = 0;  ///< y of the wheels where the gear is down
};

/// Half axes and centre of the fuselage's elliptic section at t.
struct FuselageSection {
  float centre = 0;
  float height = 0;
  float width = 0;
};
FuselageSection fuselage_section(const AircraftScene& scene, float t);

/// The fin as a trapezoid in the plane z = 0.
struct FinPlan {
  float root_y = 0;
  float height = 0;
  float root_x = 0;  ///< of the leading edge
  float root_chord = 0;
  float tip_chord = 0;
  float sweep = 0;

  float leading_edge(float share) const { return root_x - sweep * height * share; }
  float chord(float share) const { return root_chord + (tip_chord - root_chord) * share; }
};
FinPlan fin_plan(const AircraftScene& scene);

/// Fills `mesh` (memory is reused). `detail` scales the number of facets; 1 is enough for pictures
/// of up to about 100 pixels.
void build_aircraft_mesh(const AircraftScene& scene, int detail, AircraftMesh& mesh);

}  // namespace gp
