#include "stages/data/hdf5/shard_reader.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>

#include "stages/data/hdf5/crc32c.hpp"
#include "stages/data/hdf5/hdf5_handle.hpp"
#include "stages/data/hdf5/manifest.hpp"

namespace gp {
namespace {

using hdf5::check;
using hdf5::Handle;

constexpr hsize_t kMaxSide = 1 << 16;

std::string dims_text(std::span<const hsize_t> dims) {
  std::string text = "[";
  for (const hsize_t dim : dims) {
    if (text.size() > 1) text += ',';
    text += std::to_string(dim);
  }
  return text + ']';
}

/// The file while it is being opened. Lives within one Session.
class Opening {
 public:
  explicit Opening(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) fail("is missing");
    if (!std::filesystem::is_regular_file(status)) fail("is not a regular file");
    bytes_ = std::filesystem::file_size(path, error);
    if (error) fail("cannot be looked at: " + error.message());
    file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, hdf5::file_access()), H5Fclose,
                   path.string() + ": cannot open as HDF5 (truncated, or not a shard)");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(path_.string() + ": " + what +
                    "\n  Restore the file from a good copy, or make the shards again: "
                    "gan-prep build CONFIG --rebuild");
  }

  std::int32_t schema_version() const {
    const std::string what = path_.string() + ": cannot read the attribute 'schema_version'";
    const Handle attribute(H5Aopen(file_, "schema_version", H5P_DEFAULT), H5Aclose, what);
    const Handle space(H5Aget_space(attribute), H5Sclose, what);
    if (H5Sget_simple_extent_npoints(space) != 1) fail("its schema_version is not one number");
    std::int32_t version = 0;
    check(H5Aread(attribute, H5T_NATIVE_INT32, &version), what);
    return version;
  }

  std::vector<std::string> texts(const char* name) const {
    const std::string what = path_.string() + ": cannot read the attribute '" + name + "'";
    const Handle attribute(H5Aopen(file_, name, H5P_DEFAULT), H5Aclose, what);
    const Handle type(H5Aget_type(attribute), H5Tclose, what);
    const Handle space(H5Aget_space(attribute), H5Sclose, what);
    const auto count = check(H5Sget_simple_extent_npoints(space), what);
    const std::size_t width = text_width(type, std::string("the attribute '") + name + "'");
    if (static_cast<hsize_t>(count) > bytes_ / width) {
      fail(std::string("the attribute '") + name + "' is longer than the file");
    }
    std::vector<char> padded(static_cast<std::size_t>(count) * width);
    if (count > 0) {
      check(H5Aread(attribute, hdf5::string_type(width, what), padded.data()), what);
    }
    return unpad(padded, width);
  }

  std::string text(const char* name) const {
    std::vector<std::string> all = texts(name);
    if (all.size() != 1) fail(std::string("the attribute '") + name + "' is not one text");
    return std::move(all[0]);
  }

  struct Dataset {
    Handle id;
    Handle type;
    std::vector<hsize_t> dims;
    std::uint64_t offset = 0;
  };

  /// Opens a dataset that is stored in one piece, wholly within this file.
  Dataset dataset(const char* name, int rank) const {
    const std::string what = path_.string() + ": cannot read the dataset '" + name + "'";
    const std::string subject = std::string("the dataset '") + name + "' ";
    Dataset set;
    set.id = Handle(H5Dopen2(file_, name, H5P_DEFAULT), H5Dclose, what);
    set.type = Handle(H5Dget_type(set.id), H5Tclose, what);
    const Handle space(H5Dget_space(set.id), H5Sclose, what);
    const int found = check(H5Sget_simple_extent_ndims(space), what);
    set.dims.resize(static_cast<std::size_t>(found));
    if (found > 0) check(H5Sget_simple_extent_dims(space, set.dims.data(), nullptr), what);
    if (found != rank) {
      fail(subject + "has the shape " + dims_text(set.dims) + ", expected " + std::to_string(rank) +
           " dimensions");
    }
    const Handle creation(H5Dget_create_plist(set.id), H5Pclose, what);
    if (H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0) {
      fail(subject + "is not stored contiguously in this file (was it rewritten by another tool?)");
    }
    const haddr_t offset = H5Dget_offset(set.id);
    const std::uint64_t size = H5Dget_storage_size(set.id);
    if (offset == HADDR_UNDEF || offset > bytes_ || size > bytes_ - offset) {
      fail(subject + "reaches beyond the end of the file");
    }
    set.offset = offset;
    return set;
  }

  /// A table with one number for each image.
  template <class T>
  std::uint64_t numbers(const char* name, hid_t type, hsize_t count, std::vector<T>& values) const {
    const Dataset set = dataset(name, 1);
    if (set.dims[0] != count || H5Tget_class(set.type) != H5T_INTEGER ||
        H5Tget_size(set.type) != sizeof(T)) {
      fail(std::string("the dataset '") + name + "' is not " + std::to_string(count) +
           " integers of " + std::to_string(sizeof(T)) + " bytes, one for each image");
    }
    values.resize(count);
    check(H5Dread(set.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
          path_.string() + ": cannot read the dataset '" + name + "'");
    return set.offset;
  }

  std::vector<std::string> keys(hsize_t count) const {
    const Dataset set = dataset("keys", 1);
    const std::size_t width = text_width(set.type, "the dataset 'keys'");
    if (set.dims[0] != count) {
      fail("the dataset 'keys' has " + std::to_string(set.dims[0]) + " entries for " +
           std::to_string(count) + " images");
    }
    if (width > std::numeric_limits<std::uint32_t>::max() / count) {
      fail("the keys are " + std::to_string(width) + " bytes long; expected 4 GB for all at most");
    }
    const std::string what = path_.string() + ": cannot read the dataset 'keys'";
    std::vector<char> padded(count * width);
    check(H5Dread(set.id, hdf5::string_type(width, what), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                  padded.data()),
          what);
    return unpad(padded, width);
  }

  bool is_uint8(const Dataset& set) const {
    return H5Tget_class(set.type) == H5T_INTEGER && H5Tget_size(set.type) == 1 &&
           H5Tget_sign(set.type) == H5T_SGN_NONE;
  }

 private:
  std::size_t text_width(hid_t type, const std::string& subject) const {
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
        H5Tget_size(type) == 0) {
      fail(subject + " does not hold strings of fixed length");
    }
    return H5Tget_size(type);
  }

  static std::vector<std::string> unpad(const std::vector<char>& padded, std::size_t width) {
    std::vector<std::string> texts;
    texts.reserve(padded.size() / width);
    for (std::size_t at = 0; at < padded.size(); at += width) {
      texts.emplace_back(padded.data() + at, ::strnlen(padded.data() + at, width));
    }
    return texts;
  }

  const std::filesystem::path& path_;
  std::uint64_t bytes_ = 0;
  Handle file_;
};

int open_to_read(const std::filesystem::path& file) {
  return ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
}

}  // namespace

ShardReader::ShardReader(std::filesystem::path file, bool keep_open) : file_(std::move(file)) {
  {
    const hdf5::Session session;
    const Opening opening(file_);
    const std::int32_t version = opening.schema_version();
    if (version != kShardSchemaVersion) {
      opening.fail("has schema version " + std::to_string(version) +
                   "; this program reads version " + std::to_string(kShardSchemaVersion));
    }
    info_.class_names = opening.texts("class_names");
    info_.source_digest = opening.text("source_digest");
    info_.config_digest = opening.text("config_digest");
    const Opening::Dataset images = opening.dataset("images", 4);
    const std::vector<hsize_t>& dims = images.dims;
    if (!opening.is_uint8(images) || dims[0] < 1 || dims[0] > kMaxImagesPerShard || dims[1] < 1 ||
        dims[1] > kMaxSide || dims[2] < 1 || dims[2] > kMaxSide || dims[3] != kChannels) {
      opening.fail("the dataset 'images' has the shape " + dims_text(dims) +
                   (opening.is_uint8(images) ? "" : " and is not uint8") + ", expected uint8 [1.." +
                   std::to_string(kMaxImagesPerShard) + ",height,width,3]");
    }
    info_.shape = {static_cast<int>(dims[1]), static_cast<int>(dims[2])};
    images_offset_ = images.offset;
    std::vector<std::uint32_t> checksums;
    checksums_offset_ = opening.numbers("crc32c", H5T_NATIVE_UINT32, dims[0], checksums);
    std::vector<std::int32_t> labels;
    opening.numbers("labels", H5T_NATIVE_INT32, dims[0], labels);
    const std::vector<std::string> keys = opening.keys(dims[0]);
    entries_.resize(keys.size() + 1);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      entries_[i] = {static_cast<std::uint32_t>(keys_.size()), labels[i], checksums[i]};
      keys_ += keys[i];
    }
    entries_.back().key_begin = static_cast<std::uint32_t>(keys_.size());
    keys_.shrink_to_fit();
    tables_checksum_ = gp::tables_checksum(checksums, labels, keys);
  }
  if (keep_open) {
    fd_ = open_to_read(file_);
    if (fd_ < 0) throw DataError(file_.string() + ": cannot open: " + std::strerror(errno));
  }
}

ShardReader::~ShardReader() {
  if (fd_ >= 0) ::close(fd_);
}

ShardReader::ShardReader(ShardReader&& other) noexcept
    : file_(std::move(other.file_)),
      info_(std::move(other.info_)),
      keys_(std::move(other.keys_)),
      entries_(std::move(other.entries_)),
      tables_checksum_(other.tables_checksum_),
      images_offset_(other.images_offset_),
      checksums_offset_(other.checksums_offset_),
      fd_(std::exchange(other.fd_, -1)) {}

void ShardReader::fetch(int image, std::span<std::uint8_t> pixels) const {
  const auto fail = [&](const std::string& what) {
    throw SampleError(file_.filename().string() + ", image " + std::to_string(image) + ": " + what);
  };
  const int fd = fd_ >= 0 ? fd_ : open_to_read(file_);
  if (fd < 0) fail(std::string("cannot open the shard: ") + std::strerror(errno));
  std::uint64_t offset = images_offset_ + static_cast<std::uint64_t>(image) * pixels.size();
  ssize_t got = 1;
  int error = 0;
  while (!pixels.empty() && got > 0) {
    got = ::pread(fd, pixels.data(), pixels.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      got = 1;
      continue;
    }
    if (got < 0) error = errno;
    if (got > 0) {
      pixels = pixels.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }
  if (fd != fd_) ::close(fd);
  if (error != 0) fail(std::string("cannot read: ") + std::strerror(error));
  if (!pixels.empty()) fail("the shard ends before the image does; it was cut short while in use");
}

void ShardReader::read(int image, std::span<std::uint8_t> pixels) const {
  fetch(image, pixels);
  const std::uint32_t found = crc32c(pixels);
  const std::uint32_t expected = stored_checksum(image);
  if (found == expected) return;
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, "%08x, expected %08x", found, expected);
  throw SampleError(file_.filename().string() + ", image " + std::to_string(image) + " ('" +
                    key(image) + "'): is damaged: CRC-32C is " + numbers +
                    "; see `gan-prep verify`, then restore or rebuild the shards");
}

std::uint32_t ShardReader::compute_checksum(int image) const {
  std::vector<std::uint8_t> pixels(info_.shape.bytes());
  fetch(image, pixels);
  return crc32c(pixels);
}

}  // namespace gp
