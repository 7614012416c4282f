// What the work on one image costs, by itself: prints JSON with nanoseconds of processor time per
// image on one thread, the best of several rounds.

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "pipeline/warp.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/hdf5/crc32c.hpp"
#include "stages/data/resize.hpp"

namespace gp {
namespace {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// Nanoseconds of one `work(i)`, for i counting up.
template <class Work>
double nanoseconds(Work work) {
  constexpr int kRounds = 9;
  constexpr double kRoundSeconds = 0.05;
  double best = std::numeric_limits<double>::infinity();
  std::size_t i = 0;
  for (int round = 0; round < kRounds; ++round) {
    const double start = thread_seconds();
    double elapsed = 0;
    int n = 0;
    for (; elapsed < kRoundSeconds; elapsed = thread_seconds() - start, ++n) work(i++);
    best = std::min(best, elapsed / n);
  }
  return std::round(best * 1e9);
}

Image noise(int height, int width) {
  Image image(height, width);
  Rng rng(1, "noise", 0);
  for (auto& value : image.pixels()) value = static_cast<std::uint8_t>(rng.next_u32());
  return image;
}

/// What flip and affine draw: 10 degrees, 5 % of scale and of translation; every other mirrored.
std::vector<Affine> augmentations(int size) {
  std::vector<Affine> maps;
  Rng rng(1, "maps", 0);
  const double centre = (size - 1) / 2.0;
  for (int i = 0; i < 64; ++i) {
    const double angle = rng.uniform(-10, 10) * std::acos(-1.0) / 180;
    const double scale = rng.uniform(0.95, 1.05);
    const double c = std::cos(angle) / scale;
    const double s = std::sin(angle) / scale;
    const double x = centre + rng.uniform(-0.05, 0.05) * size;
    const double y = centre + rng.uniform(-0.05, 0.05) * size;
    const Affine turned{{c, s, centre - c * x - s * y, -s, c, centre + s * x - c * y}};
    const Affine mirror{{-1, 0, 2 * centre, 0, 1, 0}};
    maps.push_back(i % 2 == 0 ? turned : compose(mirror, turned));
  }
  return maps;
}

nlohmann::ordered_json warp_times() {
  const Image in = noise(128, 128);
  Image out(128, 128);
  const std::vector<Affine> maps = augmentations(128);
  const Affine mirror{{-1, 0, 127, 0, 1, 0}};
  nlohmann::ordered_json times;
  times["affine_128"] = nanoseconds(
      [&](std::size_t i) { warp_affine(in.view(), maps[i % maps.size()], out.view()); });
  times["affine_128_portable"] = nanoseconds(
      [&](std::size_t i) { warp_affine_portable(in.view(), maps[i % maps.size()], out.view()); });
  times["mirror_128"] =
      nanoseconds([&](std::size_t) { warp_affine(in.view(), mirror, out.view()); });
  return times;
}

nlohmann::ordered_json resize_times() {
  const Image quarter = noise(174, 256);  // a photo of 1024x695 decoded at 1/4
  const RectF cropped{0, 0, 256, 168.75};
  const Image photo = noise(695, 1024);
  const RectF whole = Geometry::whole(photo.shape()).region;
  Image small(128, 128);
  Image large(224, 224);
  nlohmann::ordered_json times;
  times["area_256x174_to_128"] = nanoseconds(
      [&](std::size_t) { resize(quarter.view(), cropped, ResizeFilter::kArea, small.view()); });
  times["area_1024x695_to_128"] = nanoseconds(
      [&](std::size_t) { resize(photo.view(), whole, ResizeFilter::kArea, small.view()); });
  times["bicubic_1024x695_to_224"] = nanoseconds(
      [&](std::size_t) { resize(photo.view(), whole, ResizeFilter::kBicubic, large.view()); });
  return times;
}

double crc_time() {
  const Image image = noise(128, 128);
  std::uint32_t sum = 0;
  const double time = nanoseconds([&](std::size_t) { sum ^= crc32c(image.pixels()); });
  volatile std::uint32_t used = sum;  // else the work could be left out
  static_cast<void>(used);
  return time;
}

/// Puts images into memory that is used again, as the engine does.
class RecycledTarget : public DecodeTarget {
 public:
  ImageView image(int height, int width) override {
    image_.reshape(height, width);
    return image_.view();
  }
  void count(const std::string& /*event*/) override {}

 private:
  Image image_;
};

nlohmann::ordered_json decode_times(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jpg") paths.push_back(entry.path());
  }
  if (paths.empty()) throw DataError(folder.string() + ": holds no .jpg file");
  std::sort(paths.begin(), paths.end());
  constexpr std::size_t kMostFiles = 256;
  paths.resize(std::min(paths.size(), kMostFiles));
  std::vector<std::vector<std::uint8_t>> files;
  std::size_t bytes = 0;
  for (const auto& path : paths) bytes += files.emplace_back(read_file(path)).size();
  RecycledTarget target;
  nlohmann::ordered_json times;
  times["files"] = files.size();
  times["mean_bytes"] = bytes / files.size();
  struct Row {
    const char* name;
    int size;
    bool baseline;
  };
  for (const Row& row : {Row{"jpeg_for_128", 128, true}, Row{"jpeg_for_128_libjpeg", 128, false},
                         Row{"jpeg_full", 4096, true}}) {
    DecodeOptions options;
    options.baseline_jpeg = row.baseline;
    options.demand.full = false;
    options.demand.region = {row.size, row.size};
    // All of them in each call, because they differ.
    const double all = nanoseconds([&](std::size_t) {
      for (const auto& file : files) decode_image(file, options, target);
    });
    times[row.name] = std::round(all / static_cast<double>(files.size()));
  }
  return times;
}

int run(int argc, char** argv) {
  if (argc > 2) {
    std::cerr << "usage: bench_kernels [FOLDER_OF_JPEGS]\n";
    return 2;
  }
  nlohmann::ordered_json times;
  times["unit"] = "nanoseconds of processor time per image, one thread";
  times["vector_instructions"] = has_warp_instructions();
  times["warp"] = warp_times();
  times["resize"] = resize_times();
  times["crc32c_128x128"] = crc_time();
  if (argc == 2) times["decode"] = decode_times(argv[1]);
  std::cout << times.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace gp

int main(int argc, char** argv) {
  try {
    return gp::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_kernels: " << error.what() << '\n';
    return 1;
  }
}
