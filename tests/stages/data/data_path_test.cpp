// The data path as a run sees it: YAML, modules and plugins that are opened at run time.

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <thread>

#include "pipeline/files.hpp"
#include "pipeline/runner.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/resize.hpp"
#include "tests/support/fake_stages.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using testing::Delivered;

const fs::path kPhotos = fs::path(GP_SOURCE_DIR) / "../shared/data/fgvc-aircraft-2013b";

/// Stands at the end of the list; the tests read the stream themselves.
class NoTrainer : public TrainStage {
 public:
  void run(EndContext&) override {}
  std::unique_ptr<Snapshot> load_snapshot(const RunInfo&, const fs::path&) override { return {}; }
};

class DataPath : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<LoadedConfig> load(const std::string& yaml) {
    const ConfigFile file = ConfigFile::parse(yaml, folder_ / "config.yaml");
    auto loaded = std::make_unique<LoadedConfig>();
    add_built_in_stages(loaded->registry);
    StageInfo end;
    end.name = "train.none";
    end.in = Kind::kBatch;
    end.out = Kind::kSnapshot;
    end.create = [](const Params&) { return std::make_unique<NoTrainer>(); };
    loaded->registry.add(end);
    for (const std::string& plugin : file.plugins()) {
      loaded->loader.load_plugin(plugin, loaded->registry);
    }
    loaded->loader.load_modules_for(file.stage_names(), loaded->registry);
    loaded->config = check_config(file, loaded->registry);
    return loaded;
  }
  /// What two epochs deliver.
  Delivered read(const std::string& source, int threads, const std::string& rest) {
    const auto loaded =
        load("seed: 3\nplugins: [augment_flip, augment_affine]\nstages:\n" + source + rest);
    const Pipeline pipeline(loaded->config);
    GraphOptions options;
    options.threads = threads;
    options.batch_size = 16;
    options.epochs = 2;
    GraphStream stream(*pipeline.data().source, *pipeline.data().chain, pipeline.data().order,
                       options);
    return testing::drain(stream);
  }

  fs::path folder_ = fs::temp_directory_path() / ("gp_data_path_" + std::to_string(::getpid()));
};

const std::string kAugment = R"(
  - {use: augment.flip, p: 0.5}
  - {use: augment.affine, translate: 0.05, rotate: 10, scale: 0.05}
  - {use: batch, size: 16}
  - {use: train.none}
)";
const std::string kPrepare = R"(
  - {use: image.decode}
  - {use: image.crop, bottom: 20}
  - {use: image.resize, size: 128}
)";

/// A copy of a few photos, one of them cut in half.
void make_folder(const fs::path& root, int count) {
  fs::create_directories(root);
  std::vector<fs::path> photos;
  for (const auto& entry : fs::directory_iterator(kPhotos / "data/images")) {
    photos.push_back(entry.path());
  }
  std::sort(photos.begin(), photos.end());
  for (int i = 0; i < count; ++i) fs::copy_file(photos[i], root / photos[i].filename());
  const fs::path broken = root / photos[3].filename();
  fs::resize_file(broken, fs::file_size(broken) / 2);
}

TEST_F(DataPath, BatchesFromJpegsAndFromTheirShardsAreByteEqualForAnyThreadCount) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  make_folder(folder_ / "photos", 50);
  const std::string jpegs = "  - {use: source.folder, root: photos}";
  const auto prepare =
      load("stages:\n" + jpegs + kPrepare + "  - {use: sink.shards, root: shards}\n");
  Log log;
  log.set_quiet(true);
  run_pipeline(*prepare, {{}, 0, {}}, log);

  const Delivered reference = read(jpegs, 1, kPrepare + kAugment);
  EXPECT_EQ(reference.batches, 6);
  EXPECT_EQ(reference.rejects.size(), 2U);  // the broken one, in both epochs
  const std::string shards = "  - {use: source.shards, root: shards}";
  for (const int threads : {2, 8}) {
    EXPECT_EQ(read(jpegs, threads, kPrepare + kAugment).pixels, reference.pixels);
  }
  for (const int threads : {1, 2, 8}) {
    const Delivered run = read(shards, threads, kAugment);
    EXPECT_EQ(run.keys, reference.keys);
    EXPECT_EQ(run.pixels, reference.pixels);
    EXPECT_TRUE(run.rejects.empty());
  }
}

/// The box of each photo, pixels from 0, by its number.
std::map<std::string, RectF> read_boxes(const fs::path& root) {
  std::map<std::string, RectF> boxes;
  std::ifstream list(root / "data/images_box.txt");
  std::string id;
  for (int left, top, right, bottom; list >> id >> left >> top >> right >> bottom;) {
    boxes[id] = {left - 1.0, top - 1.0, right - left + 1.0, bottom - top + 1.0};
  }
  return boxes;
}

TEST_F(DataPath, CropToBoxGivesTheFullDecodesPixels) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const std::string source = "stages:\n  - {use: source.fgvc, root: " + kPhotos.string() +
                             ", split: val, crop_to_box: true}\n";
  const auto read_once = [&](const std::string& decode) {
    const auto loaded = load(source + decode + R"(
  - {use: image.crop, bottom: 20}
  - {use: image.resize, size: 128}
  - {use: batch, size: 16, last: keep}
  - {use: train.none}
)");
    const Pipeline pipeline(loaded->config);
    const auto stream = pipeline.open_stream(2);
    return testing::drain(*stream);
  };
  const Delivered exact = read_once("  - {use: image.decode, dct_scaling: false}");
  const Delivered scaled = read_once("  - {use: image.decode}");
  ASSERT_GT(exact.keys.size(), 100U);
  EXPECT_EQ(scaled.keys, exact.keys);

  const auto boxes = read_boxes(kPhotos);
  const ImageShape shape{128, 128};
  double sum = 0;
  for (std::size_t i = 0; i < exact.keys.size(); ++i) {
    const std::uint8_t* image = exact.pixels.data() + i * shape.bytes();
    for (std::size_t j = 0; j < shape.bytes(); ++j) {
      sum += std::abs(image[j] - scaled.pixels[i * shape.bytes() + j]);
    }
    if (i % 10 != 0) continue;  // each is a full decode
    const Decoded full =
        decode_image(read_file(kPhotos / "data/images" / (exact.keys[i] + ".jpg")));
    const ImageShape whole = full.image.shape();
    const RectF above{0, 0, static_cast<double>(whole.width), whole.height - 20.0};
    Image expected(shape.height, shape.width);
    resize_area(full.image.view(), intersect(boxes.at(exact.keys[i]), above), expected.view());
    EXPECT_TRUE(std::equal(image, image + shape.bytes(), expected.pixels().begin()))
        << exact.keys[i];
  }
  const double mean = sum / static_cast<double>(exact.pixels.size());
  std::printf("boxes, scaled against full decoding at 128x128: mean %.3f of 255\n", mean);
  EXPECT_GT(mean, 0.01);  // else nothing was scaled
  EXPECT_LT(mean, 1.4);
}

/// Peak resident memory of this process so far, bytes.
std::size_t peak_memory() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    if (word == "VmHWM:") {
      std::size_t kilobytes = 0;
      file >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return 0;
}

TEST_F(DataPath, SlowTrainerWithTwelveMegapixelImagesNeedsLittleMemory) {
  // 4000x3000 BMP files are the worst case: no DCT scaling makes them smaller, so each is 36 MB
  // once decoded. 40 of them in flight at once would be 1.4 GB.
  fs::create_directories(folder_ / "large");
  std::string bmp(54, '\0');
  const auto put = [&bmp](int at, std::uint32_t value) { std::memcpy(&bmp[at], &value, 4); };
  bmp[0] = 'B';
  bmp[1] = 'M';
  put(2, 54 + 36000000);
  put(10, 54);
  put(14, 40);
  put(18, 4000);
  put(22, 3000);
  bmp[26] = 1;
  bmp[28] = 24;
  {
    std::ofstream file(folder_ / "large/0.bmp", std::ios::binary);
    file << bmp;
    file.close();
    fs::resize_file(folder_ / "large/0.bmp", 54 + 36000000);  // the rest is a hole
  }
  for (int i = 1; i < 40; ++i) {
    fs::create_hard_link(folder_ / "large/0.bmp",
                         folder_ / ("large/" + std::to_string(i) + ".bmp"));
  }
  const auto loaded = load(
      "stages:\n  - {use: source.folder, root: large}\n  - {use: image.decode}\n"
      "  - {use: image.resize, size: 128}\n  - {use: batch, size: 4}\n  - {use: train.none}\n");
  const Pipeline pipeline(loaded->config);
  const std::size_t before = peak_memory();
  const auto stream = pipeline.open_stream(2);
  int images = 0;
  while (const auto batch = stream->next()) {
    images += batch->count;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the slow trainer
  }
  EXPECT_EQ(images, 40);
#ifdef __SANITIZE_ADDRESS__
  constexpr std::size_t kKeptAfterFree = 256UL << 20;  // AddressSanitizer's quarantine
#else
  constexpr std::size_t kKeptAfterFree = 0;
#endif
  // For each of the two threads: the file, OpenCV's decoded image and its RGB copy.
  EXPECT_LT(peak_memory() - before, 2U * 3 * 36000000 + 60000000 + kKeptAfterFree);
}

TEST_F(DataPath, DryRunTellsWhatBecomesOfASample) {
  if (!fs::exists(kPhotos)) GTEST_SKIP() << kPhotos << " does not exist";
  const auto loaded =
      load("plugins: [augment_flip, augment_affine]\nstages:\n  - {use: source.fgvc, root: " +
           kPhotos.string() + "}" + kPrepare + kAugment);
  const std::string text = dry_run(*loaded);
  EXPECT_NE(text.find("image.resize: 128x128"), std::string::npos) << text;
  EXPECT_NE(text.find("663 samples an epoch"), std::string::npos) << text;
}

}  // namespace
}  // namespace gp
