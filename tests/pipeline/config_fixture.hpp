#pragma once

#include "pipeline/config.hpp"

namespace gp {

/// Stages of every kind with parameters of every type; none can be created. Configuration never
/// creates one.
inline StageRegistry fake_registry() {
  StageRegistry registry;
  const auto add = [&](const char* name, Kind in, Kind out, ParamSchema params) {
    StageInfo info;
    info.name = name;
    info.doc = std::string("Fake ") + name;
    info.in = in;
    info.out = out;
    info.params = std::move(params);
    registry.add(std::move(info));
  };
  add("source.fgvc", Kind::kNothing, Kind::kBytes,
      ParamSchema()
          .path("root", "folder of the data set")
          .choice("split", "trainval", {"train", "val", "trainval", "test"}, "which list")
          .text("label", "variant", "name of the label")
          .integer("limit", 0, "read only so many", 0, 1e6)
          .maybe()
          .real_list("weights", {}, "of classes", 0)
          .flag("shuffle", true, "visit in random order"));
  add("source.synthetic", Kind::kNothing, Kind::kImage,
      ParamSchema().integer("count", 2048, "images an epoch", 1, 1e7));
  add("image.decode", Kind::kBytes, Kind::kImage, ParamSchema());
  add("image.crop", Kind::kImage, Kind::kImage,
      ParamSchema().integer("bottom", 0, "rows in pixels", 0, 65535));
  add("image.resize", Kind::kImage, Kind::kImage,
      ParamSchema()
          .integer("size", 128, "edge in pixels", 1, 4096)
          .required()
          .choice("fit", "squash", {"squash", "crop", "pad"}, "how the shape is met"));
  add_built_in_stages(registry);
  add("train.dcgan", Kind::kBatch, Kind::kSnapshot,
      ParamSchema()
          .integer("epochs", 200, "times through the data", 1, 1e6)
          .real("learning_rate", 2e-4, "of Adam", 0, 1)
          .real("beta1", 0.5, "of Adam", 0, 1));
  add("evaluate.quality", Kind::kSnapshot, Kind::kNothing,
      ParamSchema()
          .integer("every", 10, "epochs between two", 1)
          .path("weights", "safetensors file")
          .maybe()
          .overrides("reference", "of the source")
          .overrides("held_out", "of the source"));
  add("sink.shards", Kind::kImage, Kind::kNothing, ParamSchema().path("root", "folder to write"));
  registry.set_origin("libaugment.so");
  {
    StageInfo flip;
    flip.name = "augment.flip";
    flip.doc = "Mirrors the image left to right";
    flip.in = flip.out = Kind::kImage;
    flip.random = flip.geometric = true;
    flip.params.real("p", 0.5, "probability", 0, 1);
    registry.add(std::move(flip));
  }
  add("augment.affine", Kind::kImage, Kind::kImage,
      ParamSchema()
          .real("translate", 0.05, "share of the edge", 0, 1)
          .real("rotate", 10, "degrees", 0, 180));
  // Longer than `augment.flip`, so that addresses must be matched by the longest.
  add("augment.flip.vertical", Kind::kImage, Kind::kImage,
      ParamSchema().real("p", 0.5, "probability", 0, 1));
  return registry;
}

/// Uses most of the language; line and column numbers of tests count in it.
inline constexpr const char* kGoodYaml = R"(name: aircraft
seed: 1
plugins: [augment_flip, augment_affine]
stages:
  - {use: source.fgvc, root: ../data, split: trainval, max_rejects: 5}
  - {use: image.decode}
  - {use: image.crop, bottom: 20}
  - {use: image.resize, size: 128}
  - {use: augment.flip, p: 0.5}
  - {use: augment.flip.vertical, p: 0.25}
  - use: augment.affine
    translate: 0.05
    rotate: 1e1
  - {use: batch, size: 64}
  - {use: train.dcgan, epochs: 200, learning_rate: 2.0e-4, beta1: 0.5}
  - {use: evaluate.quality, every: 10, reference: {split: trainval}, held_out: {split: test}}
run: {device: auto, precision: auto, threads: auto, max_in_flight: 512, prefetch: 2}
)";

}  // namespace gp
