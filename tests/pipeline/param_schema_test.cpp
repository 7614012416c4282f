#include "pipeline/param_schema.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <stdexcept>

#include "pipeline/config.hpp"
#include "pipeline/error.hpp"

namespace gp {
namespace {

ParamSchema every_type() {
  ParamSchema schema;
  schema.flag("mirror", true, "mirror it")
      .integer("size", 128, "edge in pixels", 1, 4096)
      .real("p", 0.5, "probability", 0, 1)
      .text("split", "train", "which list")
      .choice("fit", "squash", {"squash", "crop", "pad"}, "how it fits")
      .path("root", "folder")
      .real_list("scales", {1, 2}, "factors", 0, 10)
      .overrides("reference", "parameters of the source");
  return schema;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

std::string check_error(const std::string& name, const Value& value) {
  const ParamSchema schema = every_type();
  return error_of([&] { check_value(*schema.find(name), value); });
}

TEST(ParamSchema, KeepsTheOrderOfDeclaration) {
  const ParamSchema schema = every_type();
  std::vector<std::string> names;
  for (const auto& spec : schema.specs()) names.push_back(spec.name);
  EXPECT_EQ(names, (std::vector<std::string>{"mirror", "size", "p", "split", "fit", "root",
                                             "scales", "reference"}));
  ASSERT_NE(schema.find("p"), nullptr);
  EXPECT_EQ(schema.find("p")->doc, "probability");
  EXPECT_EQ(schema.find("q"), nullptr);
}

TEST(ParamSchema, RefusesBadDeclarations) {
  ParamSchema schema;
  EXPECT_THROW(schema.required(), std::logic_error);
  EXPECT_THROW(schema.maybe(), std::logic_error);
  schema.real("p", 0.5, "", 0, 1);
  EXPECT_THROW(schema.integer("p", 1, ""), std::logic_error);
  EXPECT_THROW(schema.real("q", 2, "", 0, 1), std::logic_error);
  EXPECT_THROW(schema.choice("fit", "stretch", {"squash"}, ""), std::logic_error);
  EXPECT_THROW(schema.choice("fit", "", {}, ""), std::logic_error);
  for (const char* name : {"", "use", "name", "a.b", "1st", "Rate", "a b"}) {
    EXPECT_THROW(schema.text(name, "", ""), std::logic_error) << name;
  }
  EXPECT_EQ(schema.specs().size(), 1U);
}

TEST(MakeParams, FillsDefaults) {
  const Params params = make_params(every_type(), {{"root", "data"}});
  EXPECT_TRUE(params.flag("mirror"));
  EXPECT_EQ(params.integer("size"), 128);
  EXPECT_EQ(params.real("p"), 0.5);
  EXPECT_EQ(params.text("split"), "train");
  EXPECT_EQ(params.text("fit"), "squash");
  EXPECT_EQ(params.text("root"), "data");
  EXPECT_EQ(params.real_list("scales"), (std::vector<double>{1, 2}));
  EXPECT_FALSE(params.has("reference"));
}

TEST(MakeParams, TakesWhatIsGivenAndWidensIntegers) {
  const Params params =
      make_params(every_type(), {{"root", "data"},
                                 {"p", std::int64_t{1}},
                                 {"mirror", false},
                                 {"reference", std::map<std::string, std::string>{{"a", "b"}}}});
  EXPECT_EQ(params.real("p"), 1.0);
  EXPECT_FALSE(params.flag("mirror"));
  EXPECT_EQ(params.overrides("reference").at("a"), "b");
}

TEST(MakeParams, NamesEveryError) {
  EXPECT_EQ(error_of([] {
              make_params(every_type(), {{"p", 1.5}, {"szie", std::int64_t{3}}, {"zzz", true}});
            }),
            "p = 1.5 is outside [0, 1]\n"
            "parameter 'root' is required\n"
            "unknown parameter 'szie'; did you mean 'size'?\n"
            "unknown parameter 'zzz'");
}

TEST(MakeParams, RequiredAndMaybe) {
  ParamSchema schema;
  schema.real("rate", 1, "", 0).required().integer("count", 1, "").maybe();
  EXPECT_EQ(error_of([&] { make_params(schema); }), "parameter 'rate' is required");
  const Params params = make_params(schema, {{"rate", 2.0}});
  EXPECT_FALSE(params.has("count"));
  EXPECT_EQ(make_params(schema, {{"rate", 2.0}, {"count", std::int64_t{7}}}).integer("count"), 7);
}

TEST(Params, WrongNameOrTypeIsALogicError) {
  const Params params = make_params(every_type(), {{"root", "data"}});
  EXPECT_THROW(params.real("size"), std::logic_error);
  EXPECT_THROW(params.integer("edge"), std::logic_error);
  EXPECT_THROW(params.overrides("reference"), std::logic_error);
}

TEST(CheckValue, SaysWhatIsWrong) {
  EXPECT_EQ(check_error("p", -0.25), "p = -0.25 is outside [0, 1]");
  EXPECT_EQ(check_error("p", "half"), "p = half is not a number");
  EXPECT_EQ(check_error("p", std::numeric_limits<double>::quiet_NaN()),
            "p = nan is not a finite number");
  EXPECT_EQ(check_error("p", std::numeric_limits<double>::infinity()),
            "p = inf is not a finite number");
  EXPECT_EQ(check_error("size", 2.0), "size = 2 is a real number; expected a whole number");
  EXPECT_EQ(check_error("size", std::int64_t{0}), "size = 0 is outside [1, 4096]");
  EXPECT_EQ(check_error("mirror", std::int64_t{1}), "mirror = 1 is not true or false");
  EXPECT_EQ(check_error("split", true), "split = true is not a text");
  EXPECT_EQ(check_error("fit", "sqash"),
            "fit = sqash is not one of squash, crop, pad; did you mean 'squash'?");
  EXPECT_EQ(check_error("fit", std::int64_t{1}), "fit = 1 is not a text");
  EXPECT_EQ(check_error("root", ""), "root is empty; expected a path");
  EXPECT_EQ(check_error("scales", std::vector<double>{1, 11}), "scales[1] = 11 is outside [0, 10]");
  EXPECT_EQ(check_error("scales", 1.0), "scales = 1 is not a list of numbers");
  EXPECT_EQ(check_error("reference", "test"), "reference = test is not a map of parameters");
}

TEST(CheckValue, OneSidedRanges) {
  ParamSpec spec;
  spec.name = "epochs";
  spec.type = ParamType::kInt;
  spec.min = 1;
  EXPECT_EQ(error_of([&] { check_value(spec, std::int64_t{0}); }),
            "epochs = 0 is less than 1, the smallest that is allowed");
  spec.min.reset();
  spec.max = 1000000;
  EXPECT_EQ(error_of([&] { check_value(spec, std::int64_t{1000001}); }),
            "epochs = 1000001 is more than 1000000, the largest that is allowed");
  EXPECT_EQ(std::get<std::int64_t>(check_value(spec, std::int64_t{1000000})), 1000000);
}

TEST(ValueToString, IsYaml) {
  EXPECT_EQ(to_string(Value(true)), "true");
  EXPECT_EQ(to_string(Value(std::int64_t{-3})), "-3");
  EXPECT_EQ(to_string(Value(0.1)), "0.1");
  EXPECT_EQ(to_string(Value(100000.0)), "100000");
  EXPECT_EQ(to_string(Value(1e-7)), "1.0e-7");
  EXPECT_EQ(to_string(Value(2e-4)), "2.0e-4");
  EXPECT_EQ(to_string(Value(-1.25e-10)), "-1.25e-10");
  EXPECT_EQ(to_string(Value(1.5e300)), "1.5e+300");
  EXPECT_EQ(to_string(Value("trainval")), "trainval");
  EXPECT_EQ(to_string(Value("../data/x-1.0")), "../data/x-1.0");
  EXPECT_EQ(to_string(Value(std::vector<double>{})), "[]");
  EXPECT_EQ(to_string(Value(std::vector<double>{1, 0.5})), "[1, 0.5]");
  EXPECT_EQ(to_string(Value(std::map<std::string, std::string>{{"split", "val"}, {"x", "a b"}})),
            "{split: val, x: \"a b\"}");
}

TEST(ValueToString, QuotesWhatAnotherReaderWouldTakeForSomethingElse) {
  for (const std::string text :
       {"",      "true",       "No",   "~",     "null", "1",   "-2", "0.5",  "1e5",  "0x1f",
        "12:30", "2013-05-06", ".inf", "-.nan", "..",   "- a", "-a", "a: b", "a #b", "[a]",
        "{a}",   "*a",         "&a",   "!a",    "a, b", " a",  "%a", "@a"}) {
    EXPECT_EQ(to_string(Value(text)), "\"" + text + "\"") << text;
  }
  EXPECT_EQ(to_string(Value("a\"b\\c\nd\te\x01")), R"("a\"b\\c\nd\te\x01")");
}

TEST(NearestName, FindsSlips) {
  const std::vector<std::string> names = {"translate", "rotate", "scale", "augment.flip", "p"};
  EXPECT_EQ(nearest_name("translat", names), "translate");
  EXPECT_EQ(nearest_name("translation", names), "translate");
  EXPECT_EQ(nearest_name("rotaet", names), "rotate");
  EXPECT_EQ(nearest_name("Scale", names), "scale");
  EXPECT_EQ(nearest_name("flip", names), "augment.flip");
  EXPECT_EQ(nearest_name("augment-flip", names), "augment.flip");
  EXPECT_EQ(nearest_name("q", names), "");
  EXPECT_EQ(nearest_name("colour", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name(std::string(1000000, 'x'), names), "");
}

}  // namespace
}  // namespace gp
