#include "pipeline/plugin_loader.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/build_id.hpp"
#include "pipeline/error.hpp"
#include "tests/support/run_stage.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::make_transform;
using testing::noise_image;
using testing::run_stage;

const fs::path kBad = fs::path(GP_BINARY_DIR) / "tests" / "bad_plugins";
const fs::path kShipped = fs::path(GP_BINARY_DIR) / "lib" / "gan-pipeline" / "plugins";

/// A folder that is gone after the test.
class ScratchFolder {
 public:
  ScratchFolder() : path_(fs::temp_directory_path() / ("gp_plugins_" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~ScratchFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Sets an environment variable until the end of the block.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

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

#define EXPECT_HAS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << "looked for: " << (part) << "\nin: " << (text)

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
  const ScratchFolder first;
  const fs::path second = first.path() / "second";
  fs::create_directories(second);
  const ScopedVariable variable("GAN_PIPELINE_PLUGIN_PATH", ":" + second.string() + ":");
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
  EXPECT_HAS(text, "augment_flop.so");
  EXPECT_HAS(text, kBad.string());
  EXPECT_HAS(text, "/nowhere/one\n");
  EXPECT_HAS(text, "/nowhere/two\n");
  EXPECT_HAS(text, kShipped.string());
  EXPECT_HAS(text, "--plugin-path");
  EXPECT_HAS(load_error("./augment_flop.so"), fs::current_path().string());
  EXPECT_HAS(load_error("augment_flip.so"), "without .so");
}

TEST(PluginLoader, RefusesAFileThatIsNoSharedObject) {
  const ScratchFolder folder;
  std::ofstream(folder.path() / "text.so")
      << "This is not a library, however long it may be. " << std::string(200, '.');
  std::ofstream(folder.path() / "empty.so").flush();
  for (const char* name : {"text", "empty"}) {
    const std::string file = (folder.path() / (std::string(name) + ".so")).string();
    const std::string text = load_error(file);
    EXPECT_HAS(text, file);
    EXPECT_HAS(text, "cannot be loaded");
    EXPECT_HAS(text, "Expected a shared library");
  }
}

TEST(PluginLoader, RefusesATruncatedFileWithoutCrashing) {
  const ScratchFolder folder;
  const fs::path file = folder.path() / "cut.so";
  for (const int size : {64, 100, 1000, 5000, 12000}) {
    fs::copy(kShipped / "augment_flip.so", file, fs::copy_options::overwrite_existing);
    ASSERT_GT(fs::file_size(file), 12000U);
    fs::resize_file(file, size);
    const std::string text = load_error(file.string());
    EXPECT_HAS(text, "is truncated");
    EXPECT_HAS(text, "it has " + std::to_string(size) + " bytes");
  }
}

TEST(PluginLoader, RefusesAFileWithoutEntry) {
  const std::string text = load_error("no_entry");
  EXPECT_HAS(text, (kBad / "no_entry.so").string());
  EXPECT_HAS(text, "does not export gp_plugin_entry");
}

TEST(PluginLoader, NamesBothVersionsWhenTheyDoNotFit) {
  const std::string major = load_error("wrong_major");
  EXPECT_HAS(major, "ABI 99.0");
  EXPECT_HAS(major, "ABI 1.0");
  EXPECT_HAS(major, "must be equal");
  const std::string minor = load_error("newer_minor");
  EXPECT_HAS(minor, "ABI 1.99");
  EXPECT_HAS(minor, "ABI 1.0");
  EXPECT_HAS(minor, "update gan-pipeline");
}

TEST(PluginLoader, RefusesStructsThatAreTooSmall) {
  const std::string entry = load_error("small_entry");
  EXPECT_HAS(entry, "24 bytes");
  EXPECT_HAS(entry, "sizeof(gp_plugin)");
  const std::string stage = load_error("small_stage");
  EXPECT_HAS(stage, "32 bytes");
  EXPECT_HAS(stage, "sizeof(gp_stage)");
}

TEST(PluginLoader, DuplicateStageNamesBothOrigins) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("augment_flip", registry);
  const std::string text = load_error(loader, "duplicate_stage", registry);
  EXPECT_HAS(text, "'augment.flip'");
  EXPECT_HAS(text, (kShipped / "augment_flip.so").string());
  EXPECT_HAS(text, (kBad / "duplicate_stage.so").string());
  EXPECT_EQ(registry.list().size(), 1U);
  EXPECT_HAS(load_error("stage_twice"), "lists the stage 'bad.stage' twice");
}

TEST(PluginLoader, GivesTheLinkersTextForAnUnresolvedSymbol) {
  const std::string text = load_error("unresolved_symbol");
  EXPECT_HAS(text, "undefined symbol: a_function_that_nobody_has");
  EXPECT_HAS(text, "Link it with the library");
}

TEST(PluginLoader, RefusesABadDefault) {
  const std::string text = load_error("bad_default");
  EXPECT_HAS(text, "plugin 'bad_plugin'");
  EXPECT_HAS(text, "'bad.stage'");
  EXPECT_HAS(text, "p = 1.5 is outside [0, 1]");
}

TEST(PluginLoader, ReportsACreateThatFails) {
  PluginLoader loader({kBad});
  StageRegistry registry;
  loader.load_plugin("create_fails", registry);
  try {
    make_transform(*registry.find("bad.stage"));
    FAIL();
  } catch (const PluginError& error) {
    EXPECT_HAS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_HAS(std::string(error.what()), "no table for this machine");
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
    EXPECT_HAS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_HAS(std::string(error.what()), "returned the status 42");
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
    EXPECT_HAS(std::string(error.what()), "plugin 'bad_plugin'");
    EXPECT_HAS(std::string(error.what()), "wrote outside its output image");
  }
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
  EXPECT_EQ(loader.loaded().size(), 1U);
  const auto stage = make_transform(*registry.find("test.brighten"));
  EXPECT_EQ(run_stage(*stage, Image(2, 2).view(), Rng(1, "test", 0)).image.pixels()[0], 1);
}

TEST(ModuleLoader, NamesBothBuildsWhenTheyDiffer) {
  const std::string text = module_error((kBad / "module_stale.so").string());
  EXPECT_HAS(text, "gan-pipeline 0.0.1, made yesterday");
  EXPECT_HAS(text, GP_BUILD_ID);
  EXPECT_HAS(text, "build the module again");
}

TEST(ModuleLoader, ReportsAModuleThatThrows) {
  const std::string text = module_error((kBad / "module_throwing.so").string());
  EXPECT_HAS(text, "module_throwing.so");
  EXPECT_HAS(text, "the camera is not plugged in");
}

TEST(ModuleLoader, RefusesAPluginAndAMissingFile) {
  EXPECT_HAS(module_error((kShipped / "augment_flip.so").string()),
             "does not export gp_module_build_id");
  const std::string text = module_error("dta");
  EXPECT_HAS(text, "libgp_stages_dta.so");
  EXPECT_HAS(text, "lib/gan-pipeline/modules");
}

TEST(ModuleLoader, FindsTheShippedModuleOfAStage) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_modules_for({"image.crop", "image.resize"}, registry);
  EXPECT_NE(registry.find("image.crop"), nullptr);
  ASSERT_EQ(loader.loaded().size(), 1U);
  EXPECT_EQ(loader.loaded()[0].name, "data");
  EXPECT_EQ(loader.loaded()[0].version, GP_BUILD_ID);
}

TEST(ModuleLoader, SaysHowToGetTheTorchModule) {
  const fs::path file = fs::path(GP_BINARY_DIR) / "lib/gan-pipeline/modules/libgp_stages_torch.so";
  if (fs::exists(file)) GTEST_SKIP() << "this build has " << file;
  const std::string text = module_error("torch");
  EXPECT_HAS(text, file.string());
  EXPECT_HAS(text, "tools/bootstrap");
  EXPECT_HAS(text, "-DGP_TORCH=ON");
}

TEST(ModuleLoader, LeavesNamesThatNoShippedModuleHas) {
  PluginLoader loader;
  StageRegistry registry;
  loader.load_modules_for({"augment.flip", "batch", "test.brighten"}, registry);
  EXPECT_TRUE(registry.list().empty());
}

}  // namespace
}  // namespace gp
