#include "stages/data/random_access_file.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "pipeline/error.hpp"

namespace gp {

RandomAccessFile::RandomAccessFile(const std::filesystem::path& path) : path_(path) {
  // Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
  fd_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  struct stat status {};
  std::string problem;
  if (fd_ < 0 || ::fstat(fd_, &status) != 0) {
    problem = std::string("cannot open: ") + std::strerror(errno);
  } else if (S_ISDIR(status.st_mode)) {
    problem = "is a folder, expected a file";
  } else if (!S_ISREG(status.st_mode)) {
    problem = "is not a regular file";
  }
  if (!problem.empty()) {
    if (fd_ >= 0) ::close(fd_);
    throw DataError(path.string() + ": " + problem);
  }
  size_ = status.st_size;
  for (const auto number :
       {static_cast<std::int64_t>(status.st_dev), static_cast<std::int64_t>(status.st_ino), size_,
        static_cast<std::int64_t>(status.st_mtim.tv_sec),
        static_cast<std::int64_t>(status.st_mtim.tv_nsec)}) {
    identity_ += std::to_string(number) + " ";
  }
}

RandomAccessFile RandomAccessFile::temporary() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  std::string name = (folder / "gan-pipeline-XXXXXX").string();
  const int fd = error ? -1 : ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) {
    throw RunError("cannot make a temporary file in " + folder.string() + ": " +
                   (error ? error.message() : std::strerror(errno)) +
                   "; set TMPDIR to a folder with room");
  }
  ::unlink(name.c_str());
  return {folder, fd};
}

RandomAccessFile::~RandomAccessFile() {
  if (fd_ >= 0) ::close(fd_);
}

RandomAccessFile::RandomAccessFile(RandomAccessFile&& other) noexcept { *this = std::move(other); }

RandomAccessFile& RandomAccessFile::operator=(RandomAccessFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(identity_, other.identity_);
  return *this;
}

std::size_t RandomAccessFile::read(std::int64_t offset, std::span<std::uint8_t> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(fd_, bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(path_.string() + ": cannot read: " + std::strerror(errno));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void RandomAccessFile::write(std::int64_t offset, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw RunError("cannot write to a temporary file in " + path_.string() + ": " +
                     std::strerror(errno) + "; set TMPDIR to a folder with room");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += got;
    size_ = std::max(size_, offset);
  }
}

}  // namespace gp
