#include "pipeline/files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "pipeline/error.hpp"

namespace gp {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* what) {
  throw RunError(path.string() + ": cannot " + what + ": " + write_failure(errno));
}

/// Closes its descriptor at the end of the scope.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags)
      : fd_(::open(path.c_str(), flags, 0644)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

/// A file that is removed again unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::filesystem::path path) : path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  /// False with errno set.
  bool rename_to(const std::filesystem::path& path) {
    if (::rename(path_.c_str(), path.c_str()) != 0) return false;
    path_.clear();
    return true;
  }

 private:
  std::filesystem::path path_;
};

void write_all(int fd, const char* data, std::size_t size, const std::filesystem::path& path) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(path, "write");
    }
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

/// Cuts off what follows the last line's end. False with errno set.
bool cut_torn_line(int fd) {
  off_t end = ::lseek(fd, 0, SEEK_END);
  if (end < 0) return errno == ESPIPE;  // a pipe or a terminal keeps nothing
  const off_t size = end;
  for (char last = 0; end > 0; --end) {
    if (::pread(fd, &last, 1, end - 1) != 1) return false;
    if (last == '\n') break;
  }
  return end == size || ::ftruncate(fd, end) == 0;
}

/// `bytes` becomes the whole file.
template <class Bytes>
void read_all(const std::filesystem::path& path, Bytes& bytes) {
  // Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
    throw DataError(path.string() + ": cannot open: " + std::strerror(errno));
  }
  if (S_ISDIR(status.st_mode)) throw DataError(path.string() + ": is a folder, expected a file");
  if (!S_ISREG(status.st_mode)) throw DataError(path.string() + ": is not a regular file");
  bytes.resize(static_cast<std::size_t>(status.st_size));
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(path.string() + ": cannot read: " + std::strerror(errno));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
}

}  // namespace

void write_file(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  // Renaming would put a file in the place of a device or a pipe.
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw RunError(path.string() +
                   ": is there already and is no regular file; choose another name");
  }
  TemporaryFile temporary(path.string() + ".tmp");
  {
    const Descriptor file(temporary.path(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    if (file.get() < 0) fail(path, "create");
    write_all(file.get(), text.data(), text.size(), path);
    if (::fsync(file.get()) != 0) fail(path, "write");
  }
  if (!temporary.rename_to(path)) fail(path, "rename to");
  const Descriptor directory(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory.get() >= 0) ::fsync(directory.get());
}

void write_file(const std::filesystem::path& path, std::span<const std::uint8_t> bytes) {
  write_file(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void append_line(const std::filesystem::path& path, std::string_view line) {
  const Descriptor file(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC);
  if (file.get() < 0) fail(path, "open");
  if (!cut_torn_line(file.get())) fail(path, "mend the last line");
  const std::string text = std::string(line) + '\n';
  try {
    write_all(file.get(), text.data(), text.size(), path);
  } catch (...) {
    cut_torn_line(file.get());
    throw;
  }
}

void sync_file(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC);
  if (file.get() < 0) fail(path, "open");
  if (::fsync(file.get()) != 0) fail(path, "write");
}

void make_folders(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    throw RunError(path.string() + ": cannot make the folder: " + write_failure(error.value()));
  }
}

std::string write_failure(int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return std::strerror(error) +
         std::string(full ? "; make room, or choose another place" : "; choose another place");
}

std::string read_text(const std::filesystem::path& path) {
  std::string text;
  read_all(path, text);
  return text;
}

std::vector<std::uint8_t> read_file(const std::filesystem::path& path) {
  std::vector<std::uint8_t> bytes;
  read_all(path, bytes);
  return bytes;
}

void read_file(const std::filesystem::path& path, std::vector<std::uint8_t>& bytes) {
  read_all(path, bytes);
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1) {
    throw RunError("OpenSSL cannot start SHA-256");
  }
}
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::uint8_t> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}
void Sha256::update(std::string_view bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->context, digest, &size);
  std::string text;
  constexpr char kDigits[] = "0123456789abcdef";
  for (unsigned int i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(path.string() + ": cannot open: " + std::strerror(errno));
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash.update(std::string_view(buffer.data(), static_cast<std::size_t>(file.gcount())));
  }
  return hash.hex();
}

}  // namespace gp
