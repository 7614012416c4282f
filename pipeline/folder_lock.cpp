#include "pipeline/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {

FolderLock::FolderLock(const std::filesystem::path& folder, const std::string& in_use) {
  make_folders(folder);
  fd_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) {
    throw RunError(folder.string() + ": cannot open the folder: " + std::strerror(errno));
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const bool taken = errno == EWOULDBLOCK;
    const std::string why = std::strerror(errno);
    ::close(fd_);
    throw RunError(folder.string() + ": " + (taken ? in_use : "cannot lock the folder: " + why));
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

}  // namespace gp
