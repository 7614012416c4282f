#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/pipeline/config_fixture.hpp"

namespace gp {
namespace {

using Json = nlohmann::json;

TEST(Inspect, ListsEveryStageOnALine) {
  const StageRegistry registry = fake_registry();
  const std::string text = describe_stages(registry);
  EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')),
            registry.list().size());
  EXPECT_NE(
      text.find("augment.flip           image -> image     Mirrors the image left to right\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("source.fgvc            gives bytes        Fake source.fgvc\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("sink.shards            takes image        Fake sink.shards\n"),
            std::string::npos)
      << text;
}

TEST(Inspect, TellsAllAboutATransform) {
  EXPECT_EQ(describe_stage(*fake_registry().find("augment.flip")), R"(augment.flip
  Mirrors the image left to right

  kinds     image -> image
  origin    libaugment.so
  threads   any number of samples at once
  random    yes: reproducible from the seed; left out of evaluation
  geometry  one resampling together with its geometric neighbours

Parameters
  p  real in [0, 1], default 0.5
     probability

Example
  - {use: augment.flip, p: 0.5}
)");
}

TEST(Inspect, TellsAllAboutASource) {
  EXPECT_EQ(describe_stage(*fake_registry().find("source.fgvc")), R"(source.fgvc
  Fake source.fgvc

  kinds     gives bytes
  origin    built in
  random    no

Parameters
  root         path, required
               folder of the data set
  split        train | val | trainval | test, default trainval
               which list
  label        text, default variant
               name of the label
  limit        int in [0, 1000000], optional
               read only so many
  weights      list of real, each >= 0, default []
               of classes
  shuffle      bool, default true
               visit in random order

Parameters of every source
  on_error     stop | skip, default skip
               what a bad sample does: stop the run, or be left out and noted in rejects.jsonl
  max_rejects  text, default 10%
               bad samples an epoch before the run stops: a number, or a share of the source such as 10%

Example
  - {use: source.fgvc, root: path/to/root, split: trainval, label: variant, weights: []}
)");
}

TEST(Inspect, AStageWithoutParameters) {
  const std::string text = describe_stage(*fake_registry().find("image.decode"));
  EXPECT_NE(text.find("\nParameters\n  none\n\nExample\n  - {use: image.decode}\n"),
            std::string::npos)
      << text;
}

TEST(Inspect, JsonOfOneStage) {
  const StageRegistry registry = fake_registry();
  const Json json = Json::parse(describe_json(registry, registry.find("augment.flip")));
  EXPECT_EQ(json, Json::parse(R"({
    "name": "augment.flip",
    "doc": "Mirrors the image left to right",
    "origin": "libaugment.so",
    "in": "image",
    "out": "image",
    "random": true,
    "geometric": true,
    "concurrency": "unlimited",
    "params": [{
      "name": "p", "type": "real", "required": false, "default": 0.5, "min": 0.0, "max": 1.0,
      "choices": [], "doc": "probability", "common": false
    }],
    "example": "- {use: augment.flip, p: 0.5}"
  })"));
}

TEST(Inspect, JsonHoldsEveryType) {
  const StageRegistry registry = fake_registry();
  const Json all = Json::parse(describe_json(registry));
  ASSERT_EQ(all["stages"].size(), registry.list().size());
  std::map<std::string, Json> params;
  for (const Json& stage : all["stages"]) {
    for (const Json& param : stage["params"]) {
      params[stage["name"].get<std::string>() + ":" + param["name"].get<std::string>()] = param;
    }
  }
  EXPECT_EQ(params["source.fgvc:root"]["type"], "path");
  EXPECT_EQ(params["source.fgvc:root"]["required"], true);
  EXPECT_TRUE(params["source.fgvc:root"]["default"].is_null());
  EXPECT_EQ(params["source.fgvc:split"]["type"], "choice");
  EXPECT_EQ(params["source.fgvc:split"]["choices"], (Json{"train", "val", "trainval", "test"}));
  EXPECT_EQ(params["source.fgvc:label"]["type"], "text");
  EXPECT_EQ(params["source.fgvc:limit"]["type"], "int");
  EXPECT_EQ(params["source.fgvc:limit"]["required"], false);
  EXPECT_EQ(params["source.fgvc:limit"]["max"].dump(), "1000000");
  EXPECT_EQ(params["source.fgvc:weights"]["type"], "real_list");
  EXPECT_EQ(params["source.fgvc:weights"]["default"], Json::array());
  EXPECT_EQ(params["source.fgvc:shuffle"]["type"], "bool");
  EXPECT_EQ(params["source.fgvc:shuffle"]["default"], true);
  EXPECT_EQ(params["source.fgvc:shuffle"]["common"], false);
  EXPECT_EQ(params["source.fgvc:max_rejects"]["common"], true);
  EXPECT_EQ(params["evaluate.quality:held_out"]["type"], "overrides");
}

TEST(Inspect, JsonSurvivesBadText) {
  StageRegistry registry;
  StageInfo info;
  info.name = "augment.latin";
  info.doc = "caf\xe9";
  registry.add(std::move(info));
  EXPECT_EQ(Json::parse(describe_json(registry))["stages"][0]["doc"], "caf\xef\xbf\xbd");
}

/// What `inspect` shows as an example must be accepted by the checker.
TEST(Inspect, ExamplesAreValid) {
  const StageRegistry registry = fake_registry();
  const std::string source = "- use: source.synthetic\n", batch = "- use: batch\n",
                    train = "- use: train.dcgan\n", bytes = "- {use: source.fgvc, root: x}\n";
  for (const StageInfo* info : registry.list()) {
    const std::string text = describe_stage(*info);
    const std::string line = text.substr(text.rfind("- {use"));
    std::string stages;
    if (info->in == Kind::kNothing) {
      stages = line + (info->out == Kind::kBytes ? "- use: image.decode\n" : "") + batch + train;
    } else if (info->in == Kind::kBytes) {
      stages = bytes + line + batch + train;
    } else if (info->in == Kind::kBatch) {
      stages = source + batch + line;
    } else if (info->in == Kind::kSnapshot) {
      stages = source + batch + train + line;
    } else if (info->out == Kind::kNothing) {
      stages = source + line;
    } else {
      stages = source + line + (info->out == Kind::kBatch ? "" : batch) + train;
    }
    EXPECT_NO_THROW(check_config(ConfigFile::parse("stages:\n" + stages, "x.yaml"), registry))
        << stages;
  }
}

/// Required parameters of any type and range get a value that they accept.
TEST(Inspect, ExamplesOfRequiredParameters) {
  StageRegistry registry = fake_registry();
  StageInfo info;
  info.name = "image.strict";
  info.in = info.out = Kind::kImage;
  info.params.flag("a", true, "")
      .required()
      .integer("b", 7, "", 5, 9)
      .required()
      .real("c", -3, "", {}, -2)
      .required()
      .text("d", "", "")
      .required()
      .choice("e", "y", {"y", "z"}, "")
      .required()
      .real_list("f", {2}, "", 2, 3)
      .required()
      .overrides("g", "")
      .path("h", "");
  registry.add(std::move(info));
  const std::string text = describe_stage(*registry.find("image.strict"));
  EXPECT_NE(text.find("- {use: image.strict, a: true, b: 5, c: -2, d: text, e: \"y\", f: [2], h: "
                      "path/to/h}\n"),
            std::string::npos)
      << text;
  EXPECT_NO_THROW(check_config(
      ConfigFile::parse("stages:\n- use: source.synthetic\n" + text.substr(text.rfind("- {use")) +
                            "- use: batch\n- use: train.dcgan\n",
                        "x.yaml"),
      registry));
}

}  // namespace
}  // namespace gp
