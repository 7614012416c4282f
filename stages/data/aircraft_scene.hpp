#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gp {

/// A colour in linear light, 1 = white paper in full sun.
struct LinearRgb {
  float r = 0;
  float g = 0;
  float b = 0;
};

enum class AircraftType : std::int32_t {
  kTwinJet,
  kFourEngineJet,
  kTriJet,
  kRearEngineJet,
  kPropeller,
  kBusinessJet,
  kFighter
};
/// One name for each AircraftType, in order.
const std::vector<std::string>& aircraft_type_names();

/// Which part of the collection is drawn.
enum class AircraftViews {
  kAll,  ///< every type, on the ground and in the air, sometimes from three quarters
  kSide  ///< twin jets in flight from the side, with little in the sky: quick to learn
};

enum class Situation { kOnGround, kLow, kCruise };
enum class GroundKind { kNone, kRunway, kGrass, kSea, kFields };
enum class LiveryScheme { kWhite, kCheatline, kTailSweep, kTwoTone, kFullColour, kBareMetal };
enum class FinPattern { kPlain, kBands, kDisc, kDiagonal };

/// Everything that is random about one picture: plain numbers, so that they can be tested, and so
/// that drawing is a pure function of them.
///
/// Lengths are in fuselage lengths, angles in radians; t runs from 0 at the nose to 1 at the tail.
/// Picture coordinates run from 0 to 1, y downwards, so a scene has no resolution.
struct AircraftScene {
  AircraftType type = AircraftType::kTwinJet;
  Situation situation = Situation::kCruise;

  struct Pose {
    bool faces_left = false;
    float yaw = 0;        ///< > 0: nose away from the camera
    float pitch = 0;      ///< > 0: nose up
    float roll = 0;       ///< > 0: right wing down
    float elevation = 0;  ///< of the camera; > 0: seen from above
  } pose;

  struct Framing {
    float width = 0.85F;  ///< of the aircraft in the picture
    float centre_x = 0.5F;
    float centre_y = 0.5F;
  } framing;

  struct Fuselage {
    float slenderness = 7;  ///< length / height
    float nose_length = 0.13F;
    float nose_sharpness = 0.3F;  ///< 0: ellipse, 1: parabola
    float nose_droop = 0.2F;
    float tail_length = 0.35F;
    float upsweep = 0.8F;  ///< 1: the top line stays straight to the tail
    float hump = 0;        ///< height of an upper deck, in radii
  } fuselage;

  struct Wing {
    bool high = false;
    float root = 0.34F;  ///< t of the leading edge
    float chord = 0.19F;
    float half_span = 0.48F;
    float sweep = 0.5F;  ///< tangent
    float taper = 0.27F;
    float dihedral = 0.1F;  ///< tangent
    float winglet = 0;      ///< height
  } wing;

  struct Engines {
    float radius = 0.5F;  ///< in fuselage radii
    float length = 0.11F;
    float place = 0.34F;  ///< of the (inner) engine along the half span
  } engines;

  struct Tail {
    float fin_height = 0.17F;
    float fin_chord = 0.17F;
    float fin_sweep = 0.8F;      ///< tangent
    float stabiliser = 0.17F;    ///< half span
    float stabiliser_place = 0;  ///< 0: on the fuselage, 1: on top of the fin
  } tail;

  struct Livery {
    LiveryScheme scheme = LiveryScheme::kWhite;
    FinPattern fin = FinPattern::kPlain;
    LinearRgb base, accent, second, belly, engine, wing;
    float stripe_centre = 0.1F;  ///< in radii above the axis
    float stripe_width = 0.2F;
    float sweep_start = 0.7F;  ///< t where a tail colour begins at the axis
    float sweep_slope = 0.08F;
    float window_height = 0.2F;  ///< in radii above the axis
    int windows = 28;            ///< a side; 0: none
    float titles = 0;            ///< length of the airline's name, 0: none
    std::uint32_t titles_seed = 0;
    bool gloss = true;
  } livery;

  struct Sky {
    LinearRgb zenith, horizon, cloud;
    float cloud_cover = 0;
    float cloud_contrast = 0;
    float cloud_scale = 3;
    std::uint32_t cloud_seed = 0;
    float haze = 0;  ///< how much of the horizon's colour lies over the aircraft
  } sky;

  struct Ground {
    GroundKind kind = GroundKind::kNone;
    float horizon = 0.8F;  ///< on the ground: height over the wheels; in flight: y in the picture
    LinearRgb near, far, trees;
    float trees_height = 0.03F;
    bool hills = false;
    std::uint32_t seed = 0;
  } ground;

  struct Light {
    float azimuth = 0;    ///< of the sun; 0: behind the camera, > 0: to its right
    float elevation = 1;  ///< of the sun
    LinearRgb sun, sky, bounce;
  } light;

  bool gear_down = false;
};

/// The scene of one draw: a pure function of (seed, draw). Each group of factors has a random
/// stream of its own, so that they are independent and one can grow without moving the others.
AircraftScene sample_aircraft_scene(std::uint64_t seed, std::uint64_t draw,
                                    AircraftViews views = AircraftViews::kAll);

/// The type alone, without the rest of the scene.
AircraftType aircraft_type_of(std::uint64_t seed, std::uint64_t draw,
                              AircraftViews views = AircraftViews::kAll);

}  // namespace gp
