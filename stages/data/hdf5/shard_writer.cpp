#include "stages/data/hdf5/shard_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

#include "pipeline/files.hpp"
#include "stages/data/hdf5/crc32c.hpp"
#include "stages/data/hdf5/hdf5_handle.hpp"
#include "stages/data/hdf5/manifest.hpp"

namespace gp {
namespace {

using hdf5::check;
using hdf5::Handle;

/// The images of a shard that turns out shorter than planned are copied this many at a time.
constexpr int kCopyImages = 64;

std::array<hsize_t, 4> dims_of(ImageShape shape, int count) {
  return {static_cast<hsize_t>(count), static_cast<hsize_t>(shape.height),
          static_cast<hsize_t>(shape.width), static_cast<hsize_t>(kChannels)};
}

/// `texts` one after the other, each filled up to `width` with zero bytes.
std::vector<char> pad(std::span<const std::string> texts, std::size_t width) {
  std::vector<char> padded(texts.size() * width, '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::copy(texts[i].begin(), texts[i].end(), padded.begin() + static_cast<long>(i * width));
  }
  return padded;
}

std::size_t longest(std::span<const std::string> texts) {
  std::size_t width = 1;  // HDF5 has no strings of width 0
  for (const std::string& text : texts) width = std::max(width, text.size());
  return width;
}

/// Makes the content durable before the name: after a crash there is the old file or the new one.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& file) {
  sync_to_disk(temporary);
  if (::rename(temporary.c_str(), file.c_str()) != 0) {
    throw RunError(file.string() + ": cannot rename to: " + write_failure(errno));
  }
  sync_to_disk(file.has_parent_path() ? file.parent_path() : ".");
}

}  // namespace

std::uint32_t tables_checksum(std::span<const std::uint32_t> checksums,
                              std::span<const std::int32_t> labels,
                              std::span<const std::string> keys) {
  std::vector<std::uint8_t> bytes;
  const auto add = [&bytes](std::uint32_t number) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<std::uint8_t>(number >> shift));
    }
  };
  for (std::size_t i = 0; i < keys.size(); ++i) {
    add(checksums[i]);
    add(static_cast<std::uint32_t>(labels[i]));
    add(static_cast<std::uint32_t>(keys[i].size()));
    bytes.insert(bytes.end(), keys[i].begin(), keys[i].end());
  }
  return crc32c(bytes);
}

void sync_to_disk(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!done) throw RunError(path.string() + ": cannot fsync: " + write_failure(error));
}

/// The open HDF5 file. Every member is called within a Session.
struct ShardWriter::File {
  std::filesystem::path path;
  ImageShape shape;
  Handle file;
  Handle images;

  File(const std::filesystem::path& where, const ShardInfo& info, int count)
      : path(where), shape(info.shape) {
    const std::string what = path.string() + ": cannot create the shard";
    Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, what);
    check(H5Pset_obj_track_times(creation, 0), what);  // of the root group
    file = Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, hdf5::file_access()), H5Fclose,
                  what);
    const std::string format = "gan-pipeline shard";
    write_text("format", {&format, 1}, false);
    const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, what);
    const Handle version(
        H5Acreate2(file, "schema_version", H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT),
        H5Aclose, what);
    const std::int32_t number = kShardSchemaVersion;
    check(H5Awrite(version, H5T_NATIVE_INT32, &number), what);
    write_text("source_digest", {&info.source_digest, 1}, false);
    write_text("config_digest", {&info.config_digest, 1}, false);
    write_text("class_names", info.class_names, true);
    images = create("images", H5T_STD_U8LE, dims_of(shape, count));
  }

  /// An attribute of the root group: one string, or a list of them.
  void write_text(const char* name, std::span<const std::string> texts, bool list) {
    const std::string what = path.string() + ": cannot write the attribute '" + name + "'";
    const std::size_t width = longest(texts);
    const Handle type = hdf5::string_type(width, what);
    const hsize_t length = texts.size();
    const Handle space(list ? H5Screate_simple(1, &length, nullptr) : H5Screate(H5S_SCALAR),
                       H5Sclose, what);
    const Handle attribute(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                           what);
    if (!texts.empty()) check(H5Awrite(attribute, type, pad(texts, width).data()), what);
  }

  /// A contiguous dataset whose place in the file is fixed now and not filled in advance.
  Handle create(const char* name, hid_t type, std::span<const hsize_t> dims) {
    const std::string what = path.string() + ": cannot create the dataset '" + name + "'";
    const Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                       H5Sclose, what);
    const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
    check(H5Pset_layout(creation, H5D_CONTIGUOUS), what);
    check(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), what);
    check(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), what);
    check(H5Pset_obj_track_times(creation, 0), what);
    return {H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose,
            what};
  }

  /// Memory and file space of `count` images from number `first` on.
  std::pair<Handle, Handle> select(int first, int count, const std::string& what) const {
    const std::array<hsize_t, 4> dims = dims_of(shape, count);
    const std::array<hsize_t, 4> start = {static_cast<hsize_t>(first), 0, 0, 0};
    Handle memory(H5Screate_simple(4, dims.data(), nullptr), H5Sclose, what);
    Handle space(H5Dget_space(images), H5Sclose, what);
    check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, dims.data(), nullptr),
          what);
    return {std::move(memory), std::move(space)};
  }

  void write_images(int first, int count, const std::uint8_t* pixels) {
    const std::string what = path.string() + ": cannot write images";
    const auto [memory, space] = select(first, count, what);
    check(H5Dwrite(images, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, pixels), what);
  }

  void read_images(int first, int count, std::uint8_t* pixels) const {
    const std::string what = path.string() + ": cannot read back images";
    const auto [memory, space] = select(first, count, what);
    check(H5Dread(images, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, pixels), what);
  }

  void write_table(const char* name, hid_t file_type, hid_t memory_type, hsize_t length,
                   const void* values) {
    const Handle table = create(name, file_type, {&length, 1});
    check(H5Dwrite(table, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values),
          path.string() + ": cannot write '" + name + "'");
  }

  void close() {
    const std::string what = path.string() + ": cannot close the shard";
    images.close(what);
    check(H5Fflush(file, H5F_SCOPE_LOCAL), what);
    file.close(what);
  }
};

ShardWriter::ShardWriter(std::filesystem::path file, ShardInfo info, int capacity)
    : file_(std::move(file)), temporary_(file_), info_(std::move(info)), capacity_(capacity) {
  if (capacity < 1 || capacity > kMaxImagesPerShard || !info_.shape.fixed()) {
    throw std::logic_error("ShardWriter: bad capacity or shape");
  }
  temporary_ += ".tmp";
  const hdf5::Session session;
  out_ = std::make_unique<File>(temporary_, info_, capacity_);
}

ShardWriter::~ShardWriter() {
  if (out_ == nullptr) return;
  {
    const hdf5::Session session;
    out_.reset();
  }
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void ShardWriter::append(std::span<const std::uint8_t> pixels, std::span<const std::string> keys,
                         std::span<const std::int32_t> labels) {
  const std::size_t bytes = info_.shape.bytes();
  if (pixels.size() != keys.size() * bytes || labels.size() != keys.size() ||
      keys_.size() + keys.size() > static_cast<std::size_t>(capacity_)) {
    throw std::logic_error("ShardWriter::append: sizes do not fit");
  }
  if (keys.empty()) return;
  for (const std::string& key : keys) {
    // The padding would swallow it, and the key would come back as another one.
    if (key.find('\0') != std::string::npos) {
      throw DataError("the key '" + std::string(key.c_str()) +
                      "...' holds a zero byte, which a shard cannot store; rename the file");
    }
  }
  {
    const hdf5::Session session;
    out_->write_images(count(), static_cast<int>(keys.size()), pixels.data());
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    checksums_.push_back(crc32c(pixels.subspan(i * bytes, bytes)));
  }
  keys_.insert(keys_.end(), keys.begin(), keys.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
}

void ShardWriter::finish() {
  if (keys_.empty()) throw std::logic_error("ShardWriter::finish: no images");
  {
    const hdf5::Session session;
    if (count() < capacity_) {
      // Fewer images than planned, and a contiguous dataset cannot shrink: start again with the
      // right length, then take the place of the first attempt.
      std::filesystem::path exact = file_;
      exact += ".exact.tmp";
      try {
        auto shorter = std::make_unique<File>(exact, info_, count());
        std::vector<std::uint8_t> pixels(kCopyImages * info_.shape.bytes());
        for (int first = 0; first < count(); first += kCopyImages) {
          const int images = std::min(kCopyImages, count() - first);
          out_->read_images(first, images, pixels.data());
          shorter->write_images(first, images, pixels.data());
        }
        out_ = std::move(shorter);
        std::filesystem::rename(exact, temporary_);
      } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(exact, ignored);
        throw;
      }
    }
    const hsize_t length = keys_.size();
    out_->write_table("crc32c", H5T_STD_U32LE, H5T_NATIVE_UINT32, length, checksums_.data());
    out_->write_table("labels", H5T_STD_I32LE, H5T_NATIVE_INT32, length, labels_.data());
    const std::size_t width = longest(keys_);
    const Handle type = hdf5::string_type(width, temporary_.string());
    out_->write_table("keys", type, type, length, pad(keys_, width).data());
    out_->close();
  }
  publish(temporary_, file_);
  out_.reset();  // nothing is open in it any more
}

}  // namespace gp
