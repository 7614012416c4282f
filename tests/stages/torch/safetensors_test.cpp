#include "stages/torch/safetensors.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

class SafetensorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("gp_safetensors_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    file_ = folder_ / "a.safetensors";
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// A file by hand: length, header, data.
  void write_raw(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    write_with_length(length, header, data);
  }
  void write_with_length(std::uint64_t length, const std::string& header, const std::string& data) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    write_file(file_, bytes + header + data);
  }
  /// The message with which reading fails; "" when it does not.
  std::string error() {
    try {
      read_safetensors(file_);
    } catch (const DataError& e) {
      EXPECT_EQ(e.exit_code(), ExitCode::kData);
      EXPECT_NE(std::string(e.what()).find(file_.string()), std::string::npos) << e.what();
      return e.what();
    }
    return "";
  }
  void expect_refused(const std::string& part) {
    EXPECT_NE(error().find(part), std::string::npos) << "got '" << error() << "'";
  }

  fs::path folder_;
  fs::path file_;
};

TEST_F(SafetensorsTest, EveryTypeComesBackBitForBit) {
  Safetensors contents;
  contents.metadata = {{"gan", R"({"step": 3, "text": "\u00fc \"q\""})"}, {"empty", ""}};
  const at::Tensor values = at::arange(-6, 6, at::kDouble).mul(1.37).reshape({3, 4});
  const std::pair<const char*, at::ScalarType> types[] = {
      {"f64", at::kDouble}, {"f32", at::kFloat}, {"f16", at::kHalf},  {"bf16", at::kBFloat16},
      {"i64", at::kLong},   {"i32", at::kInt},   {"i16", at::kShort}, {"i8", at::kChar}};
  for (const auto& [name, type] : types) contents.tensors[name] = values.to(type);
  contents.tensors["u8"] = values.abs().to(at::kByte);
  contents.tensors["bool"] = values.gt(0);
  contents.tensors["scalar"] = at::scalar_tensor(2.5, at::kDouble);
  contents.tensors["empty"] = at::empty({0, 5}, at::kFloat);
  contents.tensors["transposed"] = values.t();
  contents.tensors["channels_last"] =
      at::arange(24, at::kFloat).reshape({1, 2, 3, 4}).contiguous(at::MemoryFormat::ChannelsLast);
  write_safetensors(file_, contents);

  const Safetensors read = read_safetensors(file_);
  EXPECT_EQ(read.metadata, contents.metadata);
  ASSERT_EQ(read.tensors.size(), contents.tensors.size());
  for (const auto& [name, tensor] : contents.tensors) {
    const at::Tensor& other = read.tensors.at(name);
    EXPECT_EQ(other.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(other.is_contiguous()) << name;
    EXPECT_TRUE(at::equal(other, tensor)) << name;
  }
}

TEST_F(SafetensorsTest, BytesAreThoseOfTheSpecification) {
  Safetensors contents;
  contents.tensors["b"] = at::tensor({1, 2}, at::kByte);
  contents.tensors["a"] = at::tensor({3}, at::kByte);
  contents.tensors["f"] = at::tensor({1.0f});
  contents.metadata["k"] = "v";
  write_safetensors(file_, contents);
  // Wide types first, so that all are aligned; the header is padded to a multiple of 8.
  std::string header =
      R"({"__metadata__":{"k":"v"},"a":{"data_offsets":[4,5],"dtype":"U8","shape":[1]},)"
      R"("b":{"data_offsets":[5,7],"dtype":"U8","shape":[2]},)"
      R"("f":{"data_offsets":[0,4],"dtype":"F32","shape":[1]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string expected(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(expected.data(), &length, 8);
  expected += header + std::string("\x00\x00\x80\x3f\x03\x01\x02", 7);
  EXPECT_EQ(read_text(file_), expected);
}

TEST_F(SafetensorsTest, SameInputSameBytesAndNothingElseIsLeft) {
  Safetensors contents;
  for (int i = 0; i < 20; ++i) contents.tensors["t" + std::to_string(i)] = at::full({i}, i);
  write_safetensors(file_, contents);
  const std::string first = read_text(file_);
  write_safetensors(file_, contents);
  EXPECT_EQ(read_text(file_), first);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(SafetensorsTest, ReadsWhatTheFormatAllows) {
  write_raw("{}   ", "");  // no tensors, padded
  EXPECT_TRUE(read_safetensors(file_).tensors.empty());
  // Data in another order than the names; an empty tensor between.
  write_raw(R"({"a":{"dtype":"I16","shape":[1],"data_offsets":[2,4]},)"
            R"("b":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]},)"
            R"("c":{"dtype":"F64","shape":[7,0],"data_offsets":[2,2]}})",
            std::string("\x01\x02\x03\x04", 4));
  const Safetensors read = read_safetensors(file_);
  EXPECT_EQ(read.tensors.at("a").item<int>(), 0x0403);
  EXPECT_EQ(read.tensors.at("b").sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_EQ(read.tensors.at("c").sizes(), (at::IntArrayRef{7, 0}));
}

TEST_F(SafetensorsTest, RefusesWhatIsNoFile) {
  expect_refused("there is no such file");
  file_ = folder_;
  expect_refused("there is no such file");
}

TEST_F(SafetensorsTest, RefusesGarbage) {
  write_file(file_, std::string_view(""));
  expect_refused("0 bytes");
  write_file(file_, std::string_view("short"));
  expect_refused("5 bytes");
  write_file(file_, std::string(1000, 'x'));
  expect_refused("header claims");
  write_raw("", "");
  expect_refused("does not start with '{'");
  write_raw("[]", "");
  expect_refused("does not start with '{'");
  write_raw(R"({"a":)", "");
  expect_refused("no JSON");
  write_raw("{\"\xff\":1}", "");
  expect_refused("no JSON");
  write_raw("{" + std::string(100000, '['), "");
  expect_refused("no JSON");
}

TEST_F(SafetensorsTest, RefusesHeaderLengthsThatDoNotFit) {
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    write_with_length(length, "{}", "");
    expect_refused("header claims " + std::to_string(length));
  }
  // Within the file, but above the format's limit: a sparse file is enough to show it.
  write_with_length(100'000'001, "{}", "");
  fs::resize_file(file_, 100'000'100);
  expect_refused("limit 100000000");
}

TEST_F(SafetensorsTest, RefusesTruncationAtEveryLength) {
  Safetensors contents;
  contents.tensors["x"] = at::arange(5, at::kFloat);
  contents.tensors["y"] = at::arange(3, at::kByte);
  write_safetensors(file_, contents);
  const std::string whole = read_text(file_);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_file(file_, std::string_view(whole).substr(0, size));
    EXPECT_NE(error(), "") << size;
  }
  write_file(file_, whole + "z");
  expect_refused("trailing bytes");
}

TEST_F(SafetensorsTest, RefusesOffsetsThatDoNotCoverTheData) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  write_raw(two("[0,4]", "[4,8]"), "12345678");
  EXPECT_EQ(error(), "");
  write_raw(two("[0,4]", "[3,7]"), "1234567");
  expect_refused("overlap");
  write_raw(two("[0,4]", "[0,4]"), "1234");
  expect_refused("overlap");
  write_raw(two("[0,4]", "[5,9]"), "123456789");
  expect_refused("hole");
  write_raw(two("[1,5]", "[5,9]"), "123456789");
  expect_refused("hole");
  write_raw(two("[0,4]", "[4,8]"), "1234567");
  expect_refused("truncated?");
  write_raw(two("[4,0]", "[4,8]"), "12345678");
  expect_refused("do not span");
  write_raw(two("[0,3]", "[3,7]"), "1234567");
  expect_refused("do not span the 4 bytes");
  write_raw(two("[18446744073709551615,3]", "[3,7]"), "1234567");
  expect_refused("do not span");
  for (const char* bad : {"[0]", "[0,4,8]", "[-4,0]", "[0.0,4.0]", "\"0,4\"", "null"}) {
    write_raw(two(bad, "[4,8]"), "12345678");
    expect_refused("data_offsets is no pair");
  }
}

TEST_F(SafetensorsTest, RefusesBadEntries) {
  const auto one = [](const std::string& dtype, const std::string& shape) {
    return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":[0,4]}})";
  };
  for (const char* dtype : {R"("F8_E4M3")", R"("f32")", "7", "null"}) {
    write_raw(one(dtype, "[1]"), "1234");
    expect_refused("unknown dtype");
  }
  for (const char* shape : {"[-1]", "[1.5]", "[9223372036854775808]", "[\"1\"]"}) {
    write_raw(one(R"("F32")", shape), "1234");
    expect_refused("no list of sizes");
  }
  for (const char* shape : {"[4294967296,4294967296]", "[0,9223372036854775807]"}) {
    write_raw(one(R"("F32")", shape), "1234");
    expect_refused("too large");
  }
  write_raw(one(R"("F32")", "1"), "1234");
  expect_refused("shape is no list");
  write_raw(R"({"a":{"dtype":"U8","shape":[1]}})", "1");
  expect_refused("expected an object of dtype");
  write_raw(R"({"a":5})", "");
  expect_refused("expected an object of dtype");
  write_raw(R"({"__metadata__":{"k":1}})", "");
  expect_refused("__metadata__.k is no string");
  write_raw(R"({"__metadata__":[]})", "");
  expect_refused("__metadata__ is no JSON object");
  write_raw(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
            "1");
  expect_refused("'a' occurs twice");
  write_raw(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\x01\x02");
  expect_refused("bytes other than 0 and 1");
}

TEST_F(SafetensorsTest, RefusesToWriteWhatTheFormatLacks) {
  Safetensors contents;
  contents.tensors["c"] = at::zeros({1}, at::kComplexFloat);
  EXPECT_THROW(write_safetensors(file_, contents), RunError);
  contents.tensors = {{"undefined", at::Tensor()}};
  EXPECT_THROW(write_safetensors(file_, contents), RunError);
  contents.tensors = {{"__metadata__", at::zeros({1})}};
  EXPECT_THROW(write_safetensors(file_, contents), RunError);
  contents.tensors = {{"\xff", at::zeros({1})}};
  EXPECT_THROW(write_safetensors(file_, contents), RunError);
  EXPECT_FALSE(fs::exists(file_));
}

}  // namespace
}  // namespace gp
