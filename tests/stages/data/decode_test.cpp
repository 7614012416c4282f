#include "stages/data/decode.hpp"

#include <gtest/gtest.h>
#include <jpeglib.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <thread>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "stages/data/exif.hpp"
#include "stages/data/resize.hpp"
#include "stages/data/stages.hpp"
#include "tests/stages/data/list_file.hpp"
#include "tests/stages/data/memory_output.hpp"
#include "tests/support/expect_contains.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

const std::string kFixtures = GP_SOURCE_DIR "/tests/stages/data/fixtures/decode/";
const std::string kData = GP_SOURCE_DIR "/../shared/data/";

class Quiet : public testing::Environment {
  void SetUp() override { configure_opencv(); }
};
testing::Environment* const kQuiet = testing::AddGlobalTestEnvironment(new Quiet);

Bytes fixture(const std::string& name) { return read_file(kFixtures + name); }

/// The reason why `bytes` are refused; "" when they are not.
std::string refusal(const Bytes& bytes, const DecodeOptions& options = {}) {
  try {
    decode_image(bytes, options);
    return "";
  } catch (const SampleError& error) {
    return error.what();
  }
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text.empty() ? "-" : text;
}

int largest_difference(const Bytes& a, const Bytes& b) {
  int largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

double mean_difference(const Bytes& a, const Bytes& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

/// A JPEG by libjpeg, in ways that Pillow does not write.
Bytes encode_jpeg(const Image& image, bool arithmetic, int quality = 90) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = static_cast<JDIMENSION>(image.shape().width);
  info.image_height = static_cast<JDIMENSION>(image.shape().height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  info.arith_code = arithmetic ? TRUE : FALSE;
  jpeg_start_compress(&info, TRUE);
  Bytes row(static_cast<std::size_t>(image.shape().width) * 3);
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

Image gradient(int height, int width) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      std::uint8_t* pixel = image.view().row(y) + x * kChannels;
      pixel[0] = static_cast<std::uint8_t>(x * 255 / width);
      pixel[1] = static_cast<std::uint8_t>(y * 255 / height);
      pixel[2] = static_cast<std::uint8_t>(128 + 80 * std::sin(x * 0.03) * std::cos(y * 0.03));
    }
  }
  return image;
}

// What the formats hold ---------------------------------------------------------------------------

TEST(Decode, EveryKindMatchesPillow) {
  const auto rows = read_table(kFixtures + "list.tsv");
  ASSERT_GE(rows.size(), 50U);
  for (const auto& row : rows) {
    SCOPED_TRACE(row[0]);
    const Decoded decoded = decode_image(fixture(row[0]));
    const ImageShape shape{std::stoi(row[2]), std::stoi(row[1])};
    EXPECT_EQ(decoded.image.shape(), shape);
    EXPECT_LE(largest_difference(decoded.image.pixels(), fixture(row[0] + ".rgb")),
              std::stoi(row[3]));
    EXPECT_EQ(join(decoded.events), row[4]);
    EXPECT_EQ(decoded.geometry.source_width, shape.width);
    EXPECT_EQ(decoded.geometry.source_height, shape.height);
    EXPECT_TRUE(decoded.geometry.is_whole());
  }
}

TEST(Decode, ArithmeticCodingIsReadLikeHuffman) {
  const Image image = gradient(40, 56);
  EXPECT_EQ(decode_image(encode_jpeg(image, true)).image.pixels(),
            decode_image(encode_jpeg(image, false)).image.pixels());
}

TEST(Decode, ThreadsDoNotDisturbEachOther) {
  const auto rows = read_table(kFixtures + "list.tsv");
  std::vector<Bytes> files;
  std::vector<Bytes> expected;
  for (const auto& row : rows) {
    files.push_back(fixture(row[0]));
    expected.push_back(decode_image(files.back()).image.pixels());
    files.back().resize(files.back().size() / 2);  // and a broken one after each
    files.push_back(fixture(row[0]));
  }
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < files.size(); ++i) {
        const std::size_t at = (i + static_cast<std::size_t>(t) * 31) % files.size();
        const bool broken = at % 2 == 0;
        try {
          if (decode_image(files[at]).image.pixels() != expected[at / 2]) ++wrong;
          if (broken) ++wrong;
        } catch (const SampleError&) {
          if (!broken) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Decode, ContentDecidesNotTheName) {
  EXPECT_EQ(refusal({}), "the file is empty");
  EXPECT_NE(refusal({'G', 'I', 'F', '8', '9', 'a'}).find("unsupported format GIF;"),
            std::string::npos);
  EXPECT_NE(refusal({1, 2, 0xAB}).find("it begins with 01 02 AB)"), std::string::npos);
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0";
  EXPECT_NE(refusal({pointer.begin(), pointer.end()}).find("Git LFS pointer"), std::string::npos);
  const std::string heic(
      "\0\0\0\x18"
      "ftypheic\0\0",
      14);
  EXPECT_NE(refusal({heic.begin(), heic.end()}).find("unsupported format HEIC"), std::string::npos);
}

// Damage ------------------------------------------------------------------------------------------

TEST(Decode, TruncatedJpeg) {
  const Bytes whole = encode_jpeg(gradient(96, 128), false);
  Bytes no_end(whole.begin(), whole.end() - 2);
  const Decoded complete = decode_image(no_end);
  EXPECT_EQ(complete.image.pixels(), decode_image(whole).image.pixels());

  const Bytes half(whole.begin(),
                   whole.begin() + static_cast<std::ptrdiff_t>(whole.size() * 6 / 10));
  EXPECT_EQ(refusal(half), "JPEG: the data ended before the last block");
  DecodeOptions options;
  options.accept_truncated = true;
  const Decoded accepted = decode_image(half, options);
  EXPECT_EQ(join(accepted.events), "damaged JPEG accepted");
  const std::size_t first_rows = 16 * 128 * 3;
  EXPECT_TRUE(std::equal(accepted.image.pixels().begin(),
                         accepted.image.pixels().begin() + first_rows,
                         complete.image.pixels().begin()));
}

TEST(Decode, EveryTruncationIsRefusedOrComplete) {
  for (const auto& row : read_table(kFixtures + "list.tsv")) {
    SCOPED_TRACE(row[0]);
    const Bytes whole = fixture(row[0]);
    const Bytes expected = decode_image(whole).image.pixels();
    std::size_t shortest = whole.size();
    for (std::size_t size = 0; size < whole.size(); ++size) {
      try {
        const Decoded decoded =
            decode_image(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
        shortest = std::min(shortest, size);
        EXPECT_EQ(decoded.image.pixels(), expected) << "cut to " << size << " bytes";
      } catch (const SampleError&) {
      }
    }
    // No more than an end marker, a trailer or padding may be missing.
    EXPECT_GE(shortest + 16, whole.size());
  }
}

TEST(Decode, CorruptBytesNeverDoMoreThanRejectASample) {
  DecodeOptions accepting;
  accepting.accept_truncated = true;
  accepting.max_pixels = 1'000'000;
  Rng rng(1, "corrupt bytes", 0);
  for (const auto& row : read_table(kFixtures + "list.tsv")) {
    const Bytes whole = fixture(row[0]);
    for (int trial = 0; trial < 300; ++trial) {
      Bytes bytes = whole;
      for (std::uint32_t i = 0; i <= rng.below(6); ++i) {
        bytes[rng.below(static_cast<std::uint32_t>(bytes.size()))] =
            static_cast<std::uint8_t>(rng.next_u32());
      }
      try {
        const Decoded decoded = decode_image(bytes, accepting);
        EXPECT_GT(decoded.image.shape().bytes(), 0U);
      } catch (const SampleError&) {
      }
    }
  }
}

TEST(Decode, NothingIsPrintedForBrokenFiles) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  std::map<std::string, int> refused;
  for (const std::string name :
       {"rgb420.jpg", "progressive.jpg", "palette_alpha.png", "rgb16.png", "exif5.webp", "rle8.bmp",
        "rgb565.bmp", "lzw.tif", "big.tif", "bilevel.tif", "gray16.tif", "palette.tif"}) {
    const Bytes whole = fixture(name);
    for (std::size_t at = 0; at < whole.size(); ++at) {
      Bytes bytes = whole;
      bytes[at] ^= 0xFF;
      if (!refusal(bytes).empty()) ++refused[name];
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(refused.size(), 12U);
  // Others still get through.
  testing::internal::CaptureStderr();
  std::cerr << "one " << 2 << std::endl;
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "one 2\n");
}

void put_u32(Bytes& bytes, std::size_t at, std::uint32_t value, bool big_endian) {
  for (int i = 0; i < 4; ++i) {
    bytes[at + static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(value >> (big_endian ? 24 - 8 * i : 8 * i));
  }
}

TEST(Decode, SizesAreCheckedBeforeMemoryIsTaken) {
  DecodeOptions options;
  options.max_pixels = 23 * 17 - 1;
  for (const std::string name : {"rgb444.jpg", "rgb.png", "lossy.webp", "lossless.webp",
                                 "exif3.webp", "rgb.bmp", "rgb.tif", "big.tif"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(refusal(fixture(name), options),
              "an image of 23x17 pixels is above max_pixels = 390");
  }
  // Headers that promise far more than memory holds.
  Bytes png = fixture("rgb.png");
  put_u32(png, 16, 0x7FFFFFFF, true);
  put_u32(png, 20, 0x7FFFFFFF, true);
  EXPECT_EQ(refusal(png).substr(0, 47), "an image of 2147483647x2147483647 pixels is abo");
  Bytes bmp = fixture("rgb.bmp");
  put_u32(bmp, 18, 0x7FFFFFFF, false);
  put_u32(bmp, 22, 0x80000000, false);
  EXPECT_EQ(refusal(bmp), "BMP: the data ended before the last row");
  Bytes rle = fixture("rle8.bmp");
  put_u32(rle, 18, 0x7FFFFFFF, false);
  EXPECT_NE(refusal(rle).find("above max_pixels"), std::string::npos);
  put_u32(rle, 18, 0, false);
  EXPECT_EQ(refusal(rle), "BMP: a width of 0");
}

/// Runs `action` in a process of its own; by how many bytes its peak of resident memory rises, -1
/// where the action ends badly.
template <class Action>
std::int64_t peak_growth(Action action) {
  int pipe[2];
  if (::pipe(pipe) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto peak = [] {
      rusage used{};
      ::getrusage(RUSAGE_SELF, &used);
      return std::int64_t{used.ru_maxrss} * 1024;
    };
    const std::int64_t before = peak();
    std::int64_t growth = -1;
    if (action()) growth = peak() - before;
    if (::write(pipe[1], &growth, sizeof growth) != sizeof growth) ::_exit(1);
    ::_exit(0);
  }
  ::close(pipe[1]);
  std::int64_t growth = -1;
  if (::read(pipe[0], &growth, sizeof growth) != sizeof growth) growth = -1;
  ::close(pipe[0]);
  ::waitpid(child, nullptr, 0);
  return growth;
}

/// A small file of every format whose header promises `side` x `side` pixels.
std::map<std::string, Bytes> promising(std::uint32_t side) {
  const auto high = static_cast<std::uint8_t>(side >> 8);
  const auto low = static_cast<std::uint8_t>(side);
  std::map<std::string, Bytes> files;
  for (const std::string name : {"rgb420.jpg", "progressive.jpg", "cmyk.jpg"}) {
    Bytes jpeg = fixture(name);
    // SOF0 or SOF2: length, precision, height, width.
    for (std::size_t i = 2; i + 8 < jpeg.size(); i += 2U + jpeg[i + 2] * 256U + jpeg[i + 3]) {
      if (jpeg[i + 1] != 0xC0 && jpeg[i + 1] != 0xC2) continue;
      jpeg[i + 5] = jpeg[i + 7] = high;
      jpeg[i + 6] = jpeg[i + 8] = low;
      break;
    }
    files[name] = jpeg;
  }
  for (const std::string name : {"rgb.png", "rgb16.png", "palette.png"}) {
    Bytes& png = files[name] = fixture(name);
    put_u32(png, 16, side, true);
    put_u32(png, 20, side, true);
  }
  for (const std::string name : {"rle8.bmp", "rgb.bmp"}) {
    Bytes& bmp = files[name] = fixture(name);
    put_u32(bmp, 18, side, false);
    put_u32(bmp, 22, side, false);
  }
  Bytes& webp = files["exif3.webp"] = fixture("exif3.webp");
  for (const std::size_t at : {24U, 27U}) {
    webp[at] = static_cast<std::uint8_t>(side - 1);
    webp[at + 1] = static_cast<std::uint8_t>((side - 1) >> 8);
  }
  for (const std::string name : {"rgb.tif", "lzw.tif", "deflate.tif"}) {
    Bytes& tiff = files[name] = fixture(name);
    const std::size_t directory = tiff[4] + tiff[5] * 256U;
    for (std::size_t at = directory + 2; at < directory + 2 + 12U * tiff[directory]; at += 12) {
      if (tiff[at + 1] != 1 || tiff[at] > 1) continue;  // 256 and 257
      tiff[at + 2] = 4;                                 // 32 bits
      put_u32(tiff, at + 8, side, false);
    }
  }
  return files;
}

TEST(Decode, BombsAreRefusedBeforeMemoryIsTaken) {
  // 65,000 x 65,000 pixels are 12 GB; with the default limit not even one row is made room for.
  for (const auto& [name, bytes] : promising(65000)) {
    SCOPED_TRACE(name);
    const std::string reason = refusal(bytes);
    EXPECT_TRUE(reason.find("an image of 65000x65000 pixels is above max_pixels") == 0 ||
                (name == "rgb.bmp" && reason == "BMP: the data ended before the last row"))
        << reason;
    const std::int64_t growth = peak_growth([&] { return !refusal(bytes).empty(); });
    EXPECT_GE(growth, 0);
    EXPECT_LT(growth, 8 << 20);
  }
}

// DCT scaling -------------------------------------------------------------------------------------

SizeDemand demand_of(int height, int width, double bottom = 0) {
  SizeDemand demand;
  demand.full = false;
  demand.region = {height, width};
  demand.crop_bottom = bottom;
  return demand;
}

TEST(Decode, ReductionKeepsTheDemandedPixels) {
  const auto reduction = [](int width, int height, const SizeDemand& demand) {
    return choose_dct_reduction(Geometry::whole({height, width}), demand);
  };
  EXPECT_EQ(reduction(1024, 695, {}), 1);
  EXPECT_EQ(reduction(1024, 695, demand_of(128, 128, 20)), 4);
  EXPECT_EQ(reduction(1024, 532, demand_of(128, 128, 20)), 4);
  EXPECT_EQ(reduction(1024, 531, demand_of(128, 128, 20)), 2);
  EXPECT_EQ(reduction(1024, 1044, demand_of(128, 128, 20)), 8);
  EXPECT_EQ(reduction(1024, 695, demand_of(696, 1, 0)), 1);
  EXPECT_EQ(reduction(1024, 20, demand_of(128, 128, 20)), 1);
  EXPECT_EQ(reduction(1024, 10, demand_of(128, 128, 20)), 1);
}

TEST(Decode, ScaledJpegKeepsPositionsExactly) {
  // 1021 x 695 at 1/4 is 256 x 174, which would cover 1024 x 696.
  const Bytes bytes = encode_jpeg(gradient(695, 1021), false);
  DecodeOptions options;
  options.demand = demand_of(128, 128, 20);
  const Decoded scaled = decode_image(bytes, options);
  EXPECT_EQ(scaled.image.shape(), (ImageShape{174, 256}));
  EXPECT_EQ(scaled.geometry.region, (RectF{0, 0, 1021, 695}));
  EXPECT_EQ(scaled.geometry.region_in(scaled.image.shape()), (RectF{0, 0, 255.25, 173.75}));

  const Decoded full = decode_image(bytes);
  EXPECT_EQ(full.image.shape(), (ImageShape{695, 1021}));
  Image from_scaled(128, 128);
  Image from_full(128, 128);
  resize_area(scaled.image.view(), scaled.geometry.region_in(scaled.image.shape()),
              from_scaled.view());
  resize_area(full.image.view(), full.geometry.region_in(full.image.shape()), from_full.view());
  EXPECT_LE(largest_difference(from_scaled.pixels(), from_full.pixels()), 3);

  options.dct_scaling = false;
  EXPECT_EQ(decode_image(bytes, options).image.pixels(), full.image.pixels());
}

/// The JPEG with EXIF that says how it is to be turned.
Bytes with_orientation(const Bytes& jpeg, int orientation) {
  const auto turn = static_cast<std::uint8_t>(orientation);
  const Bytes exif = {0xFF, 0xE1, 0, 34,   'E', 'x', 'i', 'f', 0, 0, 'M', 'M',  0, 42, 0, 0, 0, 8,
                      0,    1,    1, 0x12, 0,   3,   0,   0,   0, 1, 0,   turn, 0, 0,  0, 0, 0, 0};
  Bytes bytes = jpeg;
  bytes.insert(bytes.begin() + 2, exif.begin(), exif.end());
  return bytes;
}

TEST(Decode, ScalingFollowsTheOrientation) {
  // Wide as stored, tall when upright: the margins and the demand are about the upright image.
  const Bytes plain = encode_jpeg(gradient(301, 603), false);
  DecodeOptions options;
  options.demand = demand_of(140, 70, 40);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    SCOPED_TRACE(orientation);
    const Bytes bytes = with_orientation(plain, orientation);
    const bool swapped = orientation >= 5;
    const Decoded full = decode_image(bytes);
    EXPECT_EQ(full.image.shape(), swapped ? (ImageShape{603, 301}) : (ImageShape{301, 603}));
    const Decoded scaled = decode_image(bytes, options);
    // Upright 301 x 603 less 40 at 1/4: 75 x 140. Upright 603 x 301: 261 rows give no 140 at 1/2.
    EXPECT_EQ(scaled.image.shape(), swapped ? (ImageShape{151, 76}) : (ImageShape{301, 603}));
    Image from_scaled(48, 48);
    Image from_full(48, 48);
    resize_area(scaled.image.view(), scaled.geometry.region_in(scaled.image.shape()),
                from_scaled.view());
    resize_area(full.image.view(), full.geometry.region_in(full.image.shape()), from_full.view());
    EXPECT_LE(largest_difference(from_scaled.pixels(), from_full.pixels()), 3);
  }
}

// Boxes -------------------------------------------------------------------------------------------

/// The pixels of `image` within whole-numbered edges.
Image cut_out(ConstImageView image, const RectF& box) {
  Image part(static_cast<int>(box.height), static_cast<int>(box.width));
  copy_image({image.row(static_cast<int>(box.y)) + static_cast<int>(box.x) * kChannels,
              part.shape().height, part.shape().width, image.stride},
             part.view());
  return part;
}

TEST(Decode, RectanglesTurnWithTheirPixels) {
  const ImageShape stored{7, 12};
  const RectF box{2, 1, 5, 3};
  Image marked(stored.height, stored.width);
  for (int y = 1; y < 4; ++y) {
    std::fill_n(marked.view().row(y) + 2 * kChannels, 5 * kChannels, std::uint8_t{255});
  }
  for (int value = 1; value <= 8; ++value) {
    SCOPED_TRACE(value);
    const auto orientation = static_cast<Orientation>(value);
    Image upright(stored.height, stored.width);
    if (swaps_axes(orientation)) upright.reshape(stored.width, stored.height);
    for (int y = 0; y < stored.height; ++y) {
      place_row(marked.view().row(y), y, stored, orientation, upright.view());
    }
    const Image part = cut_out(upright.view(), turn_upright(box, stored, orientation));
    EXPECT_EQ(part.pixels(), Bytes(5 * 3 * kChannels, 255));
  }
}

TEST(Decode, BoxesAreOfTheStoredImageInEveryFormat) {
  DecodeOptions options;
  options.region = RectF{1, 2, 9, 5};
  const std::map<std::string, int> turned = {
      {"exif1.jpg", 1},  {"exif2.jpg", 2},        {"exif3.jpg", 3},        {"exif4.jpg", 4},
      {"exif5.jpg", 5},  {"exif6.jpg", 6},        {"exif7.jpg", 7},        {"exif8.jpg", 8},
      {"exif6.png", 6},  {"exif2.png", 2},        {"exif3.webp", 3},       {"exif5.webp", 5},
      {"rgb.bmp", 1},    {"orientation7.tif", 7}, {"orientation3.tif", 3}, {"cmyk_exif6.jpg", 6},
      {"rgb565.bmp", 1}, {"lossless.webp", 1}};
  for (const auto& [name, value] : turned) {
    SCOPED_TRACE(name);
    const auto orientation = static_cast<Orientation>(value);
    const Decoded whole = decode_image(fixture(name));
    const Decoded boxed = decode_image(fixture(name), options);
    EXPECT_EQ(boxed.image.pixels(), whole.image.pixels());
    const ImageShape upright = whole.image.shape();
    const ImageShape stored =
        swaps_axes(orientation) ? ImageShape{upright.width, upright.height} : upright;
    EXPECT_EQ(boxed.geometry.region, turn_upright(*options.region, stored, orientation));
    EXPECT_EQ(boxed.geometry.frame, whole.geometry.region);
    EXPECT_TRUE(whole.geometry.is_whole());
  }
}

TEST(Decode, ReductionKeepsTheDemandedPixelsOfABox) {
  Geometry geometry = Geometry::whole({695, 1024});
  geometry.region = {100, 430, 600, 265};
  EXPECT_EQ(choose_dct_reduction(geometry, demand_of(128, 128)), 2);
  // 20 rows off the image are 20 off this box, and leave too few.
  EXPECT_EQ(choose_dct_reduction(geometry, demand_of(128, 128, 20)), 1);
  geometry.region = {100, 400, 600, 265};  // ends above those rows
  EXPECT_EQ(choose_dct_reduction(geometry, demand_of(128, 128, 20)), 2);
  geometry.region = {0, 680, 600, 15};
  EXPECT_EQ(choose_dct_reduction(geometry, demand_of(128, 128, 20)), 1);
}

TEST(Decode, BoxOfAScaledJpegHoldsWhatTheFullDecodeHolds) {
  const Bytes plain = encode_jpeg(gradient(701, 1021), false);
  const RectF box{333, 101, 517, 451};
  for (int value = 1; value <= 8; ++value) {
    SCOPED_TRACE(value);
    const Bytes bytes = with_orientation(plain, value);
    const Decoded full = decode_image(bytes);
    const RectF upright = turn_upright(box, {701, 1021}, static_cast<Orientation>(value));
    Image expected(100, 100);
    const Image part = cut_out(full.image.view(), upright);
    resize_area(part.view(), Geometry::whole(part.shape()).region, expected.view());

    DecodeOptions options;
    options.region = box;
    options.demand = demand_of(100, 100);
    for (const bool scaling : {false, true}) {
      options.dct_scaling = scaling;
      const Decoded decoded = decode_image(bytes, options);
      // 517 x 451 at 1/4 still gives 100 x 100; at 1/8 it would not.
      EXPECT_EQ(decoded.geometry.source_width, decoded.image.shape().width * (scaling ? 4 : 1));
      Image resized(100, 100);
      resize_area(decoded.image.view(), decoded.geometry.region_in(decoded.image.shape()),
                  resized.view());
      EXPECT_LE(largest_difference(resized.pixels(), expected.pixels()), scaling ? 3 : 0);
    }
  }
}

TEST(Decode, BoxesAreCutOffAtTheEdgeAndRefusedOutside) {
  const Bytes bytes = encode_jpeg(gradient(50, 80), false);
  DecodeOptions options;
  options.region = RectF{70, 40, 20, 20};
  EXPECT_EQ(decode_image(bytes, options).geometry.region, (RectF{70, 40, 10, 10}));
  options.region = RectF{-1, 2, 5, 3};
  EXPECT_EQ(decode_image(bytes, options).geometry.region, (RectF{0, 2, 4, 3}));
  options.region = RectF{80, 0, 20, 20};
  EXPECT_EQ(refusal(bytes, options),
            "the box from 80,0 to 100,20 lies outside the image of 80x50 pixels");
}

TEST(DecodeStage, StartsFromTheBoxThatTheSourceGave) {
  const Bytes bytes = encode_jpeg(gradient(400, 600), false);
  const auto stage = make_transform(image_decode_info(), {});
  stage->set_demand(demand_of(50, 50));
  MemoryOutput out;
  Rng rng(1, "test", 0);
  Geometry geometry;
  geometry.region = {100, 50, 210, 240};
  stage->process({SampleInfo{}, bytes, {}, geometry}, rng, out);
  EXPECT_EQ(out.pixels.shape(), (ImageShape{100, 150}));  // 1/8 would do for all, not for the box
  EXPECT_EQ(out.geometry->region, geometry.region);
  EXPECT_EQ(out.geometry->frame, (RectF{0, 0, 600, 400}));
}

// The stage ---------------------------------------------------------------------------------------

TEST(DecodeStage, TakesParametersAndDemand) {
  const Bytes bytes = encode_jpeg(gradient(400, 600), false);
  const auto shape = [&bytes](const std::map<std::string, Value>& given, const SizeDemand* demand) {
    const auto stage = make_transform(image_decode_info(), given);
    if (demand != nullptr) stage->set_demand(*demand);
    MemoryOutput out;
    Rng rng(1, "test", 0);
    stage->process({SampleInfo{}, bytes, {}, {}}, rng, out);
    EXPECT_EQ(out.geometry->region, (RectF{0, 0, 600, 400}));
    return out.pixels.shape();
  };
  const SizeDemand demand = demand_of(100, 100);
  EXPECT_EQ(shape({}, nullptr), (ImageShape{400, 600}));
  EXPECT_EQ(shape({}, &demand), (ImageShape{100, 150}));
  EXPECT_EQ(shape({{"dct_scaling", false}}, &demand), (ImageShape{400, 600}));
  EXPECT_EQ(shape({{"min_size", std::int64_t{101}}}, &demand), (ImageShape{200, 300}));
  EXPECT_EQ(shape({{"min_size", std::int64_t{50}}}, nullptr), (ImageShape{50, 75}));
}

TEST(DecodeStage, TruncatedIsAParameter) {
  Bytes bytes = encode_jpeg(gradient(96, 128), false);
  bytes.resize(bytes.size() / 2);
  MemoryOutput out;
  Rng rng(1, "test", 0);
  const StageInput in{SampleInfo{}, bytes, {}, {}};
  EXPECT_THROW(make_transform(image_decode_info(), {})->process(in, rng, out), SampleError);
  make_transform(image_decode_info(), {{"truncated", std::string("accept")}})
      ->process(in, rng, out);
  EXPECT_EQ(out.events, (std::map<std::string, int>{{"damaged JPEG accepted", 1}}));
}

// EXIF --------------------------------------------------------------------------------------------

TEST(Exif, GarbageIsNoOrientation) {
  const Bytes good = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
  ASSERT_EQ(read_orientation(good), Orientation::kRotateRight);
  for (std::size_t size = 0; size < good.size(); ++size) {
    const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    // All but the padding of the value is needed.
    EXPECT_EQ(read_orientation(cut), size < 20 ? Orientation::kNormal : Orientation::kRotateRight);
  }
  for (const std::uint8_t value : {0, 9, 255}) {
    Bytes bad = good;
    bad[18] = value;
    EXPECT_EQ(read_orientation(bad), Orientation::kNormal);
  }
  Bytes far = good;
  far[4] = far[5] = far[6] = far[7] = 0xFF;  // the directory is said to lie at 4 GB
  EXPECT_EQ(read_orientation(far), Orientation::kNormal);
  Bytes many = good;
  many[8] = many[9] = 0xFF;  // 65,535 entries
  many[10] = 0x13;           // none of them the orientation
  EXPECT_EQ(read_orientation(many), Orientation::kNormal);
}

// Real files --------------------------------------------------------------------------------------

/// A row of hostile.tsv, which make_hostile_table.py makes with Pillow.
struct Expected {
  std::string file;
  bool decoded = false;
  std::string reason;  ///< of a reject: what its text holds
  std::string size;    ///< "640x480", upright; here and below what Pillow makes of it, or "-"
  std::string conversions;
  std::string digest;  ///< SHA-256 of the pixels
};

std::vector<Expected> hostile_files() {
  std::vector<Expected> files;
  for (const auto& row : read_table(GP_SOURCE_DIR "/tests/stages/data/fixtures/hostile.tsv")) {
    files.push_back({row[0], row[1] == "decode", row[2], row[3] + "x" + row[4], row[5], row[6]});
  }
  return files;
}

void expect_pillows_pixels(const Decoded& decoded, const Expected& expected) {
  const ImageShape shape = decoded.image.shape();
  EXPECT_EQ(std::to_string(shape.width) + "x" + std::to_string(shape.height), expected.size);
  std::vector<std::string> conversions = decoded.events;
  std::erase(conversions, "JPEG decoder warning");
  std::erase(conversions, "damaged JPEG accepted");
  std::sort(conversions.begin(), conversions.end());
  EXPECT_EQ(join(conversions), expected.conversions);
  Sha256 sha;
  sha.update(decoded.image.pixels());
  EXPECT_EQ(sha.hex(), expected.digest) << "the pixels are not Pillow's";
}

class DecodeHostile : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(root_)) GTEST_SKIP() << "the hostile files are not at " << root_;
  }
  const std::string root_ = kData + "hostile/";
};

TEST_F(DecodeHostile, TableListsEveryFile) {
  std::vector<std::string> listed;
  for (const Expected& expected : hostile_files()) listed.push_back(expected.file);
  std::vector<std::string> there;
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    if (entry.is_regular_file()) there.push_back(fs::relative(entry.path(), root_).string());
  }
  std::erase(there, "MANIFEST.tsv");
  std::sort(listed.begin(), listed.end());
  std::sort(there.begin(), there.end());
  EXPECT_EQ(listed, there);
}

TEST_F(DecodeHostile, EveryFileIsDecodedAsByPillowOrRejected) {
  for (const Expected& expected : hostile_files()) {
    SCOPED_TRACE(expected.file);
    const Bytes bytes = read_file(root_ + expected.file);
    try {
      const Decoded decoded = decode_image(bytes);
      ASSERT_TRUE(expected.decoded) << "expected a reject: " << expected.reason;
      expect_pillows_pixels(decoded, expected);
    } catch (const SampleError& error) {
      EXPECT_FALSE(expected.decoded) << error.what();
      EXPECT_CONTAINS(error.what(), expected.reason);
    }
    // Damaged JPEGs that Pillow takes as they are.
    if (!expected.decoded && expected.digest != "-") {
      DecodeOptions accepting;
      accepting.accept_truncated = true;
      expect_pillows_pixels(decode_image(bytes, accepting), expected);
    }
  }
}

TEST_F(DecodeHostile, WhateverIsAskedForTheWorstIsAReject) {
  for (const Expected& expected : hostile_files()) {
    const Bytes bytes = read_file(root_ + expected.file);
    DecodeOptions options;
    options.accept_truncated = true;
    for (const int side : {1, 64, 1000}) {
      options.demand = demand_of(side, side, 20);
      try {
        EXPECT_GT(decode_image(bytes, options).image.shape().bytes(), 0U);
      } catch (const SampleError&) {
      }
    }
  }
}

TEST_F(DecodeHostile, BombsTakeNoMemory) {
  for (const std::string name :
       {"made/huge_12000x9000_gray.jpg", "jpegdec_crash/max_size.jpg",
        "jpegdec_crash/eecb78b937a7c5f04aae2f5b0f5b5acc.jpg", "pillow/png_decompression_dos.png"}) {
    SCOPED_TRACE(name);
    const Bytes bytes = read_file(root_ + name);
    const std::int64_t growth = peak_growth([&] {
      refusal(bytes);
      return true;
    });
    EXPECT_GE(growth, 0);
    EXPECT_LT(growth, 24 << 20);  // 193 x 31431 pixels, which are allowed, are 18 MB
  }
}

/// A photo as the models see it: without its banner, 128x128.
Image prepared(const Bytes& photo, const DecodeOptions& options) {
  Decoded decoded = decode_image(photo, options);
  decoded.geometry.region.height -= 20;
  Image image(128, 128);
  resize_area(decoded.image.view(), decoded.geometry.region_in(decoded.image.shape()),
              image.view());
  return image;
}

TEST(DecodePhotos, ScaledDecodingLooksLikeFullDecoding) {
  const std::string root = kData + "fgvc-aircraft-2013b/data/images";
  if (!fs::exists(root)) GTEST_SKIP() << "FGVC-Aircraft is not at " << root;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  struct Difference {
    int min_size;
    double mean;  ///< of 255
    int largest;
  };
  // 1.7 on average when the pixels over the edge are not reckoned with.
  for (const Difference& limit : {Difference{128, 1.2, 80}, Difference{256, 0.45, 40}}) {
    SCOPED_TRACE(limit.min_size);
    double sum = 0;
    int worst = 0;
    int photos = 0;
    int scaled_photos = 0;
    const std::size_t step = std::max<std::size_t>(1, files.size() / 40);
    for (std::size_t i = 0; i < files.size(); i += step, ++photos) {
      SCOPED_TRACE(files[i].string());
      const Bytes bytes = read_file(files[i]);
      DecodeOptions options;
      options.demand = demand_of(limit.min_size, limit.min_size, 20);
      const Image scaled = prepared(bytes, options);
      const Decoded small = decode_image(bytes, options);
      if (small.geometry.source_width != small.image.shape().width) ++scaled_photos;
      options.dct_scaling = false;
      EXPECT_EQ(decode_image(bytes, options).image.pixels(), decode_image(bytes).image.pixels());
      const Image full = prepared(bytes, options);
      sum += mean_difference(full.pixels(), scaled.pixels());
      worst = std::max(worst, largest_difference(full.pixels(), scaled.pixels()));
    }
    const double mean = sum / photos;
    std::printf(
        "%d photos decoded at %d or more against full size, at 128x128: mean %.3f, largest %d\n",
        photos, limit.min_size, mean, worst);
    EXPECT_GT(scaled_photos, 30);
    EXPECT_LT(mean, limit.mean);
    EXPECT_LE(worst, limit.largest);
  }
}

}  // namespace
}  // namespace gp
