#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>
#include <thread>

#include "stages/data/hdf5/shard_reader.hpp"
#include "stages/data/hdf5/shard_writer.hpp"
#include "tests/stages/data/hdf5/shard_fixture.hpp"

namespace gp {
namespace {

using test::error_of;
using test::key_of;
using test::label_of;
using test::noise;
using test::TemporaryFolder;

constexpr ImageShape kShape{6, 5};

ShardInfo info() { return {kShape, {"707-320", "A318", "F/A-18 \xC3\xA9"}, "source", "config"}; }

/// Images 0 .. count-1, `step` at a time.
void write_shard(const std::filesystem::path& file, int count, int step, int capacity,
                 const ShardInfo& of = info()) {
  ShardWriter writer(file, of, capacity);
  for (int first = 0; first < count; first += step) {
    std::vector<std::uint8_t> pixels;
    std::vector<std::string> keys;
    std::vector<std::int32_t> labels;
    for (int i = first; i < std::min(count, first + step); ++i) {
      const auto number = static_cast<std::uint64_t>(i);
      const std::vector<std::uint8_t> image = noise(of.shape, number);
      pixels.insert(pixels.end(), image.begin(), image.end());
      keys.push_back(key_of(number));
      labels.push_back(label_of(number));
    }
    writer.append(pixels, keys, labels);
  }
  writer.finish();
}

TEST(Shard, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  write_shard(folder / "a.h5", 37, 8, 37);
  for (const bool keep_open : {true, false}) {
    const ShardReader shard(folder / "a.h5", keep_open);
    EXPECT_EQ(shard.info(), info());
    ASSERT_EQ(shard.count(), 37);
    std::vector<std::uint8_t> pixels(kShape.bytes());
    for (int i = 0; i < shard.count(); ++i) {
      const auto number = static_cast<std::uint64_t>(i);
      shard.read(i, pixels);
      ASSERT_EQ(pixels, noise(kShape, number)) << i;
      EXPECT_EQ(shard.key(i), key_of(number));
      EXPECT_EQ(shard.label(i), label_of(number));
    }
  }
}

TEST(Shard, BytesDependOnContentOnly) {
  const TemporaryFolder folder;
  write_shard(folder / "a.h5", 150, 150, 150);
  const std::string expected = read_text(folder / "a.h5");
  std::filesystem::create_directory(folder / "elsewhere");
  int number = 0;
  for (const int step : {1, 64, 7}) {
    // The last one is planned longer than it gets, and copied.
    for (const int capacity : {150, 151, 4096}) {
      const auto file = folder / ("elsewhere/" + std::to_string(number++) + ".h5");
      write_shard(file, 150, step, capacity);
      EXPECT_TRUE(read_text(file) == expected) << "step " << step << ", capacity " << capacity;
    }
  }
}

TEST(Shard, RemembersNoTimes) {
  // Two builds within one second would be equal with times in them; this says that there are none.
  const TemporaryFolder folder;
  write_shard(folder / "a.h5", 3, 3, 3);
  const hid_t file = H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  for (const char* name : {"/", "images", "crc32c", "labels", "keys"}) {
    H5O_info_t object{};
    ASSERT_GE(H5Oget_info_by_name2(file, name, &object, H5O_INFO_TIME, H5P_DEFAULT), 0);
    EXPECT_EQ(object.atime, 0) << name;
    EXPECT_EQ(object.mtime, 0) << name;
    EXPECT_EQ(object.ctime, 0) << name;
    EXPECT_EQ(object.btime, 0) << name;
  }
  H5Fclose(file);
}

TEST(Shard, SurvivesUnusualNames) {
  const TemporaryFolder folder;
  ShardInfo of = info();
  of.class_names.clear();
  // 180 kB, more than a plain HDF5 attribute can hold.
  for (int i = 0; i < 3000; ++i) of.class_names.push_back(std::string(50, 'x') + std::to_string(i));
  of.source_digest = "";
  ShardWriter writer(folder / "a.h5", of, 3);
  const std::vector<std::string> keys = {"", std::string(5000, 'k') + "\xF0\x9F\x9B\xA9", "b c/d"};
  const std::vector<std::int32_t> labels = {-1, 2147483647, -2147483647 - 1};
  writer.append(std::vector<std::uint8_t>(3 * kShape.bytes(), 9), keys, labels);
  writer.finish();
  const ShardReader shard(folder / "a.h5");
  EXPECT_EQ(shard.info(), of);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(shard.key(i), keys[static_cast<std::size_t>(i)]);
    EXPECT_EQ(shard.label(i), labels[static_cast<std::size_t>(i)]);
  }

  of.class_names.clear();
  write_shard(folder / "b.h5", 1, 1, 1, of);
  EXPECT_TRUE(ShardReader(folder / "b.h5").info().class_names.empty());
}

TEST(Shard, RefusesAKeyThatWouldComeBackAsAnother) {
  const TemporaryFolder folder;
  ShardWriter writer(folder / "a.h5", info(), 1);
  const std::vector<std::string> keys = {std::string("a\0b", 3)};
  const std::vector<std::int32_t> labels = {0};
  EXPECT_CONTAINS(error_of<DataError>([&] { writer.append(noise(kShape, 0), keys, labels); }),
                  "zero byte");
}

TEST(Shard, LeavesNothingWithoutFinish) {
  const TemporaryFolder folder;
  {
    ShardWriter writer(folder / "a.h5", info(), 2);
    const std::vector<std::string> keys = {"k"};
    const std::vector<std::int32_t> labels = {0};
    writer.append(noise(kShape, 0), keys, labels);
    EXPECT_EQ(test::names(folder.path()), std::vector<std::string>{"a.h5.tmp"});
  }
  EXPECT_TRUE(test::names(folder.path()).empty());
}

TEST(Shard, ExplainsThatItCannotBeCreated) {
  const std::string text = error_of<DataError>([] { ShardWriter("/nonexistent/a.h5", info(), 1); });
  EXPECT_CONTAINS(text, "/nonexistent/a.h5.tmp");
  EXPECT_CONTAINS(text, "No such file");
}

TEST(Shard, ReadsFromManyThreadsAtOnce) {
  const TemporaryFolder folder;
  write_shard(folder / "a.h5", 100, 100, 100);
  const ShardReader shard(folder / "a.h5");
  std::atomic<int> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::vector<std::uint8_t> pixels(kShape.bytes());
        for (int i = 0; i < 400; ++i) {
          const int image = (i * 37 + t * 11) % 100;
          shard.read(image, pixels);
          if (pixels != noise(kShape, static_cast<std::uint64_t>(image))) ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(Shard, NamesTheImageThatIsDamaged) {
  const TemporaryFolder folder;
  write_shard(folder / "shard-00000.h5", 9, 9, 9);
  std::string bytes = read_text(folder / "shard-00000.h5");
  const std::vector<std::uint8_t> image = noise(kShape, 4);
  const std::size_t at = bytes.find(std::string(image.begin(), image.end()));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 17] ^= 0x10;
  test::overwrite(folder / "shard-00000.h5", bytes);
  const ShardReader shard(folder / "shard-00000.h5");
  std::vector<std::uint8_t> pixels(kShape.bytes());
  const std::string text = error_of<SampleError>([&] { shard.read(4, pixels); });
  EXPECT_CONTAINS(text, "shard-00000.h5, image 4 ('" + key_of(4) + "')");
  EXPECT_CONTAINS(text, "CRC-32C");
  for (const int intact : {3, 5}) EXPECT_NO_THROW(shard.read(intact, pixels));
}

TEST(Shard, NoticesWhenItIsCutWhileInUse) {
  const TemporaryFolder folder;
  write_shard(folder / "a.h5", 9, 9, 9);
  const ShardReader shard(folder / "a.h5");
  std::filesystem::resize_file(folder / "a.h5", 10);
  std::vector<std::uint8_t> pixels(kShape.bytes());
  EXPECT_CONTAINS(error_of<SampleError>([&] { shard.read(0, pixels); }), "cut short");
}

// Files that are not as ShardWriter makes them. Each is made from a good one through HDF5 itself.

using Change = std::function<void(hid_t file)>;

void add(hid_t file, const char* name, hid_t type, const std::vector<hsize_t>& dims,
         bool chunked = false) {
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  if (chunked) H5Pset_chunk(creation, static_cast<int>(dims.size()), dims.data());
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(set, 0);
  H5Dclose(set);
  H5Pclose(creation);
  H5Sclose(space);
}

std::string error_after(const Change& change) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "shard-00000.h5";
  write_shard(path, 4, 4, 4);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  EXPECT_GE(file, 0);
  change(file);
  H5Fclose(file);
  const std::string text = error_of<DataError>([&] { ShardReader shard(path); });
  EXPECT_CONTAINS(text, path.string());
  return text;
}

/// Replaces a dataset by one of another type or shape.
Change replace(const char* name, hid_t type, const std::vector<hsize_t>& dims,
               bool chunked = false) {
  return [=](hid_t file) {
    H5Ldelete(file, name, H5P_DEFAULT);
    add(file, name, type, dims, chunked);
  };
}

TEST(ShardLayout, WrongShapeOrTypeOfImages) {
  const std::vector<std::vector<hsize_t>> shapes = {
      {4, 6, 5}, {4, 6, 5, 4}, {4, 6, 5, 3, 1}, {5000, 1, 1, 3}, {0, 6, 5, 3}};
  for (const auto& shape : shapes) {
    EXPECT_CONTAINS(error_after(replace("images", H5T_STD_U8LE, shape)), "dataset 'images'");
  }
  EXPECT_CONTAINS(error_after(replace("images", H5T_STD_I8LE, {4, 6, 5, 3})), "uint8");
  EXPECT_CONTAINS(error_after(replace("images", H5T_IEEE_F32LE, {4, 6, 5, 3})), "uint8");
}

TEST(ShardLayout, TablesThatDoNotFitTheImages) {
  EXPECT_CONTAINS(error_after(replace("crc32c", H5T_STD_U32LE, {3})), "'crc32c'");
  EXPECT_CONTAINS(error_after(replace("labels", H5T_STD_I64LE, {4})), "'labels'");
  EXPECT_CONTAINS(error_after(replace("keys", H5T_STD_I32LE, {4})), "'keys'");
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, 9);
  EXPECT_CONTAINS(error_after(replace("keys", text, {5})), "'keys' has 5 entries for 4 images");
  H5Tset_size(text, H5T_VARIABLE);
  EXPECT_CONTAINS(error_after(replace("keys", text, {4})), "fixed length");
  H5Tclose(text);
}

TEST(ShardLayout, ImagesInChunks) {
  EXPECT_CONTAINS(error_after(replace("images", H5T_STD_U8LE, {4, 6, 5, 3}, true)), "contiguous");
}

TEST(ShardLayout, MissingDataset) {
  for (const char* name : {"images", "crc32c", "labels", "keys"}) {
    const std::string text = error_after([&](hid_t file) { H5Ldelete(file, name, H5P_DEFAULT); });
    EXPECT_CONTAINS(text, std::string("'") + name + "'");
    EXPECT_CONTAINS(text, "HDF5 says");
  }
}

TEST(ShardLayout, AnotherSchemaVersion) {
  const std::string text = error_after([](hid_t file) {
    const hid_t attribute = H5Aopen(file, "schema_version", H5P_DEFAULT);
    const int version = kShardSchemaVersion + 1;
    H5Awrite(attribute, H5T_NATIVE_INT, &version);
    H5Aclose(attribute);
  });
  EXPECT_CONTAINS(text, "schema version 2; this program reads version 1");
}

TEST(ShardLayout, MissingAttribute) {
  for (const char* name : {"schema_version", "class_names", "source_digest", "config_digest"}) {
    EXPECT_CONTAINS(error_after([&](hid_t file) { H5Adelete(file, name); }),
                    std::string("'") + name + "'");
  }
}

TEST(ShardLayout, NotAnHdf5FileOrCutShort) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "a.h5";
  write_shard(path, 4, 4, 4);
  const std::string whole = read_text(path);
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{3}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    test::overwrite(path, whole.substr(0, length));
    EXPECT_CONTAINS(error_of<DataError>([&] { ShardReader shard(path); }), path.string());
  }
  test::overwrite(path, std::string(5000, 'x'));
  EXPECT_CONTAINS(error_of<DataError>([&] { ShardReader shard(path); }), "HDF5 says");
  EXPECT_CONTAINS(error_of<DataError>([&] { ShardReader shard(folder / "none.h5"); }), "missing");
  EXPECT_CONTAINS(error_of<DataError>([&] { ShardReader shard(folder.path()); }), "regular file");
}

}  // namespace
}  // namespace gp
