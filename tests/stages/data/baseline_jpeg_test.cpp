#include "stages/data/baseline_jpeg.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "stages/data/decode.hpp"
#include "stages/data/jpeg_kernels.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

const std::string kData = GP_SOURCE_DIR "/../shared/data/";

class Quiet : public testing::Environment {
  void SetUp() override { configure_opencv(); }
};
testing::Environment* const kQuiet = testing::AddGlobalTestEnvironment(new Quiet);

enum class Content { kGradient, kNoise, kSaturated, kFlat };

Image picture(Content content, int height, int width, std::uint64_t seed = 1) {
  Image image(height, width);
  Rng rng(seed, "picture", 0);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < kChannels; ++c) {
        int value = 90;
        if (content == Content::kGradient) {
          value = static_cast<int>(128 + 60 * std::sin(x * 0.05 * (c + 1)) * std::cos(y * 0.07) +
                                   rng.uniform(-6, 6));
        } else if (content == Content::kNoise) {
          value = static_cast<int>(rng.next_u32() & 0xFF);
        } else if (content == Content::kSaturated) {
          value = (rng.next_u32() & 7) < 3 ? 255 : 0;
        }
        image.view().row(y)[x * kChannels + c] = static_cast<std::uint8_t>(value);
      }
    }
  }
  return image;
}

struct Encoding {
  int quality = 85;
  int across = 2;  ///< sampling factors of luma
  int down = 2;
  bool gray = false;
  bool optimised = false;
  unsigned restart_interval = 0;
  bool steps_of_16_bits = false;
  std::function<void(jpeg_compress_struct&)> change = {};  ///< anything else
};

Bytes encode(const Image& image, const Encoding& how) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  errors.emit_message = [](j_common_ptr, int) {};  // "too coarse for baseline JPEG"
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = static_cast<JDIMENSION>(image.shape().width);
  info.image_height = static_cast<JDIMENSION>(image.shape().height);
  info.input_components = kChannels;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, how.quality, how.steps_of_16_bits ? FALSE : TRUE);
  if (how.gray) jpeg_set_colorspace(&info, JCS_GRAYSCALE);
  info.comp_info[0].h_samp_factor = how.across;
  info.comp_info[0].v_samp_factor = how.down;
  info.optimize_coding = how.optimised ? TRUE : FALSE;
  info.restart_interval = how.restart_interval;
  if (how.change) how.change(info);
  jpeg_start_compress(&info, TRUE);
  Bytes row(static_cast<std::size_t>(image.shape().width) * kChannels);
  while (info.next_scanline < info.image_height) {
    std::copy_n(image.view().row(static_cast<int>(info.next_scanline)), row.size(), row.data());
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  Bytes bytes(data, data + size);
  jpeg_destroy_compress(&info);
  std::free(data);
  return bytes;
}

/// `bytes` with other coefficients: `draw(k)` gives the one of natural index k.
Bytes with_coefficients(const Bytes& bytes, const std::function<int(int)>& draw) {
  jpeg_error_mgr errors{};
  jpeg_decompress_struct in{};
  in.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&in);
  jpeg_mem_src(&in, bytes.data(), bytes.size());
  jpeg_read_header(&in, TRUE);
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&in);
  for (int c = 0; c < in.num_components; ++c) {
    for (JDIMENSION y = 0; y < in.comp_info[c].height_in_blocks; ++y) {
      JBLOCKARRAY row =
          in.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&in), arrays[c], y, 1, TRUE);
      for (JDIMENSION x = 0; x < in.comp_info[c].width_in_blocks; ++x) {
        for (int k = 0; k < DCTSIZE2; ++k) row[0][x][k] = static_cast<JCOEF>(draw(k));
      }
    }
  }
  jpeg_compress_struct out{};
  out.err = in.err;
  jpeg_create_compress(&out);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&out, &data, &size);
  jpeg_copy_critical_parameters(&in, &out);
  out.optimize_coding = TRUE;
  jpeg_write_coefficients(&out, arrays);
  jpeg_finish_compress(&out);
  Bytes result(data, data + size);
  jpeg_destroy_compress(&out);
  jpeg_finish_decompress(&in);
  jpeg_destroy_decompress(&in);
  std::free(data);
  return result;
}

/// A JPEG whose header has been read, to be decoded at 1/`reduction`.
class Header {
 public:
  Header(const Bytes& bytes, int reduction) {
    info.err = jpeg_std_error(&errors_);
    errors_.emit_message = [](j_common_ptr, int) {};
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, bytes.data(), bytes.size());
    jpeg_read_header(&info, TRUE);
    info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
    info.scale_num = 1;
    info.scale_denom = static_cast<unsigned>(reduction);
    jpeg_calc_output_dimensions(&info);
  }
  ~Header() { jpeg_destroy_decompress(&info); }
  Header(const Header&) = delete;
  Header& operator=(const Header&) = delete;

  Image image() const {
    return {static_cast<int>(info.output_height), static_cast<int>(info.output_width)};
  }
  jpeg_decompress_struct info{};

 private:
  jpeg_error_mgr errors_{};
};

/// By decode_baseline_jpeg(), where that takes it.
std::optional<Image> decode_ours(const Bytes& bytes, int reduction) {
  const Header header(bytes, reduction);
  Image image = header.image();
  if (!decode_baseline_jpeg(header.info, Orientation::kNormal, image.view())) return std::nullopt;
  return image;
}

Image decode_by_libjpeg(const Bytes& bytes, int reduction) {
  Header header(bytes, reduction);
  Image image = header.image();
  jpeg_start_decompress(&header.info);
  while (header.info.output_scanline < header.info.output_height) {
    JSAMPROW row = image.view().row(static_cast<int>(header.info.output_scanline));
    jpeg_read_scanlines(&header.info, &row, 1);
  }
  return image;
}

constexpr int kReductions[] = {8, 4, 2, 1};

/// What the header promises.
bool expected_to_be_ours(const Encoding& how, int reduction) {
  if (how.gray || how.down == 1) return reduction > 1;
  return how.across == 2 ? reduction > 2 : reduction == 8;
}

void expect_libjpegs_pixels(const Bytes& bytes, const Encoding& how, bool ordinary) {
  for (const int reduction : kReductions) {
    const std::optional<Image> ours = decode_ours(bytes, reduction);
    const bool expected = expected_to_be_ours(how, reduction);
    if (ordinary) {
      ASSERT_EQ(ours.has_value(), expected) << "at 1/" << reduction;
    } else if (!expected) {
      ASSERT_FALSE(ours.has_value()) << "at 1/" << reduction;
    }
    if (ours.has_value()) {
      ASSERT_EQ(ours->pixels(), decode_by_libjpeg(bytes, reduction).pixels())
          << "at 1/" << reduction;
    }
  }
}

std::string name_of(const Encoding& how) {
  return std::to_string(how.across) + "x" + std::to_string(how.down) + " quality " +
         std::to_string(how.quality) + (how.gray ? " gray" : "") +
         (how.optimised ? " optimised" : "") + " restart " + std::to_string(how.restart_interval);
}

std::vector<Encoding> all_samplings() {
  std::vector<Encoding> all;
  for (const int across : {1, 2}) {
    for (const int down : {1, 2}) all.push_back({.across = across, .down = down});
  }
  all.push_back({.across = 1, .down = 1, .gray = true});
  all.push_back({.across = 2, .down = 2, .gray = true});  // means nothing where one is alone
  return all;
}

TEST(BaselineJpeg, EverySizeAndSamplingIsLibjpegs) {
  for (const Encoding& how : all_samplings()) {
    SCOPED_TRACE(name_of(how));
    for (int side = 1; side <= 40; ++side) {
      SCOPED_TRACE(side);
      const int other = 1 + (side * 7) % 40;
      expect_libjpegs_pixels(encode(picture(Content::kGradient, other, side), how), how, true);
    }
    expect_libjpegs_pixels(encode(picture(Content::kGradient, 157, 1031), how), how, true);
  }
}

TEST(BaselineJpeg, EveryQualityIsLibjpegs) {
  for (Encoding how : all_samplings()) {
    for (how.quality = 1; how.quality <= 100; how.quality += 3) {
      SCOPED_TRACE(name_of(how));
      how.optimised = how.quality % 2 == 0;
      how.restart_interval = static_cast<unsigned>(how.quality % 5);
      // At the lowest qualities a step is larger than what the picture's values may be.
      expect_libjpegs_pixels(encode(picture(Content::kGradient, 50, 77), how), how,
                             how.quality >= 20);
      expect_libjpegs_pixels(encode(picture(Content::kNoise, 50, 77), how), how, how.quality >= 50);
      expect_libjpegs_pixels(encode(picture(Content::kSaturated, 50, 77), how), how,
                             how.quality >= 50);
      expect_libjpegs_pixels(encode(picture(Content::kFlat, 50, 77), how), how, true);
      how.steps_of_16_bits = true;
      expect_libjpegs_pixels(encode(picture(Content::kNoise, 50, 77), how), how, false);
      how.steps_of_16_bits = false;
    }
  }
}

TEST(BaselineJpeg, EveryRestartIntervalIsRead) {
  for (Encoding how : all_samplings()) {
    for (how.restart_interval = 1; how.restart_interval < 40; ++how.restart_interval) {
      SCOPED_TRACE(name_of(how));
      expect_libjpegs_pixels(encode(picture(Content::kGradient, 61, 90), how), how, true);
    }
  }
}

TEST(BaselineJpeg, LargeDataIsReadInPieces) {
  // 300 KB, with byte stuffing all over; more than one buffer between restarts.
  for (Encoding how : all_samplings()) {
    how.quality = 98;
    how.restart_interval = how.across == 1 ? 2000 : 0;
    SCOPED_TRACE(name_of(how));
    const Bytes bytes = encode(picture(Content::kNoise, 400, 500), how);
    ASSERT_GT(bytes.size(), 100'000U);
    expect_libjpegs_pixels(bytes, how, true);
  }
}

TEST(BaselineJpeg, AnyCoefficientIsLibjpegsOrLeftToIt) {
  // Blocks that no encoder makes: full of values up to `largest`, sparse ones, full ones whose
  // last coefficient is not zero. Beyond some value libjpeg's implementations differ.
  int ours = 0;
  int left = 0;
  Rng rng(3, "coefficients", 0);
  for (Encoding how : all_samplings()) {
    for (const int quality : {5, 30, 75, 95, 100}) {
      how.quality = quality;
      const Bytes flat = encode(picture(Content::kFlat, 40, 56), how);
      for (const int largest : {1, 2, 5, 20, 80, 300, 1023}) {
        for (const double share : {0.02, 0.2, 1.0}) {
          SCOPED_TRACE(name_of(how) + " up to " + std::to_string(largest));
          const Bytes bytes = with_coefficients(flat, [&](int k) {
            return k != 63 && rng.uniform(0, 1) > share
                       ? 0
                       : static_cast<int>(std::lround(rng.uniform(-largest, largest)));
          });
          for (const int reduction : kReductions) {
            if (!expected_to_be_ours(how, reduction)) continue;
            const std::optional<Image> image = decode_ours(bytes, reduction);
            ++(image ? ours : left);
            if (!image) continue;
            ASSERT_EQ(image->pixels(), decode_by_libjpeg(bytes, reduction).pixels())
                << "at 1/" << reduction;
          }
        }
      }
    }
  }
  std::printf("%d pictures decoded, %d left to libjpeg\n", ours, left);
  EXPECT_GT(ours, 500);
  EXPECT_GT(left, 100);
}

TEST(BaselineJpeg, OtherKindsAreLeftToLibjpeg) {
  const Image image = picture(Content::kGradient, 40, 56);
  const auto changed = [&](const std::function<void(jpeg_compress_struct&)>& change) {
    return encode(image, {.change = change});
  };
  // Two scans: luma, then chroma.
  static const jpeg_scan_info kScans[] = {{1, {0, 0, 0, 0}, 0, 63, 0, 0},
                                          {2, {1, 2, 0, 0}, 0, 63, 0, 0}};
  const struct {
    const char* name;
    Bytes bytes;
  } kinds[] = {
      {"progressive", changed([](auto& info) { jpeg_simple_progression(&info); })},
      {"arithmetic", changed([](auto& info) { info.arith_code = TRUE; })},
      {"RGB", changed([](auto& info) { jpeg_set_colorspace(&info, JCS_RGB); })},
      {"4:1:1", changed([](auto& info) { info.comp_info[0].h_samp_factor = 4; })},
      {"subsampled luma", changed([](auto& info) { info.comp_info[2].h_samp_factor = 2; })},
      {"two scans", changed([](auto& info) {
         info.scan_info = kScans;
         info.num_scans = 2;
       })},
  };
  for (const auto& kind : kinds) {
    SCOPED_TRACE(kind.name);
    for (const int reduction : kReductions) EXPECT_FALSE(decode_ours(kind.bytes, reduction));
  }
  EXPECT_TRUE(decode_ours(changed([](auto&) {}), 4));
}

TEST(BaselineJpeg, DataThatIsMissingOrDamagedIsLeftToLibjpeg) {
  const Bytes whole = encode(picture(Content::kGradient, 40, 56), {.restart_interval = 2});
  ASSERT_TRUE(decode_ours(whole, 4));
  const auto is_ours = [](Bytes bytes) { return decode_ours(bytes, 4).has_value(); };
  EXPECT_FALSE(is_ours(Bytes(whole.begin(), whole.end() - 2))) << "no end marker";
  EXPECT_FALSE(is_ours(Bytes(whole.begin(), whole.end() - 12))) << "truncated";
  Bytes bytes = whole;
  bytes.insert(bytes.end() - 2, {0xFF, 0xFF});
  EXPECT_FALSE(is_ours(bytes)) << "fill bytes";
  bytes = whole;
  bytes.insert(bytes.end() - 2, {0x12, 0x34});
  EXPECT_TRUE(is_ours(bytes)) << "libjpeg does not see what stands before the end marker";
  bytes = whole;
  bytes.insert(bytes.end(), {0x12, 0x34});
  EXPECT_TRUE(is_ours(bytes)) << "nor what stands behind it";
  const auto marker = [&](std::uint8_t code) {
    const std::uint8_t wanted[] = {0xFF, code};
    return std::search(bytes.begin(), bytes.end(), wanted, wanted + 2) - bytes.begin();
  };
  bytes = whole;
  bytes[static_cast<std::size_t>(marker(0xD1) + 1)] = 0xD2;
  EXPECT_FALSE(is_ours(bytes)) << "another restart marker";
  bytes = whole;
  bytes.insert(bytes.begin() + marker(0xD1), 0x55);
  EXPECT_FALSE(is_ours(bytes)) << "rubbish before a restart marker";
  bytes = whole;
  bytes.insert(bytes.begin() + marker(0xD1) - 3, {0xFF, 0xD9});
  EXPECT_FALSE(is_ours(bytes)) << "a marker within the data";
}

/// What a caller of decode_image() sees.
struct Outcome {
  Image image;
  std::vector<std::string> events;
  std::string error;
  Geometry geometry;
};

Outcome outcome(const Bytes& bytes, int side, bool accept_truncated, bool baseline) {
  DecodeOptions options;
  options.accept_truncated = accept_truncated;
  options.baseline_jpeg = baseline;
  options.demand.full = side == 0;
  options.demand.region = {side, side};
  Outcome result;
  try {
    Decoded decoded = decode_image(bytes, options);
    result.image = std::move(decoded.image);
    result.events = std::move(decoded.events);
    result.geometry = decoded.geometry;
  } catch (const SampleError& error) {
    result.error = error.what();
  }
  return result;
}

void expect_same_outcome(const Bytes& bytes, int side) {
  for (const bool accept_truncated : {false, true}) {
    const Outcome ours = outcome(bytes, side, accept_truncated, true);
    const Outcome theirs = outcome(bytes, side, accept_truncated, false);
    ASSERT_EQ(ours.error, theirs.error);
    ASSERT_EQ(ours.events, theirs.events);
    ASSERT_EQ(ours.image.shape(), theirs.image.shape());
    ASSERT_EQ(ours.image.pixels(), theirs.image.pixels());
    ASSERT_EQ(ours.geometry.source_width, theirs.geometry.source_width);
    ASSERT_EQ(ours.geometry.region.height, theirs.geometry.region.height);
  }
}

Bytes mutated(const Bytes& from, Rng& rng) {
  Bytes bytes = from;
  const auto place = [&] { return static_cast<std::size_t>(rng.next_u32()) % bytes.size(); };
  const auto at = [&] { return bytes.begin() + static_cast<std::ptrdiff_t>(place()); };
  for (std::uint32_t n = 1 + rng.next_u32() % 3; n > 0 && bytes.size() > 8; --n) {
    switch (rng.next_u32() % 6) {
      case 0:
      case 1:
        *at() ^= static_cast<std::uint8_t>(1U << rng.next_u32() % 8);
        break;
      case 2:
        *at() = static_cast<std::uint8_t>(rng.next_u32());
        break;
      case 3:
        bytes.resize(bytes.size() - place() / 2);
        break;
      case 4:
        bytes.insert(at(), {0xFF, static_cast<std::uint8_t>(0xC0 + rng.next_u32() % 64)});
        break;
      default:
        bytes.erase(at());
    }
  }
  return bytes;
}

TEST(BaselineJpeg, DamageHasTheSameOutcomeAsWithLibjpegAlone) {
  // For longer runs by hand.
  const char* wish = std::getenv("GP_JPEG_MUTATIONS");
  const int rounds = wish != nullptr ? std::atoi(wish) : 300;
  Rng rng(wish != nullptr ? static_cast<std::uint64_t>(rounds) : 5, "mutations", 0);
  int refused = 0;
  for (Encoding how : all_samplings()) {
    for (const unsigned restart_interval : {0U, 3U}) {
      how.restart_interval = restart_interval;
      SCOPED_TRACE(name_of(how));
      const Bytes whole = encode(picture(Content::kGradient, 70, 91), how);
      for (int i = 0; i < rounds; ++i) {
        SCOPED_TRACE(i);
        const Bytes bytes = mutated(whole, rng);
        if (!outcome(bytes, 16, false, true).error.empty()) ++refused;
        const int sides[] = {8, 16, 32, 0};
        expect_same_outcome(bytes, sides[i % 4]);
        if (HasFatalFailure()) return;
      }
    }
  }
  EXPECT_GT(refused, rounds);
}

TEST(BaselineJpeg, TablesOfOtherFilesAreNotUsed) {
  // Each thread keeps some tables.
  std::vector<Bytes> files;
  for (const int quality : {20, 60, 95}) {
    for (const bool optimised : {false, true}) {
      files.push_back(encode(picture(Content::kGradient, 60, 60, static_cast<unsigned>(quality)),
                             {.quality = quality, .optimised = optimised}));
    }
  }
  for (int i = 0; i < 30; ++i) {
    const Bytes& bytes = files[static_cast<std::size_t>(i * i + i / 3) % files.size()];
    const std::optional<Image> ours = decode_ours(bytes, 4);
    ASSERT_TRUE(ours);
    EXPECT_EQ(ours->pixels(), decode_by_libjpeg(bytes, 4).pixels());
  }
}

class BaselineJpegFiles : public testing::TestWithParam<std::string> {};

TEST_P(BaselineJpegFiles, HaveTheSameOutcomeAsWithLibjpegAlone) {
  const std::string root = kData + GetParam();
  if (!fs::exists(root)) GTEST_SKIP() << "no files at " << root;
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  const std::size_t step = files.size() > 500 ? 10 : 1;  // the photos are much alike
  for (std::size_t i = 0; i < files.size(); i += step) {
    SCOPED_TRACE(files[i].string());
    const Bytes bytes = read_file(files[i]);
    for (const int side : {1, 128, 256}) expect_same_outcome(bytes, side);
    if (HasFatalFailure()) return;
  }
}
INSTANTIATE_TEST_SUITE_P(Shared, BaselineJpegFiles,
                         testing::Values("fgvc-aircraft-2013b/data/images", "fgvc-real-banner",
                                         "hostile"),
                         [](const auto& folder) {
                           return "Folder" + std::to_string(folder.index);
                         });

TEST(BaselineJpegPhotos, AreAllOurs) {
  const std::string root = kData + "fgvc-aircraft-2013b/data/images";
  if (!fs::exists(root)) GTEST_SKIP() << "FGVC-Aircraft is not at " << root;
  for (const auto& entry : fs::directory_iterator(root)) {
    EXPECT_TRUE(decode_ours(read_file(entry.path()), 4)) << entry.path();
  }
}

// The inner loops --------------------------------------------------------------------------------

TEST(JpegKernels, VectorsGiveWhatPortableLoopsGive) {
  if (!has_jpeg_instructions()) GTEST_SKIP() << "this processor has no AVX2";
  const JpegKernels& portable = portable_jpeg_kernels();
  const JpegKernels& vectors = vector_jpeg_kernels();
  Rng rng(7, "blocks", 0);
  int fine = 0;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    for (const int size : {2, 4}) {
      JpegSteps steps;
      JpegBlock block;
      block.clear();
      const int largest_step = 1 << rng.next_u32() % 11;
      const int largest = 1 << rng.next_u32() % 11;
      const double share = rng.uniform(0, 1);
      for (int k = 0; k < 64; ++k) {
        const int place = JpegBlock::place(size, k / 8, k % 8);
        if (place == JpegBlock::kUnused) continue;
        steps.set(place, 1 + static_cast<int>(rng.next_u32()) % largest_step);
        if (rng.uniform(0, 1) > share) continue;
        block.values[static_cast<std::size_t>(place)] =
            static_cast<std::int16_t>(rng.uniform(-largest, largest));
      }
      constexpr int kStride = 7;
      std::array<std::uint8_t, 4 * kStride> expected{};
      std::array<std::uint8_t, 4 * kStride> actual{};
      const auto idct = [size](const JpegKernels& kernels) {
        return size == 4 ? kernels.idct_4x4 : kernels.idct_2x2;
      };
      const bool ok = idct(portable)(block, steps, expected.data(), kStride);
      ASSERT_EQ(idct(vectors)(block, steps, actual.data(), kStride), ok) << size;
      ++(ok ? fine : refused);
      if (ok) {
        ASSERT_EQ(actual, expected) << size;
      }
    }
  }
  EXPECT_GT(fine, 5000);
  EXPECT_GT(refused, 1000);
}

TEST(JpegKernels, EveryColourIsConvertedAlike) {
  if (!has_jpeg_instructions()) GTEST_SKIP() << "this processor has no AVX2";
  constexpr int kWidth = 256;
  Bytes y(kWidth);
  Bytes cb(kWidth);
  Bytes cr(kWidth);
  for (int x = 0; x < kWidth; ++x) y[static_cast<std::size_t>(x)] = static_cast<std::uint8_t>(x);
  Bytes expected(kWidth * kChannels);
  Bytes actual(kWidth * kChannels);
  for (int blue = 0; blue < 256; ++blue) {
    std::fill(cb.begin(), cb.end(), static_cast<std::uint8_t>(blue));
    for (int red = 0; red < 256; ++red) {
      std::fill(cr.begin(), cr.end(), static_cast<std::uint8_t>(red));
      const int width = kWidth - red % 20;
      portable_jpeg_kernels().ycc_to_rgb(y.data(), cb.data(), cr.data(), width, expected.data());
      vector_jpeg_kernels().ycc_to_rgb(y.data(), cb.data(), cr.data(), width, actual.data());
      ASSERT_EQ(actual, expected) << blue << ' ' << red;
    }
  }
  for (int width = 1; width < 40; ++width) {
    Bytes narrow(static_cast<std::size_t>(width) * kChannels);  // asan: nothing behind it
    vector_jpeg_kernels().ycc_to_rgb(y.data(), cb.data(), cr.data(), width, narrow.data());
    portable_jpeg_kernels().ycc_to_rgb(y.data(), cb.data(), cr.data(), width, expected.data());
    EXPECT_TRUE(std::equal(narrow.begin(), narrow.end(), expected.begin())) << width;
  }
}

}  // namespace
}  // namespace gp
