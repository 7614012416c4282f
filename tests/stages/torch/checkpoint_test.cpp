#include "stages/torch/checkpoint.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/torch/dcgan_trainer.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    run_ = fs::temp_directory_path() /
           ("gp_checkpoint_" +
            std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + "_" +
            std::to_string(::getpid()));
    fs::remove_all(run_);
    fs::create_directories(run_);
    config_.resolution = 16;
    config_.latent = 4;
    config_.channels = 2;
    config_.channels_d = 3;
    config_.dropout = 0.125;
  }
  void TearDown() override { fs::remove_all(run_); }

  Checkpoint make(std::uint64_t step) const {
    DcganTrainer trainer(config_, TrainerOptions{});
    Checkpoint checkpoint;
    for (const auto& [name, tensor] : trainer.state()) {
      checkpoint.tensors[name] = tensor.detach().clone();
    }
    checkpoint.info.model = config_;
    checkpoint.info.step = step;
    checkpoint.info.position.epoch = 3;
    checkpoint.info.position.next = 64;
    checkpoint.info.position.images = 1234;
    checkpoint.info.seed = 0xFFFFFFFFFFFFFFFFULL;
    checkpoint.info.config_yaml = "abc";
    checkpoint.info.data_digest = "def";
    checkpoint.info.source_digest = "ghi";
    checkpoint.info.position.counts = {70, 64, 4, 2, 0};
    checkpoint.info.threads = 2;
    GanStep measured;
    measured.loss_g = 1.0f / 3;
    checkpoint.info.progress = {1568, 5, {}, {}, 7, 1};
    checkpoint.info.progress.epoch.add(measured, 8);
    return checkpoint;
  }
  CheckpointFolder folder() const { return CheckpointFolder(run_ / "checkpoints"); }

  static std::string error_of(const std::function<void()>& call) {
    try {
      call();
    } catch (const DataError& error) {
      return error.what();
    }
    return "no DataError";
  }

  fs::path run_;
  DcganConfig config_;
};

#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(CheckpointTest, ComesBackAsItWas) {
  const Checkpoint saved = make(1570);
  const fs::path file = folder().save(saved, 2);
  EXPECT_EQ(file.filename(), "step-00001570.safetensors");
  for (const fs::path& path : {file, run_}) {
    const Checkpoint loaded = load_checkpoint(path);
    EXPECT_EQ(loaded.info.step, 1570u);
    EXPECT_EQ(loaded.info.position.epoch, 3u);
    EXPECT_EQ(loaded.info.position.next, 64u);
    EXPECT_EQ(loaded.info.position.images, 1234u);
    EXPECT_EQ(loaded.info.seed, 0xFFFFFFFFFFFFFFFFULL);
    EXPECT_EQ(loaded.info.config_yaml, "abc");
    EXPECT_EQ(loaded.info.data_digest, "def");
    EXPECT_EQ(loaded.info.source_digest, "ghi");
    EXPECT_EQ(loaded.info.position, saved.info.position);
    EXPECT_EQ(loaded.info.threads, 2);
    EXPECT_EQ(loaded.info.progress.metrics_step, 1568u);
    EXPECT_EQ(loaded.info.progress.rejects, 5u);
    EXPECT_EQ(loaded.info.progress.bad_steps, 7u);
    EXPECT_EQ(loaded.info.progress.bad_in_a_row, 1);
    EXPECT_EQ(loaded.info.progress.epoch.loss_g(), double{1.0f / 3});
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).resolution, 16);
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).latent, 4);
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).channels, 2);
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).channels_d, 3);
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).max_channels, 512);
    EXPECT_EQ(std::get<DcganConfig>(loaded.info.model).dropout, 0.125);
    ASSERT_EQ(loaded.tensors.size(), saved.tensors.size());
    for (const auto& [name, tensor] : saved.tensors) {
      EXPECT_TRUE(at::equal(loaded.tensors.at(name), tensor)) << name;
    }
    Generator generator(config_);
    load_state(*generator, loaded, "G", "test");
    EXPECT_TRUE(at::equal(generator->named_parameters()["dense.weight"],
                          saved.tensors.at("G.dense.weight")));
  }
  // Every piece of state has its place.
  for (const char* name :
       {"G.block0_norm.running_var", "D.dense.bias", "optimizer_G.steps",
        "optimizer_D.exp_avg.block1_conv.weight", "optimizer_G.exp_avg_sq.image.bias"}) {
    EXPECT_EQ(saved.tensors.count(name), 1u) << name;
  }
}

TEST_F(CheckpointTest, OnlyTheNewestAreKept) {
  for (const std::uint64_t step : {10u, 20u, 30u}) folder().save(make(step), 2);
  const auto index = folder().index();
  ASSERT_EQ(index.size(), 2u);
  EXPECT_EQ(index[0].step, 20u);
  EXPECT_EQ(index[1].file, "step-00000030.safetensors");
  EXPECT_EQ(index[1].size, fs::file_size(folder().newest()));
  EXPECT_EQ(index[1].sha256, sha256_file(folder().newest()));
  EXPECT_FALSE(fs::exists(run_ / "checkpoints/step-00000010.safetensors"));
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/step-00000020.safetensors"));
}

TEST_F(CheckpointTest, SomeAreKeptBesideTheNewest) {
  for (const std::uint64_t step : {10u, 20u, 30u, 40u}) folder().save(make(step), 1, {10, 30});
  const auto steps = [&] {
    std::vector<std::uint64_t> all;
    for (const auto& entry : folder().index()) all.push_back(entry.step);
    return all;
  };
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{10, 30, 40}));
  folder().prune(1, {30});
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{30, 40}));
  EXPECT_FALSE(fs::exists(run_ / "checkpoints/step-00000010.safetensors"));
  // A training that went on from before them makes those of later steps worthless.
  folder().save(make(25), 2);
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{25}));
  EXPECT_FALSE(fs::exists(run_ / "checkpoints/step-00000040.safetensors"));
}

TEST_F(CheckpointTest, AFileOutsideTheIndexIsNotTheNewest) {
  const fs::path file = folder().save(make(10), 2);
  fs::copy(file, run_ / "checkpoints/step-00000099.safetensors");
  EXPECT_EQ(folder().newest(), file);
}

TEST_F(CheckpointTest, ChangedBytesAreNoticed) {
  const fs::path file = folder().save(make(10), 2);
  {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(-1, std::ios::end);
    stream.put('\x7F');
  }
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(file); }), "SHA-256");
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_); }), file.string());
}

TEST_F(CheckpointTest, TruncationIsNoticedWithAndWithoutTheIndex) {
  const fs::path file = folder().save(make(10), 2);
  fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(file); }), "cut off");
  fs::remove(run_ / "checkpoints/index.json");
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(file); }), file.string());
}

TEST_F(CheckpointTest, MissingAndMisshapenTensorsAreNamed) {
  Checkpoint checkpoint = make(10);
  Generator generator(config_);
  checkpoint.tensors["G.image.weight"] = at::zeros({3, 2, 5, 5});
  EXPECT_MENTIONS(error_of([&] { load_state(*generator, checkpoint, "G", "here"); }),
                  "'G.image.weight'");
  checkpoint.tensors["G.image.weight"] = at::zeros({3, 2, 3, 3}, at::kHalf);
  EXPECT_MENTIONS(error_of([&] { load_state(*generator, checkpoint, "G", "here"); }), "Half");
  checkpoint.tensors.erase("G.image.weight");
  const std::string text = error_of([&] { load_state(*generator, checkpoint, "G", "here"); });
  EXPECT_MENTIONS(text, "here: tensor 'G.image.weight' is missing");
}

TEST_F(CheckpointTest, WhatIsNoCheckpointIsRefusedWithAReason) {
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_); }), "no checkpoint here");
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_ / "none.safetensors"); }),
                  "there is no such checkpoint");
  write_safetensors(run_ / "other.safetensors", {{{"a", at::zeros({2})}}, {}});
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_ / "other.safetensors"); }),
                  "__metadata__.gan_pipeline");

  const fs::path file = folder().save(make(10), 2);
  const Safetensors good = read_safetensors(file);
  const auto with_metadata = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json metadata = nlohmann::json::parse(good.metadata.at("gan_pipeline"));
    change(metadata);
    Safetensors bad = good;
    bad.metadata["gan_pipeline"] = metadata.dump();
    write_safetensors(run_ / "bad.safetensors", bad);
    return error_of([&] { load_checkpoint(run_ / "bad.safetensors"); });
  };
  EXPECT_MENTIONS(with_metadata([](auto& m) { m["format"] = 2; }), "format is 2");
  EXPECT_EQ(with_metadata([](auto& m) { m["format"] = 3; }), "no DataError") << "it is a DCGAN";
  EXPECT_MENTIONS(with_metadata([](auto& m) { m["model"]["type"] = "vae"; }), "vae");
  EXPECT_MENTIONS(with_metadata([](auto& m) { m["model"]["resolution"] = 24; }), "power of two");
  EXPECT_MENTIONS(with_metadata([](auto& m) { m["model"]["channels"] = 1 << 20; }), "outside");
  EXPECT_MENTIONS(with_metadata([](auto& m) { m.erase("step"); }), "step");

  write_file(run_ / "checkpoints/index.json", std::string_view("{\"checkpoints\": 3}"));
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_); }), "index.json");
  write_file(run_ / "checkpoints/index.json",
             std::string_view("{\"checkpoints\": [{\"file\": \"../x\", \"size\": 1, \"sha256\": "
                              "\"\", \"step\": 1}]}"));
  EXPECT_MENTIONS(error_of([&] { load_checkpoint(run_); }), "no plain file name");
}

// --- Models of train.gan

GanConfig unusual_gan() {
  GanConfig config;
  config.resolution = 32;
  config.latent = 5;
  config.channels = 3;
  config.channels_d = 2;
  config.max_channels = 7;
  config.blocks = GanConfig::Blocks::kResidual;
  config.norm_g = GanConfig::Norm::kNone;
  config.norm_d = GanConfig::Norm::kBatch;
  config.dropout = 0.125;
  config.minibatch_stddev = true;
  config.classes = 9;
  config.growth = GanConfig::Growth::kPhases;
  config.first_resolution = 16;
  return config;
}

TEST(ModelJson, OfAGanComesBackAsItWas) {
  const auto json = model_json(unusual_gan());
  const auto read = std::get<GanConfig>(read_model(json));
  EXPECT_EQ(model_json(read), json);
  EXPECT_EQ(read.resolution, 32);
  EXPECT_EQ(read.latent, 5);
  EXPECT_EQ(read.channels, 3);
  EXPECT_EQ(read.channels_d, 2);
  EXPECT_EQ(read.max_channels, 7);
  EXPECT_EQ(read.blocks, GanConfig::Blocks::kResidual);
  EXPECT_EQ(read.norm_g, GanConfig::Norm::kNone);
  EXPECT_EQ(read.norm_d, GanConfig::Norm::kBatch);
  EXPECT_EQ(read.dropout, 0.125);
  EXPECT_TRUE(read.minibatch_stddev);
  EXPECT_EQ(read.classes, 9);
  EXPECT_EQ(read.growth, GanConfig::Growth::kPhases);
  EXPECT_EQ(read.first_resolution, 16);
  EXPECT_NE(model_json(GanConfig{}), json);
  EXPECT_EQ(model_json(read_model(model_json(GanConfig{}))), model_json(GanConfig{}));
}

TEST_F(CheckpointTest, ResidualAndGrowingNetworksOfTheFormatBeforeAreRefused) {
  GanConfig residual, growing;
  residual.blocks = GanConfig::Blocks::kResidual;
  growing.growth = GanConfig::Growth::kSkip;
  for (const GanConfig& config : {GanConfig(), residual, growing}) {
    Checkpoint checkpoint;
    checkpoint.info.model = config;
    Safetensors contents = read_safetensors(folder().save(checkpoint, 1));
    nlohmann::json metadata = nlohmann::json::parse(contents.metadata.at("gan_pipeline"));
    metadata["format"] = 3;
    contents.metadata["gan_pipeline"] = metadata.dump();
    write_safetensors(run_ / "old.safetensors", contents);
    const std::string error = error_of([&] { load_checkpoint(run_ / "old.safetensors"); });
    if (config.blocks == GanConfig::Blocks::kPlain && config.growth == GanConfig::Growth::kNone) {
      EXPECT_EQ(error, "no DataError");
    } else {
      EXPECT_MENTIONS(error, "its format is 3");
    }
  }
}

TEST_F(CheckpointTest, HostileValuesOfAGanAreNamed) {
  Checkpoint checkpoint;
  checkpoint.info.model = unusual_gan();
  checkpoint.info.class_names.resize(static_cast<std::size_t>(classes_of(checkpoint.info.model)));
  checkpoint.info.growth = {32, 0.25};
  const fs::path file = folder().save(checkpoint, 2);
  EXPECT_EQ(load_checkpoint(file).info.growth, (GrowthPoint{32, 0.25}));
  const Safetensors good = read_safetensors(file);
  const auto with = [&](const char* section, const char* name, const nlohmann::json& value) {
    nlohmann::json metadata = nlohmann::json::parse(good.metadata.at("gan_pipeline"));
    metadata[section][name] = value;
    Safetensors bad = good;
    bad.metadata["gan_pipeline"] = metadata.dump();
    write_safetensors(run_ / "bad.safetensors", bad);
    return error_of([&] { load_checkpoint(run_ / "bad.safetensors"); });
  };
  const std::vector<std::pair<const char*, std::vector<nlohmann::json>>> wrong = {
      {"resolution", {0, -16, 8, 24, 1024, 1LL << 40, (1LL << 32) + 32}},
      {"latent", {0, -1, 4097, 1LL << 32}},
      {"channels", {0, -1, 4097, 1LL << 32}},
      {"channels_d", {0, -1, 4097}},
      {"max_channels", {0, -1, 4097}},
      {"blocks", {"dense", ""}},
      {"norm_g", {"layer", "spectral"}},
      {"norm_d", {"layer", ""}},
      {"dropout", {-0.1, 1, 1.5, 1e300}},
      {"classes", {-1, 100001, 1LL << 32}},
      {"growth", {"fast", ""}},
      {"first_resolution", {0, 4, 24, 64, -8, 1LL << 32}}};
  for (const auto& [name, values] : wrong) {
    for (const nlohmann::json& value : values) {
      EXPECT_MENTIONS(with("model", name, value), std::string("model.") + name);
    }
  }
  for (const nlohmann::json& value :
       std::vector<nlohmann::json>{8, 24, 64, -1, 1LL << 32, (1LL << 32) + 32}) {
    EXPECT_MENTIONS(with("growth", "resolution", value), "growth.resolution = ");
  }
  for (const nlohmann::json& value : std::vector<nlohmann::json>{0, -0.5, 1.5, 1e300}) {
    EXPECT_MENTIONS(with("growth", "fade", value), "growth.fade = ");
  }
  // There is nothing to fade in from at the first resolution.
  EXPECT_MENTIONS(with("growth", "resolution", 16), "growth.fade = 0.25; 1 expected");
  EXPECT_MENTIONS(with("model", "growth", "skip"),
                  "growth.resolution = 32, and its model does not");
  EXPECT_EQ(with("growth", "fade", 0.5), "no DataError");
}

}  // namespace
}  // namespace gp
