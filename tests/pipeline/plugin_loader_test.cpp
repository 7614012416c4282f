#include "pipeline/plugin_loader.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/plugin_examiner.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_stage.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::make_transform;
using testing::noise_image;
using testing::run_stage;
using testing::ScopedVariable;
using testing::TemporaryFolder;

const fs::path kBad = fs::path(GP_BINARY_DIR) / "tests" / "bad_plugins";
const fs::path kShipped = fs::path(GP_BINARY_DIR) / "lib" / "gan-pipeline" / "plugins";

/// The text of the PluginError that loading ends with.
std::string load_error(PluginLoader& loader, const std::string& name, StageRegistry& registry) {
  try {
    loader.load_plugin(name, registry);
  } catch (const PluginError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kPlugin);
    return error.what();
  }
  ADD_FAILURE() << name << " was loaded";
  return {};
}
std::string load_error(const std::string& name) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  const std::string text = load_error(loader, name, registry);
  EXPECT_TRUE(registry.list().empty()) << "left stages behind";
  EXPECT_TRUE(loader.loaded().empty());
  return text;
}

std::string module_error(const std::string& name) {
  PluginLoader loader;
  StageRegistry registry;
  try {
    loader.load_module(name, registry);
  } catch (const PluginError& error) {
    EXPECT_TRUE(registry.list().empty());
    return error.what();
  }
  ADD_FAILURE() << name << " was loaded";
  return {};
}

TEST(PluginLoader, FindsShippedPluginsWithoutBeingToldWhere) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_plugin("augment_flip", registry);
  const StageInfo* flip = registry.find("augment.flip");
  ASSERT_NE(flip, nullptr);
  EXPECT_EQ(flip->origin, fs::canonical(kShipped / "augment_flip.so"));
  EXPECT_EQ(flip->in, Kind::kImage);
  EXPECT_EQ(flip->out, Kind::kImage);
  EXPECT_TRUE(flip->random);
  EXPECT_TRUE(flip->geometric);
  ASSERT_EQ(loader.loaded().size(), 1U);
  EXPECT_EQ(loader.loaded()[0].name, "augment_flip");
  EXPECT_EQ(loader.loaded()[0].version, "1.0.0");
  EXPECT_EQ(loader.loaded()[0].file, fs::canonical(kShipped / "augment_flip.so"));
  const std::string digest = sha256_file(kShipped / "augment_flip.so");
  EXPECT_EQ(loader.loaded()[0].sha256, digest);
  EXPECT_EQ(flip->identity, "augment_flip 1.0.0, SHA-256 " + digest);
}

TEST(PluginLoader, LoadingTwiceIsLoadingOnce) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_plugin("augment_flip", registry);
  loader.load_plugin("augment_flip", registry);
  loader.load_plugin((kShipped / "." / "augment_flip.so").string(), registry);
  EXPECT_EQ(loader.loaded().size(), 1U);
}

TEST(PluginLoader, SearchesTheGivenFoldersThenTheEnvironmentThenItsOwn) {
  const TemporaryFolder first;
  const fs::path second = first.path() / "second";
  fs::create_directories(second);
  const ScopedVariable variable("GAN_PIPELINE_PLUGIN_PATH", (":" + second.string() + ":").c_str());
  fs::copy(kBad / "twin_a.so", first.path() / "a.so");
  fs::copy(kBad / "twin_b.so", second / "a.so");
  fs::copy(kBad / "twin_b.so", second / "b.so");
  PluginLoader loader({first.path()});
  StageRegistry registry;
  loader.load_plugin("a", registry);
  EXPECT_NE(registry.find("twin.a"), nullptr);
  EXPECT_EQ(registry.find("twin.b"), nullptr);
  loader.load_plugin("b", registry);
  EXPECT_NE(registry.find("twin.b"), nullptr);

  const std::vector<std::string> names = loader.available_plugins();
  for (const char* name : {"a", "b", "augment_affine", "augment_flip"}) {
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
  }
}

TEST(PluginLoader, MissingFileListsTheFoldersTried) {
  const ScopedVariable variable("GAN_PIPELINE_PLUGIN_PATH", "/nowhere/one:/nowhere/two");
  const std::string text = load_error("augment_flop");
  EXPECT_CONTAINS(text, "augment_flop.so");
  EXPECT_CONTAINS(text, kBad.string());
  EXPECT_CONTAINS(text, "/nowhere/one\n");
  EXPECT_CONTAINS(text, "/nowhere/two\n");
  EXPECT_CONTAINS(text, kShipped.string());
  EXPECT_CONTAINS(text, "--plugin-path");
  EXPECT_CONTAINS(load_error("./augment_flop.so"), fs::current_path().string());
  EXPECT_CONTAINS(load_error("augment_flip.so"), "without .so");
}

TEST(PluginLoader, RefusesAFileThatIsNoSharedObject) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "text.so")
      << "This is not a library, however long it may be. " << std::string(200, '.');
  std::ofstream(folder.path() / "empty.so").flush();
  fs::create_directory(folder / "folder.so");
  for (const char* name : {"text", "empty", "folder"}) {
    const std::string file = (folder.path() / (std::string(name) + ".so")).string();
    const std::string text = load_error(file);
    EXPECT_CONTAINS(text, file);
    EXPECT_CONTAINS(text, "cannot be loaded");
    EXPECT_CONTAINS(text, "Expected a shared library");
  }
}

TEST(PluginLoader, RefusesATruncatedFileWithoutCrashing) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "cut.so";
  for (const int size : {64, 100, 1000, 5000, 12000}) {
    fs::copy(kShipped / "augment_flip.so", file, fs::copy_options::overwrite_existing);
    ASSERT_GT(fs::file_size(file), 12000U);
    fs::resize_file(file, size);
    const std::string text = load_error(file.string());
    EXPECT_CONTAINS(text, "is truncated");
    EXPECT_CONTAINS(text, "it has " + std::to_string(size) + " bytes");
  }
}

TEST(PluginLoader, RefusesAFileWithoutEntry) {
  const std::string text = load_error("no_entry");
  EXPECT_CONTAINS(text, (kBad / "no_entry.so").string());
  EXPECT_CONTAINS(text, "does not export gp_plugin_entry");
}

TEST(PluginLoader, TellsPluginsAndModulesApart) {
  EXPECT_CONTAINS(load_error("module_good"), "is a stage module, not a plugin");
  EXPECT_CONTAINS(load_error("module_good"), "`modules:`");
  const std::string plugin = module_error((kShipped / "augment_flip.so").string());
  EXPECT_CONTAINS(plugin, "is a plugin, not a stage module");
  EXPECT_CONTAINS(plugin, "`plugins:`");
}

TEST(PluginLoader, NamesBothVersionsWhenTheyDoNotFit) {
  const std::string major = load_error("wrong_major");
  EXPECT_CONTAINS(major, "ABI 99.0");
  EXPECT_CONTAINS(major, "ABI 1.0");
  EXPECT_CONTAINS(major, "must be equal");
  const std::string minor = load_error("newer_minor");
  EXPECT_CONTAINS(minor, "ABI 1.99");
  EXPECT_CONTAINS(minor, "ABI 1.0");
  EXPECT_CONTAINS(minor, "update gan-pipeline");
}

TEST(PluginLoader, RefusesStructsThatAreTooSmall) {
  const std::string entry = load_error("small_entry");
  EXPECT_CONTAINS(entry, "24 bytes");
  EXPECT_CONTAINS(entry, "sizeof(gp_plugin)");
  const std::string stage = load_error("small_stage");
  EXPECT_CONTAINS(stage, "32 bytes");
  EXPECT_CONTAINS(stage, "sizeof(gp_stage)");
}

TEST(PluginLoader, DuplicateStageNamesBothOrigins) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("augment_flip", registry);
  const std::string text = load_error(loader, "duplicate_stage", registry);
  EXPECT_CONTAINS(text, "'augment.flip'");
  EXPECT_CONTAINS(text, (kShipped / "augment_flip.so").string());
  EXPECT_CONTAINS(text, (kBad / "duplicate_stage.so").string());
  EXPECT_EQ(registry.list().size(), 1U);
  EXPECT_CONTAINS(load_error("stage_twice"), "lists the stage 'bad.stage' twice");
}

TEST(PluginLoader, GivesTheLinkersTextForAnUnresolvedSymbol) {
  const std::string text = load_error("unresolved_symbol");
  EXPECT_CONTAINS(text, "undefined symbol: a_function_that_nobody_has");
  EXPECT_CONTAINS(text, "Link it with the library");
}

TEST(PluginLoader, RefusesABadDefault) {
  const std::string text = load_error("bad_default");
  EXPECT_CONTAINS(text, "plugin 'bad_plugin'");
  EXPECT_CONTAINS(text, "'bad.stage'");
  EXPECT_CONTAINS(text, "p = 1.5 is outside [0, 1]");
}

TEST(PluginLoader, ReportsACreateThatFails) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("create_fails", registry);
  try {
    make_transform(*registry.find("bad.stage"));
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_CONTAINS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_CONTAINS(std::string(error.what()), "no table for this machine");
  }
}

TEST(PluginLoader, ReportsABadStatus) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("bad_status", registry);
  const auto stage = make_transform(*registry.find("bad.stage"));
  try {
    run_stage(*stage, noise_image(4, 4).view(), Rng(1, "test", 0));
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_CONTAINS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_CONTAINS(std::string(error.what()), "returned the status 42");
  }
}

TEST(PluginLoader, NamesThePluginThatWritesOutsideItsOutput) {
  const ScopedVariable variable("GAN_PIPELINE_CHECK_PLUGINS", "1");
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("writes_outside", registry);
  const auto stage = make_transform(*registry.find("bad.stage"));
  try {
    run_stage(*stage, noise_image(4, 4).view(), Rng(1, "test", 0));
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_CONTAINS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_CONTAINS(std::string(error.what()), "wrote outside its output image");
  }
}

/// The message of the fault when the only stage of a bad plugin is made and run.
template <class Fault>
std::string run_error(const std::string& name, const std::string& stage_name = "bad.stage") {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin(name, registry);
  try {
    const auto stage = make_transform(*registry.find(stage_name));
    run_stage(*stage, noise_image(4, 4).view(), Rng(1, "test", 0));
  } catch (const Fault& error) {
    return error.what();
  }
  ADD_FAILURE() << name << " did nothing wrong";
  return {};
}

TEST(PluginLoader, ReportsAnOutputOfTheWrongSize) {
  EXPECT_CONTAINS(
      run_error<PluginError>("wrong_size"),
      "output_shape made -3x4 pixels (width x height) out of 4x4; expected 1 to 65536 a side");
  EXPECT_CONTAINS(run_error<PluginError>("huge_size"), "made 1000000x4 pixels");
}

TEST(PluginLoader, ReportsWhatPluginsThrow) {
  EXPECT_CONTAINS(run_error<PluginError>("throws_in_init", "bad.throwing"),
                  "can't be made: the table needs more memory than there is");
  // From process it is about this sample.
  EXPECT_EQ(run_error<SampleError>("throws_in_process", "bad.throwing"), "too dark");
  EXPECT_EQ(run_error<SampleError>("throws_an_int", "bad.throwing"),
            "the plugin threw something that is no std::exception");
  const std::string across = run_error<PluginError>("throws_across", "bad.throwing");
  EXPECT_CONTAINS(across, "let an exception out of the C interface: nobody caught me");
  EXPECT_CONTAINS(across, "must catch it and return GP_ERROR");
}

// ---- In a process of its own.

std::string examine_error(const std::string& name,
                          std::chrono::milliseconds limit = std::chrono::seconds(60)) {
  try {
    examine_plugin(kBad / (name + ".so"), false, limit);
  } catch (const PluginError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kPlugin);
    return error.what();
  }
  ADD_FAILURE() << name << " passed";
  return {};
}

TEST(ExaminePlugin, DescribesAndTriesEachStage) {
  const std::string text = examine_plugin(kShipped / "augment_affine.so", false);
  EXPECT_CONTAINS(
      text, "plugin augment_affine 1.0.0, ABI 1.0\n  " + (kShipped / "augment_affine.so").string());
  EXPECT_CONTAINS(text, "\naugment.affine\n");
  EXPECT_CONTAINS(text, "Tried on 48x32 pixels with its defaults: 48x32, changed\n");
  EXPECT_CONTAINS(examine_plugin(kShipped / "augment_flip.so", true), "\"abi\": \"1.0\"");
}

TEST(ExaminePlugin, SurvivesWhateverThePluginDoes) {
  const std::string crash = examine_error("crashes_on_load");
  EXPECT_CONTAINS(crash, "crashes_on_load.so");
  EXPECT_CONTAINS(crash, "while it was loaded");
  EXPECT_CONTAINS(examine_error("crashes_in_process"), "while its stage 'bad.stage' was tried");
  EXPECT_CONTAINS(
      examine_error("exits_on_load"),
      "ended the process while it was loaded (exit code 7); a plugin must return instead");
  EXPECT_CONTAINS(examine_error("hangs_on_load", std::chrono::milliseconds(500)),
                  "did not come to an end while it was loaded; it was given 0.50 s");
#if !defined(__SANITIZE_ADDRESS__)  // which turns a signal into an exit
  EXPECT_CONTAINS(crash, "crashed while it was loaded: signal 11 (Segmentation fault)");
#endif
}

TEST(ExaminePlugin, ReportsWhatLoadingAndRunningReport) {
  EXPECT_CONTAINS(examine_error("wrong_major"), "was built for plugin ABI 99.0");
  EXPECT_CONTAINS(examine_error("writes_outside"), "wrote outside its output image");
  EXPECT_CONTAINS(examine_error("bad_status"), "returned the status 42");
  EXPECT_CONTAINS(examine_error("create_fails"), "no table for this machine");
  EXPECT_CONTAINS(examine_error("throws_across"), "let an exception out");
  EXPECT_CONTAINS(examine_error("not_there"), "there is no such file");
  EXPECT_CONTAINS(examine_plugin(kBad / "throws_in_process.so", false), "refused, too dark");
}

TEST(PluginLoader, KeepsPluginsWithStructsOfTheSameNameApart) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("twin_a", registry);
  loader.load_plugin("twin_b", registry);
  const Image in = noise_image(2, 2);
  for (const auto& [name, gray] : {std::pair{"twin.a", 10}, std::pair{"twin.b", 20}}) {
    const auto stage = make_transform(*registry.find(name));
    EXPECT_EQ(run_stage(*stage, in.view(), Rng(1, "test", 0)).image.pixels()[5], gray);
  }
}

TEST(ModuleLoader, LoadsAModuleAndItsStagesWork) {
  PluginLoader loader;
  StageRegistry registry;
  const std::string file = (kBad / "module_good.so").string();
  loader.load_module(file, registry);
  loader.load_module(file, registry);
  ASSERT_NE(registry.find("test.brighten"), nullptr);
  EXPECT_EQ(registry.find("test.brighten")->origin, file);
  EXPECT_EQ(registry.find("test.brighten")->identity, "module_good, SHA-256 " + sha256_file(file));
  EXPECT_EQ(loader.loaded().size(), 1U);
  const auto stage = make_transform(*registry.find("test.brighten"));
  EXPECT_EQ(run_stage(*stage, Image(2, 2).view(), Rng(1, "test", 0)).image.pixels()[0], 1);
}

TEST(StageTester, RunsStagesOfPluginsAndModules) {
  const Image in = noise_image(3, 4);
  const auto module = StageTester::module(kBad / "module_good.so");
  EXPECT_EQ(module.run("test.brighten", {}, Image(2, 2).view()).image.pixels()[0], 1);
  const auto plugin = StageTester::plugin(kShipped / "augment_flip.so");
  EXPECT_EQ(plugin.run("augment.flip", {{"p", 0.0}}, in.view()).image.pixels(), in.pixels());
  EXPECT_NE(plugin.run("augment.flip", {{"p", 1.0}}, in.view()).image.pixels(), in.pixels());
  EXPECT_THROW(plugin.run("augment.flip", {{"p", 2.0}}, in.view()), ConfigError);
  try {
    plugin.run("augment.flop", {}, in.view());
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_CONTAINS(error.what(), "no stage 'augment.flop' in this library; it has augment.flip");
  }
  // With guards, also in builds without assertions.
  const auto bad = StageTester::plugin(kBad / "writes_outside.so");
  EXPECT_THROW(bad.run("bad.stage", {}, in.view()), PluginError);
}

TEST(ModuleLoader, NamesBothBuildsWhenTheyDiffer) {
  const std::string text = module_error((kBad / "module_stale.so").string());
  EXPECT_CONTAINS(text, "gan-pipeline 0.0.1, made yesterday");
  EXPECT_CONTAINS(text, GP_BUILD_ID);
  EXPECT_CONTAINS(text, "build the module again");
}

TEST(ModuleLoader, ReportsAModuleThatThrows) {
  const std::string text = module_error((kBad / "module_throwing.so").string());
  EXPECT_CONTAINS(text, "module_throwing.so");
  EXPECT_CONTAINS(text, "the camera is not plugged in");
}

TEST(ModuleLoader, RefusesAFileWithoutEntryAndAMissingOne) {
  EXPECT_CONTAINS(module_error((kBad / "no_entry.so").string()),
                  "does not export gp_module_build_id");
  const std::string text = module_error("dta");
  EXPECT_CONTAINS(text, "libgp_stages_dta.so");
  EXPECT_CONTAINS(text, "lib/gan-pipeline/modules");
}

TEST(ModuleLoader, FindsTheShippedModuleOfAStage) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_modules_for({"image.crop", "image.resize"}, registry);
  EXPECT_NE(registry.find("image.crop"), nullptr);
  ASSERT_EQ(loader.loaded().size(), 1U);
  EXPECT_EQ(registry.find("image.crop")->identity, "") << "is this program's own";
  EXPECT_EQ(loader.loaded()[0].name, "data");
  EXPECT_EQ(loader.loaded()[0].version, GP_BUILD_ID);
}

TEST(ModuleLoader, SaysHowToGetTheTorchModule) {
  const fs::path file = fs::path(GP_BINARY_DIR) / "lib/gan-pipeline/modules/libgp_stages_torch.so";
  if (fs::exists(file)) GTEST_SKIP() << "this build has " << file;
  const std::string text = module_error("torch");
  EXPECT_CONTAINS(text, file.string());
  EXPECT_CONTAINS(text, "tools/bootstrap");
  EXPECT_CONTAINS(text, "-DGP_TORCH=ON");
}

TEST(ModuleLoader, LeavesNamesThatNoShippedModuleHas) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_modules_for({"augment.flip", "batch", "test.brighten"}, registry);
  EXPECT_TRUE(registry.list().empty());
}

}  // namespace
}  // namespace gp
