#include "pipeline/config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <source_location>
#include <string_view>

#include "pipeline/error.hpp"
#include "tests/pipeline/config_fixture.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Overrides = std::vector<std::string>;

const StageRegistry& registry() {
  static const StageRegistry kRegistry = fake_registry();
  return kRegistry;
}

Config check(const std::string& yaml, const Overrides& overrides = {},
             const fs::path& path = "configs/a.yaml") {
  return check_config(ConfigFile::parse(yaml, path, overrides), registry());
}

std::string error_of(const std::string& yaml, const Overrides& overrides = {}) {
  try {
    check(yaml, overrides);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

/// The good configuration with one piece replaced.
std::string good_but(const std::string& from, const std::string& to) {
  return replaced(kGoodYaml, from, to);
}

/// EXPECT_EQ of two texts. A function: hundreds of the macro take a compiler minutes.
void expect_text(const std::string& found, std::string_view expected,
                 std::source_location place = std::source_location::current()) {
  if (found == expected) return;
  ADD_FAILURE_AT(place.file_name(), static_cast<int>(place.line()))
      << "found:    " << found << "\nexpected: " << expected;
}

/// A short configuration whose list of stages is given.
std::string with_stages(const std::string& stages) { return "stages:\n" + stages; }

const StageConfig& stage(const Config& config, const std::string& address) {
  for (const StageConfig& s : config.stages) {
    if (s.address == address) return s;
  }
  throw std::runtime_error("no stage " + address);
}

// ---- What a good file becomes.

TEST(Config, ReadsAGoodFile) {
  const Config config = check(kGoodYaml);
  EXPECT_EQ(config.name, "aircraft");
  EXPECT_EQ(config.seed, 1U);
  EXPECT_EQ(config.plugins, (std::vector<std::string>{"augment_flip", "augment_affine"}));
  ASSERT_EQ(config.stages.size(), 10U);
  EXPECT_EQ(config.stages[0].use, "source.fgvc");
  EXPECT_EQ(config.stages[0].info, registry().find("source.fgvc"));
  EXPECT_EQ(config.stages[0].mark.text(), "configs/a.yaml:5:11");
  EXPECT_EQ(config.stages[0].params.text("split"), "trainval");
  EXPECT_TRUE(config.stages[0].params.flag("shuffle"));  // a default
  EXPECT_FALSE(config.stages[0].params.has("limit"));    // optional
  EXPECT_EQ(stage(config, "image.resize").params.integer("size"), 128);
  EXPECT_EQ(stage(config, "augment.affine").params.real("rotate"), 10);
  EXPECT_EQ(stage(config, "train.dcgan").params.real("learning_rate"), 2e-4);
  EXPECT_EQ(stage(config, "evaluate.quality").params.overrides("held_out").at("split"), "test");
  EXPECT_EQ(config.run.device, "auto");
  EXPECT_EQ(config.run.threads, 0);
  EXPECT_EQ(config.run.max_in_flight, 512);
  EXPECT_EQ(config.rejects.max_rejects, 5);
  EXPECT_FALSE(config.rejects.stop);
}

TEST(Config, DefaultsOfAShortFile) {
  const Config config =
      check(with_stages("- use: source.synthetic\n- use: batch\n- use: train.dcgan\n"), {},
            "configs/my run.yaml");
  EXPECT_EQ(config.name, "my_run");
  EXPECT_EQ(config.seed, 0U);
  EXPECT_TRUE(config.plugins.empty());
  EXPECT_EQ(config.run.prefetch, 2);
  EXPECT_FALSE(config.rejects.stop);
  EXPECT_EQ(config.rejects.max_rejects, -1);
  EXPECT_DOUBLE_EQ(config.rejects.max_reject_share, 0.1);
}

TEST(ConfigFile, NamesWhatMustBeLoaded) {
  const ConfigFile file = ConfigFile::parse(
      "plugins: [augment_flip, ./build/mine.so]\nmodules: [data]\nstages: [{use: a.b}, 3, {use: "
      "c}]",
      "/etc/gp/a.yaml");
  EXPECT_EQ(file.plugins(), (std::vector<std::string>{"augment_flip", "/etc/gp/build/mine.so"}));
  EXPECT_EQ(file.modules(), std::vector<std::string>{"data"});
  EXPECT_EQ(file.stage_names(), (std::vector<std::string>{"a.b", "c"}));
}

TEST(ConfigFile, PathsStartAtTheFile) {
  EXPECT_EQ(check(kGoodYaml, {}, "/etc/gp/a.yaml").stages[0].params.text("root"), "/etc/data");
  EXPECT_EQ(check(kGoodYaml).stages[0].params.text("root"), (fs::current_path() / "data").string());
  EXPECT_EQ(
      check(good_but("../data", "/mnt/data/"), {}, "/etc/a.yaml").stages[0].params.text("root"),
      "/mnt/data");
  EXPECT_EQ(check(good_but("../data", "/"), {}, "/etc/a.yaml").stages[0].params.text("root"), "/");
}

TEST(ConfigFile, ATextWithoutAFile) {
  const Config config = check(kGoodYaml, {}, "");
  EXPECT_EQ(config.stages[0].params.text("root"),
            (fs::current_path().parent_path() / "data").string());
}

TEST(ConfigFile, PathsOfSetStartAtTheWorkingDirectory) {
  const Config config =
      check(kGoodYaml, {"stages.source.fgvc.root=../shared/my data #1"}, "/etc/gp/a.yaml");
  EXPECT_EQ(config.stages[0].params.text("root"),
            (fs::current_path().parent_path() / "shared/my data #1").string());
}

TEST(ConfigFile, PathsInOverridesAreResolvedToo) {
  const Config config =
      check(good_but("held_out: {split: test}", "held_out: {root: other}"), {}, "/etc/gp/a.yaml");
  EXPECT_EQ(stage(config, "evaluate.quality").params.overrides("held_out").at("root"),
            "/etc/gp/other");
}

// ---- The form of errors.

TEST(ConfigError, SaysWhereAndWhat) {
  expect_text(error_of(good_but("p: 0.5", "p: 1.5")),
              "configs/a.yaml:9:28: stages[4] 'augment.flip': p = 1.5 is outside [0, 1]");
}

TEST(ConfigError, ShowsAllErrorsSortedByPlace) {
  std::string yaml = good_but("bottom: 20", "botom: 20");
  yaml = replaced(yaml, "p: 0.5", "p: -1");
  yaml = replaced(yaml, "seed: 1", "seed: -1");
  yaml = replaced(yaml, "device: auto", "device: tpu");
  expect_text(
      error_of(yaml, {"stages.batch.last=never", "stages.train.dcgan.epochs=0"}),
      "configs/a.yaml:2:7: seed is '-1'; expected a whole number from 0 to "
      "18446744073709551615\n"
      "configs/a.yaml:7:23: stages[2] 'image.crop': unknown parameter 'botom'; did you mean "
      "'bottom'?\n"
      "configs/a.yaml:9:28: stages[4] 'augment.flip': p = -1 is outside [0, 1]\n"
      "configs/a.yaml:17:15: run: device = tpu is not one of auto, cpu, cuda, cuda:N\n"
      "--set stages.batch.last=never: stages[7] 'batch': last = never is not one of drop, "
      "keep\n"
      "--set stages.train.dcgan.epochs=0: stages[8] 'train.dcgan': epochs = 0 is outside [1, "
      "1000000]\n"
      "6 errors");
}

// ---- YAML's traps.

TEST(ConfigYaml, RefusesWhatYamlCppTakesSilently) {
  expect_text(error_of("name: a\nseed: 1\nname: b\n"),
              "configs/a.yaml:3:1: the key 'name' is there twice; first in line 1");
  expect_text(error_of("x: &x {a: 1}\nrun:\n  <<: *x\n"),
              "configs/a.yaml:3:3: merge keys (<<) are not supported; write the keys out");
  expect_text(error_of("name: a\n---\nname: b\n"),
              "configs/a.yaml:2:1: a second document begins here; a configuration is one document: "
              "remove the '---', or mend the indentation");
  expect_text(
      error_of("name: !!str a\nseed: !mine 1"),
      "configs/a.yaml:1:7: the tag tag:yaml.org,2002:str has no meaning here; remove it "
      "(quotes make a value a text)\n"
      "configs/a.yaml:2:7: the tag !mine has no meaning here; remove it (quotes make a value "
      "a text)\n"
      "2 errors");
  expect_text(error_of("[a, b]: 1"),
              "configs/a.yaml:1:1: a list or map can't be a key; put quotes around a text");
  expect_text(error_of("run: {? {a: 1} : 2}"),
              "configs/a.yaml:1:9: a list or map can't be a key; put quotes around a text");
  expect_text(error_of("name: a\n~: 1"), "configs/a.yaml:2:1: this key has no name");
}

TEST(ConfigYaml, NumbersAreOurs) {
  const auto p = [](const std::string& text) { return error_of(good_but("p: 0.5", "p: " + text)); };
  const std::string where = "configs/a.yaml:9:28: stages[4] 'augment.flip': p";
  for (const char* good : {"0", "1", "0.5", ".5", "1.", "5e-1", "+0.5", "1E-3", "0.0", "-0"}) {
    expect_text(p(good), "no error");
  }
  expect_text(p("010"),
              where + " = 010 has a leading zero, which some readers take for octal; write 10");
  expect_text(p("00.5"),
              where + " = 00.5 has a leading zero, which some readers take for octal; write 0.5");
  expect_text(p("0x1"), where + " = 0x1 is not a decimal number; write it with digits 0 to 9");
  expect_text(p(".nan"), where + " = .nan is not a finite number");
  expect_text(p("-.inf"), where + " = -.inf is not a finite number");
  expect_text(p("inf"), where + " = inf is not a finite number");
  expect_text(p("1e999"), where + " = 1e999 does not fit into a double");
  expect_text(p("50%"), where + " = 50% is not a number; write 0.5");
  expect_text(p("'0,5'"), where + " = \"0,5\" is a text, because of its quotes; expected a number");
  expect_text(p("\"0.5\""), where + " = \"0.5\" is a text, because of its quotes; write 0.5");
  expect_text(p("half"), where + " = half is not a number");
  expect_text(p("true"), where + " = true is not a number");
  expect_text(p("1:30"), where + " = 1:30 is not a number");
  expect_text(p("[0.5]"), where + " is a list; expected a number");
  expect_text(p("{a: 1}"), where + " is a map; expected a number");
  expect_text(p(""), where + " has no value; expected a number");
  expect_text(error_of(good_but("translate: 0.05", "translate: 0,05")),
              "configs/a.yaml:12:16: stages[6] 'augment.affine': translate = 0,05 is not a number; "
              "write 0.05");
}

TEST(ConfigYaml, WholeNumbersAreWrittenAsSuch) {
  const auto size = [](const std::string& text) {
    return error_of(good_but("size: 128", "size: " + text));
  };
  const std::string where = "configs/a.yaml:8:31: stages[3] 'image.resize': size = ";
  expect_text(size("+64"), "no error");
  expect_text(size("64.0"), where + "64.0 is not written as a whole number; write 64");
  expect_text(size("1e3"), where + "1e3 is not written as a whole number; write 1000");
  expect_text(size("64.5"), where + "64.5 is not a whole number");
  expect_text(size("1_000"), where + "1_000 has grouped digits; write 1000");
  expect_text(size("0o17"), where + "0o17 is not a decimal number; write it with digits 0 to 9");
  expect_text(size("0128"),
              where + "0128 has a leading zero, which some readers take for octal; write 128");
  expect_text(size("99999999999999999999"),
              where + "99999999999999999999 does not fit into 64 bits");
  expect_text(size("0"), where + "0 is outside [1, 4096]");
  expect_text(size("'128'"), where + "\"128\" is a text, because of its quotes; write 128");
}

TEST(ConfigYaml, BoolsAreTrueAndFalse) {
  const auto shuffle = [](const std::string& text) {
    return error_of(good_but("max_rejects: 5", "shuffle: " + text));
  };
  const std::string where = "configs/a.yaml:5:65: stages[0] 'source.fgvc': shuffle = ";
  expect_text(shuffle("false"), "no error");
  expect_text(shuffle("yes"), where + "yes is not true or false; write true");
  expect_text(shuffle("Off"), where + "Off is not true or false; write false");
  expect_text(shuffle("True"), where + "True is not true or false; write true");
  expect_text(shuffle("maybe"), where + "maybe is not true or false");
  expect_text(shuffle("'true'"), where + "\"true\" is a text, because of its quotes; write true");
}

TEST(ConfigYaml, TextsAreTakenAsTheyStand) {
  const auto label = [](const std::string& yaml) {
    return check(good_but("max_rejects: 5", "label: " + yaml)).stages[0].params.text("label");
  };
  expect_text(label("family"), "family");
  expect_text(label("010"), "010");
  expect_text(label("yes"), "yes");
  expect_text(label("0.50"), "0.50");
  expect_text(label("'null'"), "null");
  expect_text(label("\"\""), "");
  expect_text(error_of(good_but("max_rejects: 5", "label: ")),
              "configs/a.yaml:5:63: stages[0] 'source.fgvc': label has no value; write \"\" for an "
              "empty text");
  expect_text(error_of(good_but("max_rejects: 5", "label: ~")),
              "configs/a.yaml:5:63: stages[0] 'source.fgvc': label has no value; write \"\" for an "
              "empty text");
}

TEST(ConfigYaml, Lists) {
  const auto weights = [](const std::string& yaml) {
    return good_but("max_rejects: 5", "weights: " + yaml);
  };
  EXPECT_EQ(check(weights("[1, 0.5]")).stages[0].params.real_list("weights"),
            (std::vector<double>{1, 0.5}));
  EXPECT_TRUE(check(weights("[]")).stages[0].params.real_list("weights").empty());
  expect_text(error_of(weights("3")),
              "configs/a.yaml:5:65: stages[0] 'source.fgvc': weights is '3'; expected a list of "
              "numbers, such as [0.5, 1]");
  expect_text(error_of(weights("[1, -2, x]")),
              "configs/a.yaml:5:69: stages[0] 'source.fgvc': weights[1] = -2 is less than 0, the "
              "smallest that is allowed\n"
              "configs/a.yaml:5:73: stages[0] 'source.fgvc': weights[2] = x is not a number\n"
              "2 errors");
}

TEST(ConfigYaml, Aliases) {
  const std::string aliased = with_stages(
      "- {use: source.synthetic}\n- {use: augment.flip, name: a, p: &p 0.25}\n"
      "- {use: augment.flip, name: b, p: *p}\n- {use: batch}\n- {use: train.dcgan}\n");
  EXPECT_EQ(stage(check(aliased), "b").params.real("p"), 0.25);
  expect_text(error_of("run: *nowhere"),
              "configs/a.yaml:1:6: not valid YAML: this alias names no "
              "anchor");
  expect_text(error_of("run: &x [*x]"),
              "configs/a.yaml:1:10: this alias stands inside the value that it names");

  // Each line doubles the one before: 2^40 values when expanded.
  std::string bomb = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) {
    const std::string n = std::to_string(i), before = std::to_string(i - 1);
    bomb += "a" + n + ": &a" + n + " [*a" + before + ", *a" + before + "]\n";
  }
  EXPECT_NE(error_of(bomb).find("more than 20000 values, aliases expanded"), std::string::npos);
}

TEST(ConfigYaml, RefusesWhatIsNoConfiguration) {
  expect_text(error_of(""), "configs/a.yaml:1:1: there is nothing in it; expected a configuration");
  expect_text(error_of("# only a comment\n"),
              "configs/a.yaml:1:1: there is nothing in it; expected a configuration");
  const std::string top = "expected a map of name, seed, plugins, stages, run at the top; found ";
  expect_text(error_of("- a\n- b\n"), "configs/a.yaml:1:1: " + top + "a list");
  expect_text(error_of("\n hello"), "configs/a.yaml:2:2: " + top + "'hello'");
  expect_text(error_of("---\n"), "configs/a.yaml:2:1: " + top + "nothing");
  expect_text(
      error_of(std::string("name: a\0b", 9)),
      "configs/a.yaml:1:8: the byte 0x00 is a control character; a configuration is YAML text "
      "in UTF-8");
  expect_text(
      error_of("name: a\nx: \xff\xd8\xff"),
      "configs/a.yaml:2:4: the byte 0xff is not valid UTF-8; a configuration is YAML text in "
      "UTF-8");
  expect_text(error_of(std::string((1 << 20) + 1, ' ')),
              "configs/a.yaml:1:1: larger than 1 MiB; that is no configuration");
  expect_text(error_of("x: " + std::string(100000, '[')),
              "configs/a.yaml:1:20: lists and maps are nested deeper than 32 levels");
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += std::string(i, ' ') + "a:\n";
  expect_text(error_of(deep),
              "configs/a.yaml:33:33: lists and maps are nested deeper than 32 levels");
}

TEST(ConfigYaml, SyntaxErrorsHaveAPlaceAndPlainWords) {
  const std::string bad = ": not valid YAML: ";
  expect_text(error_of("name: [a, b\nseed: 1\n"),
              "configs/a.yaml:2:5" + bad + "expected ',' or ']' in a [...] list");
  expect_text(error_of("run: {p: 1 q: 2}\n"),
              "configs/a.yaml:1:13" + bad + "expected ',' or '}' in a {...} map");
  expect_text(error_of("run: [a"),
              "configs/a.yaml:2:1" + bad + "expected ',' or ']' in a [...] list");
  expect_text(
      error_of("name: a: b\n"),
      "configs/a.yaml:1:8" + bad +
          "a ':' where none can stand; check the indentation, and put texts that hold ': ' in "
          "quotes");
  expect_text(
      error_of("name: %a\n"),
      "configs/a.yaml:1:7" + bad + "a text can't begin with this character; put it in quotes");
  expect_text(
      error_of("stages:\n  - x\n y: 3\n"),
      "configs/a.yaml:3:2" + bad + "this does not fit the map above; check indentation and ':'");
  expect_text(
      error_of("run:\n\tdevice: cpu\n"),
      "configs/a.yaml:2:8" + bad +
          "a ':' where none can stand; check the indentation, and put texts that hold ': ' in "
          "quotes; line 2 is indented with a tab, where YAML allows only spaces");
  expect_text(
      error_of("run:\n  device: cpu\n\tthreads: 1\n"),
      "configs/a.yaml:3:1" + bad +
          "a tab in the indentation; YAML allows only spaces; line 3 is indented with a tab, "
          "where YAML allows only spaces");
}

TEST(ConfigYaml, OpenQuotesDoNotSwallowTheRest) {
  // yaml-cpp 0.7 takes a quote that is open at the end of the file for closed.
  const std::string bad = ": not valid YAML: a quoted text is not closed before the end";
  expect_text(error_of("name: 'a\n"),
              "configs/a.yaml:2:2" + bad + "; line 1 has an odd number of ' quotes");
  expect_text(error_of("seed: 1\nname: \"a # not a comment\nrun: {device: cpu}\n"),
              "configs/a.yaml:4:2" + bad + "; line 2 has an odd number of \" quotes");
  expect_text(error_of("name: 'a"),
              "configs/a.yaml:2:2" + bad + "; line 1 has an odd number of ' quotes");
  expect_text(error_of("name: 'a'  "), error_of("name: a\n"));
  expect_text(error_of("name: |\n  a\n"), error_of("name: \"a\\n\"\n"));
}

TEST(ConfigYaml, NothingAfterTheDocumentIsLost) {
  expect_text(error_of("- a\nname: b\n"),
              "configs/a.yaml:2:1: a second document begins here; a configuration is one document: "
              "remove the '---', or mend the indentation");
  expect_text(error_of("name: a\n...\nname: b\n").substr(0, 44),
              "configs/a.yaml:3:1: a second document begins");
  expect_text(error_of("%YAML 1.2\n---\nname: a\n...\n# the end\n"), error_of("\n\nname: a\n"));
}

TEST(ConfigYaml, ByteOrderMarkAndDosLineEnds) {
  std::string yaml = "\xef\xbb\xbf";
  for (const char c : std::string(kGoodYaml))
    yaml += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(check(yaml).resolved_yaml(), check(kGoodYaml).resolved_yaml());
  expect_text(error_of(replaced(yaml, "p: 0.5", "p: 1.5")),
              "configs/a.yaml:9:28: stages[4] 'augment.flip': p = 1.5 is outside [0, 1]");
}

TEST(ConfigFile, ReadsFromDisk) {
  const fs::path folder = fs::path(testing::TempDir()) / "config_test";
  fs::create_directories(folder);
  const fs::path path = folder / "aircraft.yaml";
  std::ofstream(path) << kGoodYaml;
  const Config config = check_config(ConfigFile::read(path, {"seed=7"}), registry());
  EXPECT_EQ(config.seed, 7U);
  EXPECT_EQ(config.path, path);
  const auto read_error = [](const fs::path& file) -> std::string {
    try {
      ConfigFile::read(file);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  expect_text(read_error(folder / "aircarft.yaml"),
              (folder / "aircarft.yaml").string() +
                  ": there is no such file; did you mean 'aircraft.yaml'?");
  expect_text(read_error(folder), folder.string() + ": this is a folder; expected a YAML file");
  expect_text(read_error("/dev/zero"),
              "/dev/zero:1:1: larger than 1 MiB; that is no configuration");
  expect_text(read_error(""), ": there is no such file");
  fs::remove_all(folder);
}

// ---- --set.

TEST(ConfigSet, OverridesAnyValue) {
  const Config config =
      check(kGoodYaml,
            {"stages.augment.flip.p=0.3", "stages.augment.flip.vertical.p=0.75",
             "stages.train.dcgan.epochs=3", "stages.source.fgvc.shuffle=false",
             "stages.source.fgvc.weights=[1, 2]", "stages.evaluate.quality.reference.split=val",
             "stages.evaluate.quality.held_out={split: train}", "run.device=cpu", "run.threads=2",
             "name=other", "seed=18446744073709551615", "seed=5", "plugins=[x]",
             "stages.source.fgvc.label=\"\""});
  EXPECT_EQ(stage(config, "augment.flip").params.real("p"), 0.3);
  EXPECT_EQ(stage(config, "augment.flip.vertical").params.real("p"), 0.75);
  EXPECT_EQ(stage(config, "train.dcgan").params.integer("epochs"), 3);
  EXPECT_FALSE(config.stages[0].params.flag("shuffle"));
  EXPECT_EQ(config.stages[0].params.real_list("weights"), (std::vector<double>{1, 2}));
  EXPECT_EQ(config.stages[0].params.text("label"), "");
  const Params& quality = stage(config, "evaluate.quality").params;
  EXPECT_EQ(quality.overrides("reference"), (std::map<std::string, std::string>{{"split", "val"}}));
  EXPECT_EQ(quality.overrides("held_out").at("split"), "train");
  EXPECT_EQ(config.run.device, "cpu");
  EXPECT_EQ(config.run.threads, 2);
  EXPECT_EQ(config.name, "other");
  EXPECT_EQ(config.seed, 5U);
  EXPECT_EQ(config.plugins, std::vector<std::string>{"x"});
}

TEST(ConfigSet, MakesWhatTheFileLeavesOut) {
  const std::string yaml = with_stages(
      "- use: source.fgvc\n  root: x\n- use: image.decode\n- use: batch\n- use: train.dcgan\n"
      "- use: evaluate.quality\n");
  const Config config =
      check(yaml, {"run.prefetch=1", "stages.evaluate.quality.held_out.split=test"});
  EXPECT_EQ(config.run.prefetch, 1);
  EXPECT_EQ(stage(config, "evaluate.quality").params.overrides("held_out").at("split"), "test");
}

TEST(ConfigSet, SwapsAStage) {
  const Config config = check(with_stages("- {use: source.fgvc, name: data}\n- use: image.decode\n"
                                          "- use: batch\n- use: train.dcgan\n"),
                              {"stages.data.root=/x", "stages.train.dcgan.beta1=0.9"});
  EXPECT_EQ(config.stages[0].params.text("root"), "/x");
}

TEST(ConfigSet, ErrorsNameTheOverride) {
  const auto set = [](const std::string& text) { return error_of(kGoodYaml, {text}); };
  expect_text(
      set("stages.augment.flip.p=1.5"),
      "--set stages.augment.flip.p=1.5: stages[4] 'augment.flip': p = 1.5 is outside [0, 1]");
  expect_text(
      set("stages.augment.flip.q=1"),
      "--set stages.augment.flip.q=1: stages[4] 'augment.flip': unknown parameter 'q'; it takes p");
  expect_text(set("stages.augment.flop.p=1"),
              "--set stages.augment.flop.p=1: no stage of the file is called so; did you mean "
              "'augment.flip'?");
  expect_text(
      set("stages.zzz.p=1"),
      "--set stages.zzz.p=1: no stage of the file is called so; the stages are source.fgvc, "
      "image.decode, image.crop, image.resize, augment.flip, augment.flip.vertical, "
      "augment.affine, batch, train.dcgan, evaluate.quality");
  expect_text(set("augment.flip.p=1"),
              "--set augment.flip.p=1: there is no 'augment' in a "
              "configuration; did you mean 'stages.augment.flip.p'?");
  expect_text(set("sead=1"),
              "--set sead=1: there is no 'sead' in a configuration; did you mean 'seed'?");
  expect_text(set("colour=1"),
              "--set colour=1: there is no 'colour' in a configuration; expected one "
              "of name, seed, plugins, modules, stages, run");
  expect_text(set("stages.augment.flip=1"),
              "--set stages.augment.flip=1: this is a stage; expected "
              "stages.augment.flip.PARAMETER=VALUE");
  expect_text(set("stages.augment.flip.p.x=1"),
              "--set stages.augment.flip.p.x=1: there is no 'x' in 'p': that is '0.5'");
  expect_text(set("stages=[]"),
              "--set stages=[]: the list of stages is changed in the file; a --set "
              "changes one value: stages.ADDRESS.PARAMETER=VALUE");
  expect_text(set("seed"), "--set seed: expected KEY=VALUE, such as stages.augment.flip.p=0.3");
  expect_text(set("=1"), "--set =1: expected KEY=VALUE, such as stages.augment.flip.p=0.3");
  expect_text(set("run..device=cpu"),
              "--set run..device=cpu: the address 'run..device' has an empty part");
  expect_text(set("run.devise=cpu"),
              "--set run.devise=cpu: run: unknown key 'devise'; did you mean 'device'?");
  expect_text(set("seed="),
              "--set seed=: seed is nothing; expected a whole number from 0 to "
              "18446744073709551615");
  expect_text(
      set("stages.source.fgvc.weights=[1"),
      "--set stages.source.fgvc.weights=[1: not valid YAML: expected ',' or ']' in a [...] list");
}

TEST(ConfigSet, AmbiguousAddress) {
  const std::string yaml = with_stages(
      "- use: source.synthetic\n- {use: image.resize, size: 64}\n- {use: image.resize, size: 32}\n"
      "- use: batch\n- use: train.dcgan\n");
  expect_text(
      error_of(yaml, {"stages.image.resize.size=16"}),
      "--set stages.image.resize.size=16: 'image.resize' is there more than once; give those "
      "stages a `name:` each and use that");
  expect_text(error_of(yaml),
              "configs/a.yaml:4:9: stages[2] 'image.resize': the address "
              "'image.resize' is that of stages[1] too; give one of them a `name:` of "
              "its own");
  const Config config = check(replaced(yaml, "size: 32", "size: 32, name: small"),
                              {"stages.image.resize.size=48", "stages.small.size=16"});
  EXPECT_EQ(stage(config, "image.resize").params.integer("size"), 48);
  EXPECT_EQ(stage(config, "small").params.integer("size"), 16);
  EXPECT_EQ(stage(config, "small").use, "image.resize");
}

// ---- Keys, names, parameters.

TEST(ConfigCheck, UnknownKeys) {
  expect_text(error_of(good_but("seed: 1", "sed: 1")),
              "configs/a.yaml:2:1: unknown key 'sed'; did you mean 'seed'?");
  expect_text(error_of(good_but("seed: 1", "device: cpu")),
              "configs/a.yaml:2:1: unknown key 'device'; it belongs below `run:`");
  expect_text(
      error_of(good_but("seed: 1", "colour: 1")),
      "configs/a.yaml:2:1: unknown key 'colour'; expected base, name, seed, plugins, modules, "
      "stages, run");
  expect_text(
      error_of(good_but("translate:", "translation:")),
      "configs/a.yaml:12:5: stages[6] 'augment.affine': unknown parameter 'translation'; did "
      "you mean 'translate'?");
  expect_text(
      error_of(good_but("use: image.decode", "use: image.decode, x: 1")),
      "configs/a.yaml:6:25: stages[1] 'image.decode': unknown parameter 'x'; it takes none");
}

TEST(ConfigCheck, UnknownStages) {
  const auto use = [](const std::string& name) {
    return error_of(good_but("use: augment.flip,", "use: " + name + ","));
  };
  expect_text(use("image.resise"),
              "configs/a.yaml:9:11: stages[4]: unknown stage 'image.resise'; did you mean "
              "'image.resize'?");
  expect_text(
      use("augment.cutout"),
      "configs/a.yaml:9:11: stages[4]: unknown stage 'augment.cutout'; is its plugin missing "
      "from `plugins:`?");
  expect_text(use("augment.flap"),
              "configs/a.yaml:9:11: stages[4]: unknown stage 'augment.flap'; did you mean "
              "'augment.flip'? Or is its plugin missing from `plugins:`?");
  expect_text(use("flip"),
              "configs/a.yaml:9:11: stages[4]: unknown stage 'flip'; did you mean "
              "'augment.flip'?");
  expect_text(
      use("image.xyzxyzxyz"),
      "configs/a.yaml:9:11: stages[4]: unknown stage 'image.xyzxyzxyz'; there are image.crop, "
      "image.decode, image.resize");
  expect_text(use("nonsense"),
              "configs/a.yaml:9:11: stages[4]: unknown stage 'nonsense'; "
              "`gan-pipeline inspect` lists all stages");
}

TEST(ConfigCheck, MalformedStages) {
  expect_text(
      error_of("name: a\n"),
      "configs/a.yaml:1:1: 'stages' is missing; expected a list that begins with a source.* "
      "and ends in a train.* or sink.* stage");
  expect_text(error_of("stages: []\n"),
              "configs/a.yaml:1:9: stages is an empty list; expected a list "
              "of stages, such as '- {use: image.decode}'");
  expect_text(error_of("stages: {a: 1}\n"),
              "configs/a.yaml:1:9: stages is a map; expected a list of "
              "stages, such as '- {use: image.decode}'");
  expect_text(
      error_of(good_but("- {use: image.decode}", "- image.decode")),
      "configs/a.yaml:6:5: stages[1] is 'image.decode'; expected a map: {use: image.decode}");
  expect_text(error_of(good_but("{use: image.decode}", "{us: image.decode}")),
              "configs/a.yaml:6:5: stages[1] has no 'use'; expected {use: NAME, ...}");
  expect_text(error_of(good_but("use: image.decode", "use: [image.decode]")),
              "configs/a.yaml:6:11: stages[1]: use is a list; expected a stage's name");
}

TEST(ConfigCheck, MissingParameters) {
  expect_text(
      error_of(good_but("root: ../data, ", "")),
      "configs/a.yaml:5:11: stages[0] 'source.fgvc': the parameter 'root' is missing (folder "
      "of the data set)");
  expect_text(
      error_of(good_but(", size: 128", "")),
      "configs/a.yaml:8:11: stages[3] 'image.resize': the parameter 'size' is missing (edge "
      "in pixels)");
}

TEST(ConfigCheck, ChoicesAreListed) {
  expect_text(
      error_of(good_but("split: trainval, max", "split: trainvall, max")),
      "configs/a.yaml:5:46: stages[0] 'source.fgvc': split = trainvall is not one of train, "
      "val, trainval, test; did you mean 'trainval'?");
}

TEST(ConfigCheck, Names) {
  expect_text(error_of(good_but("name: aircraft", "name: a/b")),
              "configs/a.yaml:1:7: name = 'a/b' can't be part of a file name; use letters, digits, "
              "'_', '-' and '.', at most 100");
  expect_text(error_of(good_but("name: aircraft", "name: ..")).substr(0, 31),
              "configs/a.yaml:1:7: name = '..'");
  expect_text(error_of(good_but("name: aircraft", "name: [a]")),
              "configs/a.yaml:1:7: name is a list; expected a text");
  expect_text(
      error_of(good_but("use: image.crop,", "use: image.crop, name: a b,")),
      "configs/a.yaml:7:29: stages[2] 'a b': name = 'a b' can't be an address; use letters, "
      "digits, '_', '-' and '.'");
}

TEST(ConfigCheck, Seeds) {
  EXPECT_EQ(check(good_but("seed: 1", "seed: 18446744073709551615")).seed,
            std::numeric_limits<std::uint64_t>::max());
  const std::string expected = "expected a whole number from 0 to 18446744073709551615";
  expect_text(
      error_of(good_but("seed: 1", "seed: 18446744073709551616")),
      "configs/a.yaml:2:7: seed is '18446744073709551616', which does not fit into 64 bits; " +
          expected);
  expect_text(
      error_of(good_but("seed: 1", "seed: 1.0")),
      "configs/a.yaml:2:7: seed is '1.0', which is not written as a whole number; write 1; " +
          expected);
  expect_text(error_of(good_but("seed: 1", "seed: '1'")),
              "configs/a.yaml:2:7: seed is '1' in quotes; " + expected);
}

TEST(ConfigCheck, Libraries) {
  expect_text(error_of(good_but("[augment_flip, augment_affine]", "augment_flip")),
              "configs/a.yaml:3:10: plugins is 'augment_flip'; expected a list of names, such as "
              "[augment_flip]");
  expect_text(error_of(good_but("[augment_flip, augment_affine]", "[a, a, [b], '']")),
              "configs/a.yaml:3:14: plugins[1] = 'a' is there twice\n"
              "configs/a.yaml:3:17: plugins[2] is a list; expected a name or a file\n"
              "configs/a.yaml:3:22: plugins[3] is ''; expected a name or a file\n"
              "3 errors");
}

TEST(ConfigCheck, RunSettings) {
  const auto run = [](const std::string& text) {
    return error_of(
        good_but("device: auto, precision: auto, threads: auto, max_in_flight: 512, "
                 "prefetch: 2",
                 text));
  };
  for (const char* good : {"device: cpu", "device: cuda", "device: cuda:0", "device: cuda:15",
                           "precision: bf16", "precision: fp32", "threads: 1", "threads: 512"}) {
    expect_text(run(good), "no error");
  }
  for (const char* bad : {"device: 'cuda:'", "device: cuda:-1", "device: cuda:01", "device: gpu",
                          "device: ''", "device: cuda:999", "device: \"cuda:1 \""}) {
    EXPECT_NE(run(bad).find("is not one of auto, cpu, cuda, cuda:N"), std::string::npos) << bad;
  }
  expect_text(run("precision: fp16"),
              "configs/a.yaml:17:18: run: precision = fp16 is not one of auto, fp32, bf16");
  expect_text(run("threads: 0"), "configs/a.yaml:17:16: run: threads = 0 is outside [1, 512]");
  expect_text(run("threads: all"),
              "configs/a.yaml:17:16: run: threads = all is not a whole number");
  expect_text(run("prefetch: -1"), "configs/a.yaml:17:17: run: prefetch = -1 is outside [0, 64]");
  expect_text(
      error_of(good_but("run: {device: auto, precision: auto, threads: auto, max_in_flight: "
                        "512, prefetch: 2}",
                        "run: cpu")),
      "configs/a.yaml:17:6: run is 'cpu'; expected a map such as {device: auto}");
}

TEST(ConfigCheck, RejectPolicy) {
  const auto policy = [](const std::string& text) {
    return check(good_but("max_rejects: 5", text)).rejects;
  };
  EXPECT_TRUE(policy("on_error: stop").stop);
  EXPECT_EQ(policy("max_rejects: 0").max_rejects, 0);
  EXPECT_DOUBLE_EQ(policy("max_rejects: 2.5%").max_reject_share, 0.025);
  EXPECT_EQ(policy("max_rejects: 2.5%").max_rejects, -1);
  EXPECT_DOUBLE_EQ(policy("max_rejects: '100%'").max_reject_share, 1);
  for (const char* bad : {"x", "-1", "101%", "-1%", "1.5", "10 %", "ten"}) {
    expect_text(error_of(good_but("max_rejects: 5", std::string("max_rejects: ") + bad)),
                std::string("configs/a.yaml:5:69: stages[0] 'source.fgvc': max_rejects = ") + bad +
                    " is neither a whole number nor a share such as 10%");
  }
  expect_text(error_of(good_but("bottom: 20", "on_error: stop")),
              "configs/a.yaml:7:23: stages[2] 'image.crop': unknown parameter 'on_error'; it takes "
              "bottom");
}

TEST(ConfigCheck, OverridesFollowTheSource) {
  expect_text(
      error_of(good_but("{split: test}", "{split: tset, spilt: test, limit: x}")),
      "configs/a.yaml:16:88: stages[9] 'evaluate.quality': held_out.split = tset is not one of "
      "train, val, trainval, test; did you mean 'test'?\n"
      "configs/a.yaml:16:94: stages[9] 'evaluate.quality': unknown parameter "
      "'held_out.spilt'; the source has none called so; did you mean 'split'?\n"
      "configs/a.yaml:16:114: stages[9] 'evaluate.quality': held_out.limit = x is not a whole "
      "number\n"
      "3 errors");
  EXPECT_EQ(check(good_but("{split: test}", "{fraction: 0.1}"))
                .stages.back()
                .params.overrides("held_out")
                .at("fraction"),
            "0.1");
  expect_text(
      error_of(good_but("{split: test}", "{fraction: 10%}")),
      "configs/a.yaml:16:91: stages[9] 'evaluate.quality': held_out.fraction = 10% is not a "
      "number; write 0.1");
  expect_text(
      error_of(good_but("{split: test}", "test")),
      "configs/a.yaml:16:80: stages[9] 'evaluate.quality': held_out is 'test'; expected a map "
      "of parameters, such as {split: test}");
}

// ---- The order of the list.

TEST(ConfigKinds, NamesBothStagesAndWhatGoesBetween) {
  const std::string source = "- {use: source.fgvc, root: x}\n";
  expect_text(
      error_of(with_stages(source + "- use: batch\n- use: train.dcgan\n")),
      "configs/a.yaml:3:8: stages[1] 'batch' takes image, but stages[0] 'source.fgvc' gives "
      "bytes; insert image.decode between them");
  expect_text(
      error_of(with_stages(source + "- use: train.dcgan\n")),
      "configs/a.yaml:3:8: stages[1] 'train.dcgan' takes batch, but stages[0] 'source.fgvc' "
      "gives bytes; insert image.decode, then batch between them");
  expect_text(error_of(with_stages(source + "- use: evaluate.quality\n- use: image.decode\n"
                                            "- use: batch\n- use: train.dcgan\n")),
              "configs/a.yaml:3:8: stages[1] 'evaluate.quality' takes snapshot, but stages[0] "
              "'source.fgvc' gives bytes; insert image.decode, then batch, then a train.* stage "
              "between them");
  expect_text(error_of(with_stages("- use: source.synthetic\n- use: image.decode\n- use: batch\n"
                                   "- use: train.dcgan\n")),
              "configs/a.yaml:3:8: stages[1] 'image.decode' takes bytes, but stages[0] "
              "'source.synthetic' gives image; the images are decoded already: remove it");
}

TEST(ConfigKinds, OneSourceFirst) {
  expect_text(error_of(with_stages("- use: augment.flip\n- use: batch\n- use: train.dcgan\n")),
              "configs/a.yaml:2:8: stages[0] 'augment.flip' takes image; the first stage must be a "
              "source, such as source.folder");
  expect_text(
      error_of(with_stages("- use: source.synthetic\n- {use: source.fgvc, root: x}\n"
                           "- use: batch\n- use: train.dcgan\n")),
      "configs/a.yaml:3:9: stages[1] 'source.fgvc' is a source; there is one, and it is the "
      "first stage");
}

TEST(ConfigKinds, OneBatchBeforeTraining) {
  const std::string source = "- use: source.synthetic\n";
  expect_text(error_of(with_stages(source + "- use: train.dcgan\n")),
              "configs/a.yaml:3:8: stages[1] 'train.dcgan' takes batch, but stages[0] "
              "'source.synthetic' gives image; insert batch between them");
  expect_text(error_of(with_stages(source + "- use: batch\n- {use: batch, name: b}\n"
                                            "- use: train.dcgan\n")),
              "configs/a.yaml:4:9: stages[2] 'b' takes image, but stages[1] 'batch' gives batch; "
              "batches are made once: remove one of the two");
  expect_text(
      error_of(with_stages(source + "- use: batch\n- use: augment.flip\n- use: train.dcgan\n")),
      "configs/a.yaml:4:8: stages[2] 'augment.flip' takes image, but stages[1] 'batch' gives "
      "batch; move it before stages[1] 'batch'\n"
      "configs/a.yaml:5:8: stages[3] 'train.dcgan' takes batch, but stages[2] 'augment.flip' "
      "gives image; insert batch between them\n"
      "2 errors");
}

TEST(ConfigKinds, Ends) {
  const std::string source = "- use: source.synthetic\n";
  const std::string sink = "- {use: sink.shards, root: x}\n";
  const std::string train = "- use: batch\n- use: train.dcgan\n";
  expect_text(error_of(with_stages(source + sink)), "no error");
  expect_text(error_of(with_stages(source + train)), "no error");
  expect_text(
      error_of(with_stages(source + train +
                           "- use: evaluate.quality\n- {use: evaluate.quality, name: b}\n")),
      "no error");
  expect_text(
      error_of(with_stages(source)),
      "configs/a.yaml:2:8: stages[0] 'source.synthetic' is the last stage and gives image; the "
      "list must end in a train.* or sink.* stage");
  expect_text(
      error_of(with_stages(source + "- use: batch\n" + sink)),
      "configs/a.yaml:4:9: stages[2] 'sink.shards' takes image, but stages[1] 'batch' gives "
      "batch; a sink takes single images: remove stages[1] 'batch'");
  expect_text(
      error_of(with_stages(source + sink + "- use: evaluate.quality\n")),
      "configs/a.yaml:4:8: stages[2] 'evaluate.quality' comes after stages[1] 'sink.shards', "
      "which is the end; move it before, or remove it");
  expect_text(error_of(with_stages(source + train + "- {use: train.dcgan, name: b}\n")),
              "configs/a.yaml:5:9: stages[3] 'b' takes batch, but stages[2] 'train.dcgan' gives "
              "snapshot; one list trains one model: remove one of the two");
  expect_text(
      error_of(with_stages(source + train + "- use: evaluate.quality\n" + sink)),
      "configs/a.yaml:6:9: stages[4] 'sink.shards' takes image, but stages[2] 'train.dcgan' "
      "gives snapshot; only evaluate.* stages may follow a train.* stage");
}

TEST(ConfigKinds, UnknownStagesHideNothingElse) {
  expect_text(
      error_of(with_stages("- use: source.synthetic\n- use: augment.unheard\n"
                           "- {use: augment.flip, p: 2}\n- use: batch\n- use: train.dcgan\n")),
      "configs/a.yaml:3:8: stages[1]: unknown stage 'augment.unheard'; is its plugin missing "
      "from `plugins:`?\n"
      "configs/a.yaml:4:26: stages[2] 'augment.flip': p = 2 is outside [0, 1]\n"
      "2 errors");
}

TEST(ConfigCheck, MaxInFlightCoversTheBatches) {
  expect_text(error_of(good_but("max_in_flight: 512", "max_in_flight: 192")), "no error");
  expect_text(
      error_of(good_but("max_in_flight: 512", "max_in_flight: 191")),
      "configs/a.yaml:17:68: run: max_in_flight = 191 is less than batch size 64 * (prefetch 2 "
      "+ 1) = 192; write run: {max_in_flight: 192} or more, or make the batch smaller");
  expect_text(
      error_of(with_stages("- use: source.synthetic\n- {use: batch, size: 256}\n"
                           "- use: train.dcgan\n")),
      "configs/a.yaml:3:22: run: max_in_flight = 512 is less than batch size 256 * (prefetch 2 "
      "+ 1) = 768; write run: {max_in_flight: 768} or more, or make the batch smaller");
  expect_text(
      error_of(good_but("max_in_flight: 512, prefetch: 2", "max_in_flight: 128, prefetch: 0")),
      "no error");
  expect_text(
      error_of(good_but("max_in_flight: 512, prefetch: 2", "max_in_flight: 127, prefetch: 0")),
      "configs/a.yaml:17:68: run: max_in_flight = 127 is less than batch size 64 * 2 = 128; write "
      "run: {max_in_flight: 128} or more, or make the batch smaller");
  expect_text(error_of(kGoodYaml, {"stages.batch.size=200"}).substr(0, 60),
              "configs/a.yaml:17:68: run: max_in_flight = 512 is less than ");
}

TEST(ConfigCheck, LongTextsAreCut) {
  const std::string error = error_of(good_but("p: 0.5", "p: " + std::string(5000, 'x')));
  EXPECT_LT(error.size(), 250U);
  expect_text(error_of(good_but("seed: 1", "\"a\\nb\": 1")).substr(0, 41),
              "configs/a.yaml:2:1: unknown key 'a\\nb'; e");
}

// ---- Resolved YAML.

void expect_same(const Config& a, const Config& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.plugins, b.plugins);
  EXPECT_EQ(a.modules, b.modules);
  ASSERT_EQ(a.stages.size(), b.stages.size());
  for (std::size_t i = 0; i < a.stages.size(); ++i) {
    EXPECT_EQ(a.stages[i].use, b.stages[i].use);
    EXPECT_EQ(a.stages[i].address, b.stages[i].address);
    EXPECT_EQ(a.stages[i].params.values(), b.stages[i].params.values()) << a.stages[i].address;
  }
  EXPECT_EQ(a.run.device, b.run.device);
  EXPECT_EQ(a.run.precision, b.run.precision);
  EXPECT_EQ(a.run.threads, b.run.threads);
  EXPECT_EQ(a.run.max_in_flight, b.run.max_in_flight);
  EXPECT_EQ(a.run.prefetch, b.run.prefetch);
  EXPECT_EQ(a.rejects.stop, b.rejects.stop);
  EXPECT_EQ(a.rejects.max_rejects, b.rejects.max_rejects);
  EXPECT_EQ(a.rejects.max_reject_share, b.rejects.max_reject_share);
}

TEST(ResolvedYaml, IsComplete) {
  const Config config =
      check(with_stages("- {use: source.fgvc, root: data}\n- use: image.decode\n"
                        "- {use: image.resize, size: 8, name: small}\n- use: batch\n"
                        "- use: train.dcgan\n- {use: evaluate.quality, held_out: {limit: 5}}\n"),
            {"plugins=[augment_flip]"}, "/etc/gp/short.yaml");
  EXPECT_EQ(config.resolved_yaml(), R"(name: short
seed: 0
plugins: [augment_flip]
stages:
  - use: source.fgvc
    root: /etc/gp/data
    split: trainval
    label: variant
    weights: []
    shuffle: true
    on_error: skip
    max_rejects: 10%
  - use: image.decode
  - use: image.resize
    name: small
    size: 8
    fit: squash
  - use: batch
    size: 64
    last: drop
  - use: train.dcgan
    epochs: 200
    learning_rate: 2.0e-4
    beta1: 0.5
  - use: evaluate.quality
    every: 10
    held_out: {limit: 5}
run:
  device: auto
  precision: auto
  threads: auto
  data_threads: auto
  max_in_flight: 512
  prefetch: 2
)");
}

TEST(ResolvedYaml, ReadsBackToTheSame) {
  const Config config =
      check(kGoodYaml, {"run.threads=3", "run.device=cuda:1", "seed=12345678901234567890"});
  // Paths are absolute, so the place of the copy does not matter.
  expect_same(config, check(config.resolved_yaml(), {}, "/elsewhere/copy.yaml"));
}

TEST(ResolvedYaml, HardValuesSurvive) {
  const std::vector<std::string> texts = {"",
                                          " lead",
                                          "trail ",
                                          "yes",
                                          "null",
                                          "~",
                                          "010",
                                          "1.5",
                                          "a: b",
                                          "a #b",
                                          "'q'",
                                          "\"dq\"",
                                          "back\\s",
                                          "new\nline",
                                          "tab\there",
                                          "\xc3\xa9t\xc3\xa9",
                                          "[a]",
                                          "{a: b}",
                                          "*x",
                                          "&x",
                                          "!t",
                                          "%d",
                                          "-",
                                          "a, b",
                                          "\x01",
                                          "?",
                                          "|",
                                          ">",
                                          "@x",
                                          "`x`",
                                          "a\r\nb",
                                          "\xf0\x9f\x9b\xa9",
                                          "<<",
                                          "---",
                                          "...",
                                          "-.inf",
                                          "0x10",
                                          "1e5",
                                          "\x7f",
                                          "a'b\"c",
                                          "\xc2\x85",
                                          "\xe2\x80\xa8",
                                          "\xef\xbb\xbf"};
  Config config = check(good_but(
      "held_out: {split: test}",
      "held_out: {weights: [0.5, 1], label: x, limit: 7, shuffle: false, fraction: 1e-5}"));
  for (const std::string& text : texts) {
    config.stages[0].params.set("label", text);
    config.stages[0].params.set("root", "/" + text);
    auto held_out = config.stages.back().params.overrides("held_out");
    held_out["label"] = text;
    config.stages.back().params.set("held_out", held_out);
    SCOPED_TRACE(testing::PrintToString(text) + "\n" + config.resolved_yaml());
    expect_same(config, check(config.resolved_yaml()));
  }
}

TEST(ResolvedYaml, FloatsSurviveExactly) {
  Config config = check(kGoodYaml);
  for (const double value : {0.1, 1.0 / 3, 2e-4, 1e-300, 5e-324, 0.30000000000000004, 1.0, 0.0,
                             std::nextafter(1.0, 0.0)}) {
    stage(config, "augment.flip");
    config.stages[4].params.set("p", value);
    config.stages[0].params.set("weights", std::vector<double>{value * 1e17, 123456789.0, value});
    expect_same(config, check(config.resolved_yaml()));
  }
}

// ---- override_params.

std::string override_error(const std::map<std::string, std::string>& overrides) {
  const Config config = check(kGoodYaml);
  try {
    override_params(config.stages[0], overrides, "stages[9] 'evaluate.quality': reference");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(OverrideParams, ChecksByTheSameSchema) {
  const Config config = check(kGoodYaml);
  const Params params = override_params(config.stages[0],
                                        {{"split", "test"},
                                         {"shuffle", "false"},
                                         {"limit", "12"},
                                         {"weights", "[1, 2.5]"},
                                         {"label", "010"},
                                         {"on_error", "stop"}},
                                        "here");
  EXPECT_EQ(params.text("split"), "test");
  EXPECT_FALSE(params.flag("shuffle"));
  EXPECT_EQ(params.integer("limit"), 12);
  EXPECT_EQ(params.real_list("weights"), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(params.text("label"), "010");
  EXPECT_EQ(params.text("on_error"), "stop");
  EXPECT_EQ(params.text("root"), config.stages[0].params.text("root"));
}

TEST(OverrideParams, NamesThePlaceAndEveryError) {
  expect_text(override_error({{"spilt", "test"}, {"limit", "-1"}, {"weights", "[x]"}}),
              "stages[9] 'evaluate.quality': reference: limit = -1 is outside [0, 1000000]\n"
              "stages[9] 'evaluate.quality': reference: unknown parameter 'spilt'; source.fgvc has "
              "none called so; did you mean 'split'?\n"
              "stages[9] 'evaluate.quality': reference: weights[0] = x is not a number\n"
              "3 errors");
}

TEST(OverrideParams, TakesWhatCheckConfigGives) {
  const Config config = check(good_but(
      "held_out: {split: test}",
      "held_out: {root: other, weights: [0.1, 2], limit: 3, shuffle: true, label: \"[1]\"}"));
  const Params params =
      override_params(config.stages[0], config.stages.back().params.overrides("held_out"), "x");
  EXPECT_EQ(params.text("root"), (fs::current_path() / "configs/other").string());
  EXPECT_EQ(params.real_list("weights"), (std::vector<double>{0.1, 2}));
  EXPECT_EQ(params.text("label"), "[1]");
}

}  // namespace
}  // namespace gp
