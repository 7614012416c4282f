#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stages/data/random_access_file.hpp"

namespace gp {

/// A member as the central directory of a zip describes it.
struct ZipEntry {
  std::string name;         ///< as written, folders end with '/'
  std::int64_t size = 0;    ///< unpacked, bytes, as declared
  std::int64_t header = 0;  ///< where its local header lies in the file
  bool encrypted = false;
};

/// Whether the file begins as zips do.
bool is_zip(const RandomAccessFile& file);

/// Reads the central directory at the end of a zip (APPNOTE 6.3, with Zip64), which says where each
/// member lies: libarchive reads members, but only one after the other. Throws DataError when the
/// directory is missing (the file was cut off) or broken, or the zip consists of several files.
std::vector<ZipEntry> read_zip_directory(const RandomAccessFile& file);

}  // namespace gp
