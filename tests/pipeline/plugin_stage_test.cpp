#include "pipeline/plugin_stage.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "tests/support/run_stage.hpp"

namespace gp {
namespace {

using testing::make_transform;
using testing::noise_image;
using testing::run_stage;
using testing::StageResult;

#define EXPECT_HAS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << "looked for: " << (part) << "\nin: " << (text)

/// A descriptor without faults, for tests to change one thing of: copies red, with two parameters.
struct TestPlugin {
  gp_param share{};
  gp_param mode{};
  const char* choices[2] = {"soft", "hard"};
  const gp_param* params[2] = {&share, &mode};
  gp_stage stage{};

  TestPlugin() {
    share.struct_size = sizeof share;
    share.type = GP_TYPE_REAL;
    share.flags = GP_PARAM_MIN | GP_PARAM_MAX;
    share.name = "share";
    share.doc = "a share";
    share.max = 1;
    share.default_real = 0.5;
    mode.struct_size = sizeof mode;
    mode.type = GP_TYPE_CHOICE;
    mode.name = "mode";
    mode.doc = "how";
    mode.default_text = "soft";
    mode.choices = choices;
    mode.n_choices = 2;
    stage.struct_size = sizeof stage;
    stage.name = "test.stage";
    stage.doc = "Does what the test wants.";
    stage.in_kind = GP_KIND_IMAGE;
    stage.out_kind = GP_KIND_IMAGE;
    stage.params = params;
    stage.n_params = 2;
    stage.create = [](const gp_host*, const gp_value* const*, size_t, void**) -> gp_status {
      return GP_OK;
    };
    stage.process = [](const void*, const gp_host*, const gp_image_in* in,
                       const gp_image_out* out) -> gp_status {
      for (int y = 0; y < in->height; ++y) {
        std::memcpy(out->data + y * out->stride, in->data + y * in->stride, in->width * 3U);
      }
      return GP_OK;
    };
  }
  TestPlugin(const TestPlugin&) = delete;
  TestPlugin& operator=(const TestPlugin&) = delete;

  void without_params() {
    stage.params = nullptr;
    stage.n_params = 0;
  }
  StageInfo info(bool checked = false) const {
    return plugin_stage_info(&stage, "testing", "/plugins/testing.so", checked);
  }
};

template <class E>
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no such error";
  return {};
}

StageResult run(const StageInfo& info, const Image& in, std::uint64_t step = 0) {
  return run_stage(*make_transform(info), in.view(), Rng(3, "test", step));
}

TEST(PluginStage, DescriptorBecomesStageInfo) {
  TestPlugin plugin;
  plugin.stage.flags = GP_STAGE_RANDOM | GP_STAGE_SERIAL;
  const StageInfo info = plugin.info();
  EXPECT_EQ(info.name, "test.stage");
  EXPECT_EQ(info.doc, "Does what the test wants.");
  EXPECT_TRUE(info.random);
  EXPECT_FALSE(info.geometric);
  EXPECT_EQ(info.concurrency, Concurrency::kSerial);
  ASSERT_EQ(info.params.specs().size(), 2U);
  const ParamSpec& share = info.params.specs()[0];
  EXPECT_EQ(share.type, ParamType::kReal);
  EXPECT_EQ(share.min, 0.0);
  EXPECT_EQ(share.max, 1.0);
  EXPECT_EQ(std::get<double>(*share.default_value), 0.5);
  EXPECT_EQ(info.params.specs()[1].choices, (std::vector<std::string>{"soft", "hard"}));
}

TEST(PluginStage, MistakesInTheDescriptorAreFound) {
  struct Case {
    const char* name;
    std::function<void(TestPlugin&)> spoil;
    const char* text;
  };
  static const gp_param* null_param[] = {nullptr};
  static const char* null_choice[] = {"soft", nullptr};
  static const char* same_choice[] = {"soft", "soft"};
  const Case cases[] = {
      {"no name", [](TestPlugin& p) { p.stage.name = nullptr; }, "stage name NULL"},
      {"one word", [](TestPlugin& p) { p.stage.name = "flip"; }, "'flip' must be two or more"},
      {"capitals", [](TestPlugin& p) { p.stage.name = "augment.Flip"; }, "'augment.Flip' must be"},
      {"open end", [](TestPlugin& p) { p.stage.name = "augment."; }, "'augment.' must be"},
      {"no doc", [](TestPlugin& p) { p.stage.doc = nullptr; }, "has no doc"},
      {"two lines", [](TestPlugin& p) { p.stage.doc = "a\nb"; }, "several lines"},
      {"kind in", [](TestPlugin& p) { p.stage.in_kind = 9; }, "turns kind 9 into kind 1"},
      {"kind out", [](TestPlugin& p) { p.stage.out_kind = 0; }, "turns kind 1 into kind 0"},
      {"flags", [](TestPlugin& p) { p.stage.flags = 64; }, "unknown flags (64)"},
      {"no body", [](TestPlugin& p) { p.stage.process = nullptr; }, "neither process nor matrix"},
      {"two bodies",
       [](TestPlugin& p) {
         p.stage.matrix = [](const void*, const gp_host*, int32_t, int32_t, double*) -> gp_status {
           return GP_OK;
         };
       },
       "both process and matrix"},
      {"no table", [](TestPlugin& p) { p.stage.params = nullptr; }, "params is NULL"},
      {"no create", [](TestPlugin& p) { p.stage.create = nullptr; }, "no create to read them"},
      {"null param",
       [](TestPlugin& p) {
         p.stage.params = null_param;
         p.stage.n_params = 1;
       },
       "params[0] NULL"},
      {"small param", [](TestPlugin& p) { p.mode.struct_size = 16; }, "params[1] of 16 bytes"},
      {"param name", [](TestPlugin& p) { p.share.name = "the share"; }, "named 'the share'"},
      {"null name", [](TestPlugin& p) { p.share.name = nullptr; }, "named NULL"},
      {"reserved", [](TestPlugin& p) { p.share.name = "use"; }, "every stage of a YAML has"},
      {"twice", [](TestPlugin& p) { p.mode.name = "share"; }, "parameter 'share' twice"},
      {"param doc", [](TestPlugin& p) { p.share.doc = ""; }, "parameter 'share' has no doc"},
      {"type", [](TestPlugin& p) { p.share.type = 77; }, "unknown type 77"},
      {"param flags", [](TestPlugin& p) { p.share.flags = 32; }, "unknown flags (32)"},
      {"min over max", [](TestPlugin& p) { p.share.min = 2; }, "min = 2 greater than max = 1"},
      {"nan range", [](TestPlugin& p) { p.share.max = std::nan(""); }, "max = "},
      {"half nan range",
       [](TestPlugin& p) {
         p.share.flags = GP_PARAM_MAX;
         p.share.max = std::nan("");
       },
       "range that is not a number"},
      {"range of text", [](TestPlugin& p) { p.mode.flags = GP_PARAM_MIN; }, "only numbers have"},
      {"default", [](TestPlugin& p) { p.share.default_real = -1; }, "share = -1 is outside [0, 1]"},
      {"nan default", [](TestPlugin& p) { p.share.default_real = std::nan(""); }, "bad default"},
      {"bool",
       [](TestPlugin& p) {
         p.share.type = GP_TYPE_BOOL;
         p.share.flags = 0;
         p.share.default_int = 2;
       },
       "a bool is 0 or 1"},
      {"no text", [](TestPlugin& p) { p.mode.default_text = nullptr; }, "no default_text"},
      {"choice", [](TestPlugin& p) { p.mode.default_text = "soff"; }, "is not one of soft, hard"},
      {"no choices", [](TestPlugin& p) { p.mode.n_choices = 0; }, "without choices"},
      {"null choices", [](TestPlugin& p) { p.mode.choices = nullptr; }, "without choices"},
      {"null choice", [](TestPlugin& p) { p.mode.choices = null_choice; }, "choices[1] empty"},
      {"same choice", [](TestPlugin& p) { p.mode.choices = same_choice; }, "'soft' twice"},
      {"stray choices", [](TestPlugin& p) { p.share.n_choices = 1; }, "is not GP_TYPE_CHOICE"},
      {"null list",
       [](TestPlugin& p) {
         p.share.type = GP_TYPE_REAL_LIST;
         p.share.n_default_list = 3;
       },
       "default_list of 3"},
  };
  EXPECT_EQ(TestPlugin().info().name, "test.stage");
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    TestPlugin plugin;
    c.spoil(plugin);
    const std::string text = error_of<PluginError>([&] { plugin.info(); });
    EXPECT_HAS(text, "plugin 'testing' (/plugins/testing.so)");
    EXPECT_HAS(text, c.text);
  }
}

TEST(PluginStage, ReadsNothingBeyondAnOldersPluginsStructAndIgnoresANewersTail) {
  // A newer minor has appended members; a host of today must not care.
  struct {
    gp_stage stage;
    void* appended;
  } newer{};
  TestPlugin plugin;
  newer.stage = plugin.stage;
  newer.stage.struct_size = sizeof newer;
  newer.appended = &newer;
  EXPECT_EQ(plugin_stage_info(&newer.stage, "testing", "/x.so", false).params.specs().size(), 2U);
}

// What create saw, in text.
std::string seen;  // NOLINT

TEST(PluginStage, CreateGetsCheckedValuesInTheOrderOfTheTable) {
  TestPlugin plugin;
  gp_param whole = plugin.share;
  whole.type = GP_TYPE_INT;
  whole.name = "whole";
  whole.max = 9;
  whole.default_int = 4;
  gp_param flag = plugin.share;
  flag.type = GP_TYPE_BOOL;
  flag.flags = 0;
  flag.name = "flag";
  flag.default_int = 1;
  gp_param text = plugin.share;
  text.type = GP_TYPE_STRING;
  text.flags = GP_PARAM_REQUIRED;
  text.name = "text";
  gp_param list = plugin.share;
  list.type = GP_TYPE_REAL_LIST;
  list.name = "list";
  const double numbers[] = {0.25, 1};
  list.default_list = numbers;
  list.n_default_list = 2;
  const gp_param* params[] = {&whole, &plugin.mode, &flag, &text, &list, &plugin.share};
  plugin.stage.params = params;
  plugin.stage.n_params = 6;
  plugin.stage.create = [](const gp_host*, const gp_value* const* v, size_t n,
                           void**) -> gp_status {
    seen = std::to_string(n) + " " + std::to_string(v[0]->integer) + " " + v[1]->text + " " +
           std::to_string(v[1]->integer) + " " + std::to_string(v[2]->integer) + " " + v[3]->text +
           " " + std::to_string(v[4]->list_size) + " " + std::to_string(v[4]->list[0]) + " " +
           std::to_string(v[5]->real);
    return GP_OK;
  };
  const StageInfo info = plugin.info();
  make_transform(info, {{"text", std::string("hello")}, {"mode", std::string("hard")}});
  EXPECT_EQ(seen, "6 4 hard 1 1 hello 2 0.250000 0.500000");
  // The same checks and texts as for built-in stages.
  EXPECT_HAS(error_of<ConfigError>([&] { make_transform(info); }), "'text' is required");
  EXPECT_HAS(error_of<ConfigError>([&] {
               make_transform(info, {{"text", std::string("a")}, {"whole", std::int64_t{10}}});
             }),
             "whole = 10 is outside [0, 9]");
}

TEST(PluginStage, EachInstanceHasItsOwnTablesUntilItIsDestroyed) {
  static int alive = 0;
  alive = 0;
  TestPlugin plugin;
  plugin.stage.create = [](const gp_host*, const gp_value* const* values, size_t,
                           void** self) -> gp_status {
    ++alive;
    *self = new double(values[0]->real);
    return GP_OK;
  };
  plugin.stage.destroy = [](void* self) {
    --alive;
    delete static_cast<double*>(self);
  };
  plugin.stage.process = [](const void* self, const gp_host*, const gp_image_in*,
                            const gp_image_out* out) -> gp_status {
    std::memset(out->data, static_cast<int>(*static_cast<const double*>(self) * 100), 3);
    return GP_OK;
  };
  {
    const StageInfo info = plugin.info();
    const auto a = make_transform(info, {{"share", 0.25}});
    const auto b = make_transform(info, {{"share", 0.75}});
    EXPECT_EQ(alive, 2);
    const Image in(1, 1);
    EXPECT_EQ(run_stage(*a, in.view(), Rng(1, "t", 0)).image.pixels()[0], 25);
    EXPECT_EQ(run_stage(*b, in.view(), Rng(1, "t", 0)).image.pixels()[0], 75);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PluginStage, StridedInputArrivesAsItIs) {
  TestPlugin plugin;
  const Image whole = noise_image(6, 8);
  const ConstImageView part{whole.view().row(1) + 2 * kChannels, 3, 4, whole.view().stride};
  for (const bool checked : {false, true}) {
    const auto stage = make_transform(plugin.info(checked));
    const StageResult result = run_stage(*stage, part, Rng(1, "t", 0));
    EXPECT_EQ(result.image.shape(), (ImageShape{3, 4}));
    EXPECT_EQ(result.image.view().row(2)[5], part.row(2)[5]);
  }
}

TEST(PluginStage, ErrorAndDropCarryThePluginsText) {
  TestPlugin plugin;
  plugin.stage.process = [](const void*, const gp_host* host, const gp_image_in* in,
                            const gp_image_out*) -> gp_status {
    if (in->width == 1) host->fail(host, "too narrow");
    return in->height == 1 ? GP_DROP : GP_ERROR;
  };
  const StageInfo info = plugin.info();
  EXPECT_EQ(error_of<SampleError>([&] { run(info, Image(2, 1)); }), "too narrow");
  EXPECT_EQ(error_of<SampleError>([&] { run(info, Image(2, 2)); }), "the plugin gave no reason");
  EXPECT_EQ(run(info, Image(1, 1)).dropped, "too narrow");
  EXPECT_EQ(run(info, Image(1, 2)).dropped, "dropped by the plugin");
}

TEST(PluginStage, ExceptionsAcrossTheCBoundaryAreThePluginsFault) {
  TestPlugin plugin;
  plugin.stage.process = [](const void*, const gp_host*, const gp_image_in*,
                            const gp_image_out*) -> gp_status { throw std::runtime_error("oops"); };
  const std::string text = error_of<PluginError>([&] { run(plugin.info(), Image(1, 1)); });
  EXPECT_HAS(text, "plugin 'testing'");
  EXPECT_HAS(text, "process let an exception out");
  EXPECT_HAS(text, "oops");
  plugin.stage.process = [](const void*, const gp_host*, const gp_image_in*,
                            const gp_image_out*) -> gp_status { throw 1; };
  EXPECT_HAS(error_of<PluginError>([&] { run(plugin.info(), Image(1, 1)); }), "let an exception");
  plugin.stage.create = [](const gp_host*, const gp_value* const*, size_t, void**) -> gp_status {
    throw std::runtime_error("no memory for tables");
  };
  const std::string create = error_of<PluginError>([&] { make_transform(plugin.info()); });
  EXPECT_HAS(create, "create let an exception out");
  EXPECT_HAS(create, "no memory for tables");
}

TEST(PluginStage, ABadStatusIsThePluginsFault) {
  TestPlugin plugin;
  plugin.stage.process = [](const void*, const gp_host*, const gp_image_in*,
                            const gp_image_out*) -> gp_status { return -1; };
  EXPECT_HAS(error_of<PluginError>([&] { run(plugin.info(), Image(1, 1)); }),
             "process returned the status -1");
  plugin.stage.create = [](const gp_host*, const gp_value* const*, size_t, void**) -> gp_status {
    return GP_DROP;
  };
  EXPECT_HAS(error_of<PluginError>([&] { make_transform(plugin.info()); }), "returned GP_DROP");
}

TEST(PluginStage, RandomNumbersAreTheSamplesOwn) {
  TestPlugin plugin;
  plugin.without_params();
  plugin.stage.flags = GP_STAGE_RANDOM;
  plugin.stage.process = [](const void*, const gp_host* host, const gp_image_in*,
                            const gp_image_out* out) -> gp_status {
    const std::uint32_t bits = host->random_u32(host);
    const double uniform = host->uniform(host);
    const double normal = host->normal(host);
    std::memcpy(out->data, &bits, sizeof bits);
    std::memcpy(out->data + 4, &uniform, sizeof uniform);
    std::memcpy(out->data + 12, &normal, sizeof normal);
    return GP_OK;
  };
  const StageInfo info = plugin.info();
  const Image in(2, 4);
  const StageResult result = run(info, in, 5);
  Rng rng(3, "test", 5);
  std::uint32_t bits = 0;
  double uniform = 0;
  double normal = 0;
  std::memcpy(&bits, result.image.pixels().data(), sizeof bits);
  std::memcpy(&uniform, result.image.pixels().data() + 4, sizeof uniform);
  std::memcpy(&normal, result.image.pixels().data() + 12, sizeof normal);
  EXPECT_EQ(bits, rng.next_u32());
  EXPECT_EQ(uniform, rng.uniform(0.0, 1.0));
  EXPECT_EQ(normal, rng.normal());
  EXPECT_EQ(run(info, in, 5).image.pixels(), result.image.pixels());
  EXPECT_NE(run(info, in, 6).image.pixels(), result.image.pixels());
}

TEST(PluginStage, UndeclaredRandomnessIsThePluginsFault) {
  TestPlugin plugin;
  plugin.without_params();
  plugin.stage.process = [](const void*, const gp_host* host, const gp_image_in*,
                            const gp_image_out*) -> gp_status {
    host->uniform(host);
    return GP_OK;
  };
  EXPECT_HAS(error_of<PluginError>([&] { run(plugin.info(), Image(1, 1)); }), "GP_STAGE_RANDOM");
  // In create there are none, declared or not.
  plugin.stage.flags = GP_STAGE_RANDOM;
  plugin.stage.create = [](const gp_host* host, const gp_value* const*, size_t,
                           void**) -> gp_status {
    host->normal(host);
    return GP_OK;
  };
  EXPECT_HAS(error_of<PluginError>([&] { make_transform(plugin.info()); }), "create drew a random");
}

TEST(PluginStage, OutputShapeMakesTheOutput) {
  TestPlugin plugin;
  plugin.without_params();
  plugin.stage.output_shape = [](const void*, const gp_host* host, int32_t, int32_t width,
                                 int32_t* out_height, int32_t* out_width) -> gp_status {
    if (width == 2) {
      host->fail(host, "too narrow to halve");
      return GP_ERROR;
    }
    *out_height = 16;
    *out_width = width == 7 ? -3 : width / 2;
    return GP_OK;
  };
  plugin.stage.process = [](const void*, const gp_host*, const gp_image_in*,
                            const gp_image_out* out) -> gp_status {
    std::memset(out->data, 9, static_cast<std::size_t>(out->height) * out->stride);
    return GP_OK;
  };
  const StageInfo info = plugin.info();
  const auto stage = make_transform(info);
  EXPECT_EQ(stage->output_shape({4, 8}), (ImageShape{16, 4}));
  EXPECT_EQ(stage->output_shape({0, 0}), (ImageShape{16, 0}));  // the width is open
  EXPECT_EQ(run(info, Image(4, 8)).image.shape(), (ImageShape{16, 4}));
  EXPECT_EQ(error_of<SampleError>([&] { run(info, Image(4, 2)); }), "too narrow to halve");
  EXPECT_HAS(error_of<PluginError>([&] { run(info, Image(4, 7)); }), "made -3x16 pixels");
  EXPECT_HAS(error_of<PluginError>([&] { run(info, Image(4, 1)); }), "made 0x16 pixels");
}

TEST(PluginStage, TheHostResamplesForAMatrix) {
  TestPlugin plugin;
  plugin.without_params();
  plugin.stage.process = nullptr;
  // Width 4: a shift; width 5: nothing; 6: not finite; 7: an error; 8: a drop.
  plugin.stage.matrix = [](const void*, const gp_host* host, int32_t height, int32_t width,
                           double* m) -> gp_status {
    if (width == 4) m[2] = height;
    if (width == 6) m[0] = std::numeric_limits<double>::infinity();
    if (width == 7) host->fail(host, "seven");
    return width == 7 ? GP_ERROR : width == 8 ? GP_DROP : GP_OK;
  };
  const StageInfo info = plugin.info();
  EXPECT_TRUE(info.geometric);
  const auto stage = make_transform(info);
  Rng rng(1, "t", 0);
  EXPECT_EQ(stage->matrix({3, 4}, rng), (Affine{{1, 0, 3, 0, 1, 0}}));
  const Image in = noise_image(3, 4);
  const StageResult shifted = run(info, in);
  EXPECT_EQ(shifted.image.view().row(1)[0], in.view().row(1)[3 * kChannels]);
  EXPECT_TRUE(run(info, noise_image(3, 5)).passed_through);
  EXPECT_HAS(error_of<PluginError>([&] { run(info, Image(3, 6)); }), "not finite");
  EXPECT_EQ(error_of<SampleError>([&] { run(info, Image(3, 7)); }), "seven");
  EXPECT_HAS(error_of<PluginError>([&] { run(info, Image(3, 8)); }), "only process may drop");
}

TEST(PluginStage, GuardsCatchWritesOutsideAndIntoTheInput) {
  TestPlugin plugin;
  plugin.without_params();
  plugin.stage.process = [](const void*, const gp_host*, const gp_image_in* in,
                            const gp_image_out* out) -> gp_status {
    std::memset(out->data, 1, static_cast<std::size_t>(out->height) * out->stride);
    if (in->width == 2) out->data[-1] = 0;
    if (in->width == 3) out->data[out->height * out->stride + 100] = 0;
    if (in->width == 4) const_cast<std::uint8_t*>(in->data)[5] ^= 1;
    if (in->width == 5) const_cast<std::uint8_t*>(in->data)[-3] = 0;
    return GP_OK;
  };
  const StageInfo info = plugin.info(true);
  EXPECT_EQ(run(info, Image(2, 1)).image.pixels(), std::vector<std::uint8_t>(6, 1));
  for (const int width : {2, 3}) {
    const std::string text = error_of<PluginError>([&] { run(info, Image(2, width)); });
    EXPECT_HAS(text, "plugin 'testing'");
    EXPECT_HAS(text, "wrote outside its output image");
  }
  for (const int width : {4, 5}) {
    EXPECT_HAS(error_of<PluginError>([&] { run(info, Image(2, width)); }), "wrote into its input");
  }
}

}  // namespace
}  // namespace gp
