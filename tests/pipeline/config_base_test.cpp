// Configurations that build on others, and where their values come from.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/pipeline/config_fixture.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::ScopedVariable;
using testing::TemporaryFolder;

class ConfigBase : public ::testing::Test {
 protected:
  ConfigBase() : registry_(fake_registry()) { write("good.yaml", kGoodYaml); }

  fs::path write(const std::string& name, const std::string& yaml) {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    write_file(path, yaml);
    return path;
  }
  Config check(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
    return check_config(ConfigFile::read(write("derived.yaml", yaml), overrides), registry_);
  }
  /// The message, with the folder's path left out.
  std::string error_of(const std::string& yaml) {
    try {
      check(yaml);
    } catch (const ConfigError& error) {
      std::string text = error.what();
      const std::string folder = folder_.path().string() + "/";
      for (auto at = text.find(folder); at != std::string::npos; at = text.find(folder)) {
        text.erase(at, folder.size());
      }
      return text;
    }
    return "no error";
  }
  std::vector<std::string> addresses(const Config& config) {
    std::vector<std::string> result;
    for (const StageConfig& stage : config.stages) result.push_back(stage.address);
    return result;
  }

  TemporaryFolder folder_;
  StageRegistry registry_;
};

TEST_F(ConfigBase, TakesEverythingThatIsNotSaid) {
  const Config base = check_config(ConfigFile::read(folder_.path() / "good.yaml"), registry_);
  Config derived = check("base: good.yaml\n");
  EXPECT_EQ(derived.resolved_yaml(), base.resolved_yaml());
  EXPECT_EQ(derived.stages[4].mark.text(), (folder_.path() / "good.yaml").string() + ":9:11");
}

TEST_F(ConfigBase, MapsAreMergedAndNamesAdded) {
  const Config config = check(
      "base: good.yaml\nname: mine\nplugins: [augment_flip, augment_noise]\nrun: {threads: 3}\n");
  EXPECT_EQ(config.name, "mine");
  EXPECT_EQ(config.seed, 1U);
  EXPECT_EQ(config.plugins,
            (std::vector<std::string>{"augment_flip", "augment_affine", "augment_noise"}));
  EXPECT_EQ(config.run.threads, 3);
  EXPECT_EQ(config.run.max_in_flight, 512);
}

TEST_F(ConfigBase, StagesAreChangedInsertedAndRemovedByAddress) {
  const Config config = check(R"(base: good.yaml
stages:
  - {change: augment.flip, p: 0.25}
  - {remove: augment.flip.vertical}
  - {use: image.crop, name: second, after: image.crop, bottom: 1}
  - {use: image.crop, name: third, before: second}
  - {change: second, bottom: 2}
  - {change: evaluate.quality, held_out: {label: family}}
)");
  EXPECT_EQ(addresses(config),
            (std::vector<std::string>{"source.fgvc", "image.decode", "image.crop", "third",
                                      "second", "image.resize", "augment.flip", "augment.affine",
                                      "batch", "train.dcgan", "evaluate.quality"}));
  EXPECT_EQ(config.find_stage("augment.flip")->params.real("p"), 0.25);
  EXPECT_EQ(config.find_stage("second")->params.integer("bottom"), 2);
  EXPECT_EQ(config.find_stage("evaluate.quality")->params.overrides("held_out"),
            (std::map<std::string, std::string>{{"split", "test"}, {"label", "family"}}));
}

TEST_F(ConfigBase, AWholeListReplacesTheBases) {
  const Config config = check(
      "base: good.yaml\nstages: [{use: source.synthetic}, {use: batch}, {use: train.dcgan}]\n");
  EXPECT_EQ(addresses(config),
            (std::vector<std::string>{"source.synthetic", "batch", "train.dcgan"}));
  EXPECT_EQ(config.plugins.size(), 2U);
}

TEST_F(ConfigBase, PathsStartAtTheFileThatHoldsThem) {
  write("lib/low.yaml",
        "plugins: [./a.so]\nstages: [{use: source.fgvc, root: data}, {use: image.decode}, "
        "{use: image.resize, size: 8}, {use: batch}, {use: train.dcgan}]\n");
  write("lib/middle.yaml", "base: low.yaml\nplugins: [./b.so]\n");
  const Config config = check(
      "base: lib/middle.yaml\nplugins: [./a.so]\nstages: [{change: train.dcgan, epochs: 1}]\n");
  EXPECT_EQ(config.stages[0].params.text("root"), (folder_.path() / "lib/data").string());
  EXPECT_EQ(config.plugins,
            (std::vector<std::string>{folder_.path() / "lib/a.so", folder_.path() / "lib/b.so",
                                      folder_.path() / "a.so"}));
}

TEST_F(ConfigBase, SetComesLast) {
  const Config config = check("base: good.yaml\nstages: [{change: augment.flip, p: 0.25}]\n",
                              {"stages.augment.flip.p=0.75"});
  EXPECT_EQ(config.find_stage("augment.flip")->params.real("p"), 0.75);
}

TEST_F(ConfigBase, ErrorsNameTheFileThatIsWrong) {
  EXPECT_EQ(error_of("base: good.yaml\nstages: [{change: augment.flip, p: 2}]\nseed: -1\n"),
            "derived.yaml:2:36: stages[4] 'augment.flip': p = 2 is outside [0, 1]\n"
            "derived.yaml:3:7: seed is '-1'; expected a whole number from 0 to "
            "18446744073709551615\n2 errors");
  write("low.yaml",
        "seed: x\nstages: [{use: source.synthetic, count: 0}, {use: batch}, "
        "{use: train.dcgan}]\n");
  EXPECT_EQ(
      error_of("base: low.yaml\nname: \"-\"\nrun: 3\n"),
      "derived.yaml:2:7: name = '-' can't be part of a file name; use letters, digits, '_', "
      "'-' and '.', at most 100\n"
      "derived.yaml:3:6: run is '3'; expected a map such as {device: auto}\n"
      "low.yaml:1:7: seed is 'x', which is not a whole number; expected a whole number from 0 "
      "to 18446744073709551615\n"
      "low.yaml:2:41: stages[0] 'source.synthetic': count = 0 is outside [1, 10000000]\n4 errors");
}

TEST_F(ConfigBase, RefusesWhatIsNoBase) {
  EXPECT_EQ(error_of("base: god.yaml\n"),
            "derived.yaml:1:7: base = god.yaml (god.yaml): there is no such file; did you mean "
            "'good.yaml'?");
  EXPECT_EQ(error_of("base: .\n"),
            "derived.yaml:1:7: base = . (): this is a folder; expected a YAML file");
  EXPECT_EQ(error_of("base: [good.yaml]\n"),
            "derived.yaml:1:7: base is a list; expected a YAML file");
  EXPECT_EQ(error_of("base:\n"), "derived.yaml:2:1: base is nothing; expected a YAML file");
  write("broken.yaml", "stages: [\n");
  EXPECT_NE(error_of("base: broken.yaml\n").find("broken.yaml:"), std::string::npos);
}

TEST_F(ConfigBase, RefusesCircles) {
  EXPECT_EQ(error_of("base: derived.yaml\n"),
            "derived.yaml:1:7: base = derived.yaml leads back to itself: derived.yaml -> "
            "derived.yaml");
  write("a.yaml", "base: sub/b.yaml\n");
  write("sub/b.yaml", "# round\nbase: ../a.yaml\n");
  EXPECT_EQ(
      error_of("base: a.yaml\n"),
      "sub/b.yaml:2:7: base = ../a.yaml leads back to itself: a.yaml -> sub/b.yaml -> a.yaml");
  for (int i = 0; i < 20; ++i) {
    write("deep" + std::to_string(i) + ".yaml", "base: deep" + std::to_string(i + 1) + ".yaml\n");
  }
  EXPECT_EQ(error_of("base: deep0.yaml\n"),
            "deep14.yaml:1:7: base: more than 16 files build on each other");
}

TEST_F(ConfigBase, RefusesChangesThatMeanNothing) {
  const auto changed = [this](const std::string& change) {
    return error_of("base: good.yaml\nstages:\n  - " + change + "\n");
  };
  EXPECT_EQ(changed("{change: augment.flop, p: 1}"),
            "derived.yaml:3:14: change = 'augment.flop' is no stage of the base; did you mean "
            "'augment.flip'?");
  EXPECT_EQ(changed("{remove: image.decode, p: 1}"),
            "derived.yaml:3:28: 'remove' takes nothing else; found 'p'");
  EXPECT_EQ(changed("{use: image.crop, name: x, after: batch, before: batch}"),
            "derived.yaml:3:5: this has both 'after' and 'before'; expected one of change, remove, "
            "after, before");
  EXPECT_EQ(changed("{name: x, after: batch}"),
            "derived.yaml:3:5: a new stage has no 'use'; expected {use: NAME, after: batch}");
  EXPECT_EQ(changed("{remove: [batch]}"),
            "derived.yaml:3:14: remove is a list; expected the address of a stage");
  EXPECT_EQ(changed("{remove: image.decode}\n  - {use: image.crop}"),
            "derived.yaml:4:5: a list of changes says of each stage {change: ADDRESS}, {remove: "
            "ADDRESS}, or where a new one goes: {use: NAME, after: ADDRESS}");
  EXPECT_EQ(error_of("stages: [{change: augment.flip, p: 1}]\n"),
            "derived.yaml:1:10: stages[0] changes a stage, which only a file with a `base:` can");
}

TEST_F(ConfigBase, ChoicesOfOneOfAreReachedToo) {
  write("low.yaml", R"(stages:
  - {use: source.synthetic}
  - {use: augment.one_of, stages: [{use: augment.flip}, {use: image.crop, name: cut}]}
  - {use: batch}
  - {use: train.dcgan}
)");
  const Config config = check(R"(base: low.yaml
stages:
  - {change: augment.one_of.augment.flip, p: 0.25, weight: 3}
  - {remove: augment.one_of.cut}
  - {use: augment.affine, after: augment.one_of.augment.flip}
)",
                              {"stages.augment.one_of.augment.affine.rotate=4"});
  const StageConfig* one_of = config.find_stage("augment.one_of");
  ASSERT_EQ(one_of->choices.size(), 2U);
  EXPECT_EQ(one_of->choices[0].weight, 3);
  EXPECT_EQ(one_of->choices[0].params.real("p"), 0.25);
  EXPECT_EQ(config.find_stage("augment.one_of.augment.affine")->params.real("rotate"), 4);
}

// ---- Where values come from.

TEST_F(ConfigBase, ExplainNamesThePlaceOfEveryValue) {
  const std::string text =
      check("base: good.yaml\nstages: [{change: augment.flip, p: 0.25}]\n", {"run.threads=2"})
          .explain();
  const std::string folder = folder_.path().string() + "/";
  // The words of the row that begins with `what`.
  const auto row = [&text](const std::string& what) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string first, value, rest;
      words >> first >> value >> std::ws;
      std::getline(words, rest);
      if (first == what) return value + " | " + rest;
    }
    return std::string("no such row");
  };
  EXPECT_EQ(row("name"), "aircraft | " + folder + "good.yaml:1:7");
  EXPECT_EQ(row("seed"), "1 | " + folder + "good.yaml:2:7");
  EXPECT_EQ(row("plugins[1]"), "augment_affine | " + folder + "good.yaml:3:25");
  EXPECT_EQ(row("stages[4]"), "augment.flip | " + folder + "good.yaml:9:11");
  EXPECT_EQ(row("p"), "0.25 | " + folder + "derived.yaml:2:36");
  EXPECT_EQ(row("on_error"), "skip | default");
  EXPECT_EQ(row("held_out.split"), "test | " + folder + "good.yaml:16:88");
  EXPECT_EQ(row("threads"), "2 | --set run.threads=2");
}

// ---- Environment variables and the home folder in paths.

TEST_F(ConfigBase, PathsMayHoldVariablesAndTheHomeFolder) {
  const ScopedVariable data("GP_TEST_DATA", "/mnt/my data");
  const ScopedVariable home("HOME", "/home/ada");
  const auto root = [this](const std::string& text, const std::vector<std::string>& set = {}) {
    return check("base: good.yaml\nstages: [{change: source.fgvc, root: \"" + text + "\"}]\n", set)
        .stages[0]
        .params.text("root");
  };
  EXPECT_EQ(root("$GP_TEST_DATA/fgvc"), "/mnt/my data/fgvc");
  EXPECT_EQ(root("${GP_TEST_DATA}2"), "/mnt/my data2");
  EXPECT_EQ(root("a/$GP_TEST_DATA"), (folder_.path() / "a/mnt/my data").string());
  EXPECT_EQ(root("${GP_TEST_UNSET:-../x}"), (folder_.path().parent_path() / "x").string());
  EXPECT_EQ(root("${GP_TEST_UNSET:-~/x}"), "/home/ada/x");
  EXPECT_EQ(root("~"), "/home/ada");
  EXPECT_EQ(root("~/x"), "/home/ada/x");
  EXPECT_EQ(root("./~x"), (folder_.path() / "~x").string());
  EXPECT_EQ(root("/a$$b"), "/a$b");
  EXPECT_EQ(root("x", {"stages.source.fgvc.root=$GP_TEST_DATA"}), "/mnt/my data");
  EXPECT_EQ(root("x", {"stages.source.fgvc.root=~/y"}), "/home/ada/y");
  // A text that is no path is left alone.
  EXPECT_EQ(check("base: good.yaml\nstages: [{change: source.fgvc, label: $HOME}]\n")
                .stages[0]
                .params.text("label"),
            "$HOME");
}

TEST_F(ConfigBase, PathsWithADollarReadBackToTheSame) {
  const Config config = check(
      "base: good.yaml\nplugins: [/x$$/p.so]\nstages: [{change: source.fgvc, root: /a$$b}, "
      "{change: evaluate.quality, held_out: {root: /c$$}}]\n");
  EXPECT_EQ(config.find_stage("evaluate.quality")->params.overrides("held_out").at("root"), "/c$");
  const Config again = check(config.resolved_yaml());
  EXPECT_EQ(again.resolved_yaml(), config.resolved_yaml());
  EXPECT_EQ(again.stages[0].params.text("root"), "/a$b");
  EXPECT_EQ(again.plugins.back(), "/x$/p.so");
  // What evaluation overrides was expanded already.
  EXPECT_EQ(override_params(again.stages[0], {{"root", "/c$d"}}, "test").text("root"), "/c$d");
}

TEST_F(ConfigBase, RefusesVariablesThatAreNotThere) {
  const auto error = [this](const std::string& root) {
    return error_of("base: good.yaml\nstages:\n- change: source.fgvc\n  root: " + root + "\n");
  };
  const std::string where = "derived.yaml:4:9: stages[0] 'source.fgvc': root = ";
  EXPECT_EQ(error("$GP_TEST_UNSET/x"),
            where +
                "$GP_TEST_UNSET/x needs the environment variable GP_TEST_UNSET, which is not "
                "set; set it, or write ${GP_TEST_UNSET:-DEFAULT}");
  const std::string sign =
      " has a '$' that begins no $NAME, ${NAME} or ${NAME:-default}; write $$ "
      "for the sign itself";
  for (const char* path : {"a$", "$/x", "${", "${A", "${A:-x", "${}", "$1", "${A:+x}"}) {
    EXPECT_EQ(error("\"" + std::string(path) + "\""), where + path + sign);
  }
  EXPECT_EQ(error("~ada/x"), where +
                                 "~ada/x begins with another user's home; write it out (./~ for "
                                 "a file of that name)");
  const ScopedVariable home("HOME", nullptr);
  EXPECT_EQ(error("~/x"), where + "~/x needs HOME, which is not set");
  EXPECT_EQ(error_of("plugins: [$GP_TEST_UNSET/x.so]\n"),
            "derived.yaml:1:11: $GP_TEST_UNSET/x.so needs the environment variable "
            "GP_TEST_UNSET, which is not set; set it, or write ${GP_TEST_UNSET:-DEFAULT}");
}

}  // namespace
}  // namespace gp
