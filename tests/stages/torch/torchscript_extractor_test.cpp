#include "stages/torch/torchscript_extractor.hpp"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/run_tool.hpp"
#include "tests/support/scoped_variable.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

class TorchScriptExtractorTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  /// A file whose forward() is `body`, with a parameter `weight` [3,5] that counts up.
  fs::path script(const std::string& body) {
    torch::jit::Module module("Net");
    module.register_parameter("weight", at::arange(15, at::kFloat).view({3, 5}), false);
    module.define("def forward(self, x: Tensor):\n    " + body + "\n");
    const fs::path file = folder_.path() / "my_net.pt";
    module.save(file.string());
    return file;
  }
  std::string refusal(const fs::path& file) {
    try {
      make_feature_extractor("torchscript", file, "", {8, 0, 1});
    } catch (const DataError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  testing::TemporaryFolder folder_;
};

TEST_F(TorchScriptExtractorTest, GivesWhatForwardReturnsOfImagesInItsSizeAndRange) {
  const fs::path file = script("return torch.matmul(x.mean([2, 3]), self.weight)");
  const auto extractor = make_feature_extractor("torchscript", file, "", {8, -1, 1});
  EXPECT_EQ(extractor->name(), "torchscript");
  EXPECT_EQ(extractor->dimensions(), 5);
  EXPECT_EQ(extractor->digest(), sha256_file(file));
  EXPECT_EQ(extractor->distance(), "FD-my_net-" + sha256_file(file).substr(0, 8));
  EXPECT_CONTAINS(extractor->protocol().at("resize"), "8x8");
  EXPECT_CONTAINS(extractor->protocol().at("normalize"), "-1..1");

  const ImageShape shape{4, 6};  // grown to 8x8
  std::vector<std::uint8_t> images;
  for (int image = 0; image < 3; ++image) {
    for (int pixel = 0; pixel < 24; ++pixel) {
      for (const int level : {0, 51 * image, 255}) {
        images.push_back(static_cast<std::uint8_t>(level));
      }
    }
  }
  const at::Tensor means =
      at::tensor({-1.0F, -1.0F, 1.0F, -1.0F, -0.6F, 1.0F, -1.0F, -0.2F, 1.0F}).view({3, 3});
  const at::Tensor expected = at::mm(means, at::arange(15, at::kFloat).view({3, 5}));
  const at::Tensor found = extractor->features(images.data(), shape, 3);
  EXPECT_TRUE(at::allclose(found, expected, 1e-5, 1e-4)) << found << expected;
  for (int again = 0; again < 3; ++again) {  // the executor does not optimise meanwhile
    EXPECT_TRUE(at::equal(extractor->features(images.data(), shape, 3), found));
  }
  EXPECT_EQ(extractor->features(images.data(), shape, 0).sizes(), (at::IntArrayRef{0, 5}));
}

TEST_F(TorchScriptExtractorTest, RefusesWhatGivesNoFeatures) {
  EXPECT_CONTAINS(refusal(script("return x.mean([2])")),
                  "returns Float [2, 3, 8] for float [2, 3, 8, 8]; expected features, a float "
                  "tensor [2, D]");
  EXPECT_CONTAINS(refusal(script("return x.mean([0, 2, 3])")), "returns Float [3]");
  EXPECT_CONTAINS(refusal(script("return (x, x)")), "returns a Tuple");
  EXPECT_CONTAINS(refusal(script("return x.view(2, -1) > 0")), "returns Bool [2, 192]");
  EXPECT_CONTAINS(refusal(script("return 1 / x.view(2, -1)")), "NaN or infinity");
  EXPECT_CONTAINS(refusal(script("return x.view(2, 7)")),
                  "its forward() fails on float [2, 3, 8, 8]");
  const fs::path text = folder_.path() / "text.pt";
  write_file(text, std::string_view("no program"));
  EXPECT_CONTAINS(refusal(text), "text.pt: cannot be loaded as TorchScript");
}

TEST_F(TorchScriptExtractorTest, ARunMeasuresByIt) {
  const fs::path file = script("return torch.matmul(x.mean([2, 3]), self.weight)");
  write_file(folder_ / "tiny.yaml",
             "name: tiny\nstages:\n"
             "  - {use: source.synthetic, size: 16, draws: 16}\n"
             "  - {use: batch, size: 8}\n"
             "  - {use: train.dcgan, epochs: 1, channels: 4, max_channels: 8}\n"
             "  - {use: evaluate.quality, n_fake: 12, extractor: torchscript, weights: '" +
                 file.string() + "', input_size: 32, input_range: [0, 1]}\n");
  const testing::ScopedVariable cache("GAN_PIPELINE_CACHE", (folder_ / "cache").c_str());
  const testing::ToolResult result =
      testing::run_tool("gan-pipeline", "run '" + (folder_ / "tiny.yaml").string() + "' --out '" +
                                            (folder_ / "runs").string() + "' --threads 1");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto record =
      nlohmann::json::parse(read_text(folder_ / "runs/00000-tiny/evaluation.jsonl"));
  EXPECT_EQ(record.at("extractor"), "torchscript");
  EXPECT_EQ(record.at("metrics").at("name"), "FD-my_net-" + sha256_file(file).substr(0, 8));
  EXPECT_EQ(record.at("digests").at("extractor"), sha256_file(file));
  EXPECT_GT(record.at("metrics").at("frechet_distance"), 0);
  EXPECT_CONTAINS(record.at("protocol").at("normalize").get<std::string>(), "0..1");
}

TEST_F(TorchScriptExtractorTest, NeedsItsFile) {
  try {
    find_weights("torchscript", {});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_CONTAINS(error.what(), "`weights`");
  }
  EXPECT_THROW(check_feature_protocol("torchscript", "clean"), ConfigError);
}

}  // namespace
}  // namespace gp
