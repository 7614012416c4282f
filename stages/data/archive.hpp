#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "stages/data/random_access_file.hpp"

namespace gp {

/// A tar or a zip whose members can be read in any order, by any number of threads at once.
///
/// Opening lists the members; nothing is ever written under their names. A tar's are read in place.
/// So are a zip's, whether stored or compressed, and checked against their CRC-32. A compressed
/// tar (gzip, bzip2, xz, zstd, lz4) can only be read from its beginning: it is unpacked once, to a
/// temporary file without a name. Of members of one name the last counts, as when unpacking.
/// Links (of tars) stand for the member that they lead to.
class Archive {
 public:
  struct Member {
    /// Normalised: no empty parts, no "." and "..", which are resolved but lead nowhere above the
    /// root. The bytes of the archive, in whatever encoding.
    std::string path;
    std::int64_t size = 0;  ///< bytes, as declared; -1: the member cannot be read
    std::int64_t offset = 0;
    const char* fault = nullptr;  ///< why it cannot be read
  };

  /// Opens an archive, or shares it with whoever has it open already. `max_unpacked`: the bytes
  /// that a compressed tar may take when unpacked. Throws DataError when it is no archive, damaged,
  /// cut off, encrypted, or too large; RunError when there is no place to unpack to.
  static std::shared_ptr<const Archive> open(const std::filesystem::path& path,
                                             std::int64_t max_unpacked);

  /// The files among the members, in the order of their paths' bytes.
  const std::vector<Member>& members() const { return members_; }
  /// Replaces `bytes` by a member's contents. Memory is taken as data arrives, not as declared.
  /// Throws SampleError when they are damaged, or larger than kLargestItem.
  void read(const Member& member, std::vector<std::uint8_t>& bytes) const;

 private:
  struct Found;
  class Reader;
  Archive(RandomAccessFile file, std::int64_t max_unpacked);
  std::vector<Found> list_tar(std::int64_t max_unpacked);
  std::vector<Found> list_zip() const;
  void set_members(std::vector<Found> found);

  std::filesystem::path path_;
  RandomAccessFile file_;  ///< the archive; of a compressed tar what was unpacked
  bool zip_ = false;
  std::vector<Member> members_;
};

}  // namespace gp
