#pragma once

#include <filesystem>
#include <string>

namespace gp {

/// Keeps a second writer out of a folder for as long as it lives; the kernel drops it with the
/// process. Creates the folder. Throws RunError, with `in_use` where another process holds it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder,
                      const std::string& in_use =
                          "another process is writing here; wait for it, or choose another folder");
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

}  // namespace gp
