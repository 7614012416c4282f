#include "stages/common/npz.hpp"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little,
              "numbers are stored as they are in memory");

constexpr std::string_view kMagic{"\x93NUMPY", 6};
constexpr std::string_view kSuffix = ".npy";
constexpr std::size_t kLongestHeader = std::size_t{64} << 10;
constexpr std::size_t kLongestText = std::size_t{64} << 10;

/// What stands before the numbers of an array.
struct NpyHeader {
  std::string descr;  ///< the type, such as "<f8"
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// Reads the header's dictionary, which is written in Python:
/// {'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }
class NpyHeaderParser {
 public:
  explicit NpyHeaderParser(std::string_view text) : rest_(text) {}

  /// Nothing: it is no such dictionary.
  std::optional<NpyHeader> parse() {
    NpyHeader header;
    bool has_descr = false, has_order = false, has_shape = false;
    if (!take('{')) return std::nullopt;
    while (!take('}')) {
      const std::optional<std::string> key = quoted();
      if (!key || !take(':')) return std::nullopt;
      if (*key == "descr" && !has_descr) {
        const std::optional<std::string> descr = quoted();
        if (!descr) return std::nullopt;  // a list of fields
        header.descr = *descr;
        has_descr = true;
      } else if (*key == "fortran_order" && !has_order) {
        header.fortran_order = take_word("True");
        if (!header.fortran_order && !take_word("False")) return std::nullopt;
        has_order = true;
      } else if (*key == "shape" && !has_shape) {
        if (!shape(header.shape)) return std::nullopt;
        has_shape = true;
      } else {
        return std::nullopt;
      }
      if (!take(',') && !peek('}')) return std::nullopt;
    }
    skip_space();
    if (!rest_.empty() || !has_descr || !has_order || !has_shape) return std::nullopt;
    return header;
  }

 private:
  void skip_space() {
    const std::size_t at = rest_.find_first_not_of(" \t\n");
    rest_.remove_prefix(std::min(at, rest_.size()));
  }
  bool peek(char c) {
    skip_space();
    return !rest_.empty() && rest_.front() == c;
  }
  bool take(char c) {
    if (!peek(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  std::optional<std::string> quoted() {
    const char quote = peek('"') ? '"' : '\'';
    if (!take(quote)) return std::nullopt;
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) return std::nullopt;
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool shape(std::vector<std::int64_t>& result) {
    if (!take('(')) return false;
    while (!take(')')) {
      skip_space();
      std::int64_t extent = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
      if (error != std::errc() || extent < 0) return false;
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      take_word("L");  // Python 2's long
      result.push_back(extent);
      if (!take(',') && !peek(')')) return false;
    }
    return true;
  }

  std::string_view rest_;
};

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t extent : shape) {
    text += (text.empty() ? "" : ", ") + std::to_string(extent);
  }
  return "[" + text + "]";
}

/// How many numbers an array of this shape has, or `limit` + 1 where these are more than `limit`.
std::int64_t count_values(const std::vector<std::int64_t>& shape, std::int64_t limit) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent == 0) return 0;
  }
  for (const std::int64_t extent : shape) {
    if (extent > limit / count) return limit + 1;
    count *= extent;
  }
  return count;
}

/// `bytes` hold the numbers of an array one after the other.
template <class Number>
void convert(std::span<const std::uint8_t> bytes, bool swapped, std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint8_t one[sizeof(Number)];
    std::memcpy(one, bytes.data() + i * sizeof(Number), sizeof(Number));
    if (swapped) std::reverse(one, one + sizeof(Number));
    Number number;
    std::memcpy(&number, one, sizeof(Number));
    values[i] = number;
  }
}

/// The zip while it is read, member by member.
class NpzReader {
 public:
  explicit NpzReader(const fs::path& path)
      : path_(path), owner_(archive_read_new(), archive_read_free), archive_(owner_.get()) {
    if (archive_ == nullptr) throw std::bad_alloc();
    // By the directory at its end, as NumPy reads it: a file that was cut off has none.
    archive_read_support_format_zip_seekable(archive_);
    if (archive_read_open_filename(archive_, path.c_str(), std::size_t{1} << 16) != ARCHIVE_OK) {
      fail_reading();
    }
  }
  /// Goes to the next member; false: there is none. Its name is member().
  bool next() {
    archive_entry* entry = nullptr;
    const int status = archive_read_next_header(archive_, &entry);
    if (status == ARCHIVE_EOF) return false;
    if (status < ARCHIVE_WARN) fail_reading();
    const char* name = archive_entry_pathname(entry);
    member_ = name == nullptr ? "" : name;
    return true;
  }
  const std::string& member() const { return member_; }

  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(path_.string() + ": " + member_ + " " + what);
  }
  /// Fills `bytes` from the member.
  void read(std::span<std::uint8_t> bytes, const char* what) {
    while (!bytes.empty()) {
      const la_ssize_t got = archive_read_data(archive_, bytes.data(), bytes.size());
      if (got < 0) fail_reading();
      if (got == 0) fail(std::string("ends within its ") + what);
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
  }
  /// Expects the end of the member, where its checksum is compared.
  void expect_end() {
    std::uint8_t more = 0;
    const la_ssize_t got = archive_read_data(archive_, &more, 1);
    if (got < 0) fail_reading();
    if (got > 0) fail("goes on behind the array that its header describes");
  }

 private:
  [[noreturn]] void fail_reading() const {
    const char* text = archive_error_string(archive_);
    throw DataError(path_.string() + ": " + (member_.empty() ? "" : member_ + ": ") +
                    (text != nullptr ? text : "unknown error") +
                    "; expected a .npz as numpy.savez writes it, whole");
  }

  const fs::path& path_;
  std::unique_ptr<struct archive, int (*)(struct archive*)> owner_;
  struct archive* archive_;
  std::string member_;
};

NpyHeader read_header(NpzReader& reader) {
  std::uint8_t start[12];  // magic, version, length of 2 bytes; of 4 bytes from version 2 on
  reader.read({start, 10}, "header");
  if (std::memcmp(start, kMagic.data(), kMagic.size()) != 0) {
    reader.fail("does not begin as NumPy's arrays do");
  }
  const int version = start[6];
  if (version < 1 || version > 3) {
    reader.fail("is of version " + std::to_string(version) +
                " of NumPy's format; expected 1, 2 or 3");
  }
  std::size_t length = start[8] + std::size_t{256} * start[9];
  if (version > 1) {
    reader.read({start + 10, 2}, "header");
    length += (std::size_t{1} << 16) * start[10] + (std::size_t{1} << 24) * start[11];
  }
  if (length > kLongestHeader) {
    reader.fail("has a header of " + std::to_string(length) + " bytes; expected less than 64 KiB");
  }
  std::string text(length, ' ');
  reader.read({reinterpret_cast<std::uint8_t*>(text.data()), text.size()}, "header");
  std::optional<NpyHeader> header = NpyHeaderParser(text).parse();
  if (!header) {
    reader.fail(
        "has a header that does not describe one array of numbers; expected type, order and shape "
        "such as {'descr': '<f8', 'fortran_order': False, 'shape': (2048,), }");
  }
  return *header;
}

/// A byte string of fixed length, of which trailing zeros are padding.
std::string read_text_of(NpzReader& reader, const NpyHeader& header) {
  std::size_t length = 0;
  const std::string_view digits = std::string_view(header.descr).substr(2);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc() || end != digits.data() + digits.size() || length > kLongestText) {
    reader.fail("is of type " + header.descr + "; expected a text of at most 64 KiB");
  }
  std::string text(length, '\0');
  reader.read({reinterpret_cast<std::uint8_t*>(text.data()), text.size()}, "text");
  text.erase(text.find_last_not_of('\0') + 1);
  return text;
}

NpyArray read_array(NpzReader& reader, const NpyHeader& header, std::int64_t max_values) {
  const std::string& descr = header.descr;
  if (descr.find('O') != std::string::npos) {
    reader.fail(
        "holds pickled Python objects (type " + descr +
        "), which are never opened; expected float64: save the array with .astype(numpy.float64)");
  }
  const bool known = descr.size() == 3 && (descr[0] == '<' || descr[0] == '>') && descr[1] == 'f' &&
                     (descr[2] == '4' || descr[2] == '8');
  if (!known) reader.fail("is of type " + descr + "; expected float64 (<f8) or float32 (<f4)");
  const std::int64_t count = count_values(header.shape, max_values);
  if (count > max_values) {
    reader.fail("has the shape " + text_of(header.shape) + ", more than the " +
                std::to_string(max_values) + " numbers that are expected at most");
  }
  if (header.fortran_order && header.shape.size() > 2) {
    reader.fail("has the shape " + text_of(header.shape) +
                " in Fortran order; expected at most two dimensions");
  }
  NpyArray array{header.shape, std::vector<double>(static_cast<std::size_t>(count))};
  const std::size_t size = descr[2] == '8' ? 8 : 4;
  const bool swapped = descr[0] == '>';
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count) * size);
  reader.read(bytes, "numbers");
  if (size == 8) {
    convert<double>(bytes, swapped, array.values);
  } else {
    convert<float>(bytes, swapped, array.values);
  }
  if (header.fortran_order && array.shape.size() == 2) {
    const auto rows = static_cast<std::size_t>(array.shape[0]);
    const auto columns = static_cast<std::size_t>(array.shape[1]);
    std::vector<double> turned(array.values.size());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) {
        turned[r * columns + c] = array.values[c * rows + r];
      }
    }
    array.values = std::move(turned);
  }
  return array;
}

/// Header and numbers of one member.
std::string npy(const std::string& descr, const std::vector<std::int64_t>& shape,
                std::string_view data) {
  std::string extents;
  for (const std::int64_t extent : shape) extents += std::to_string(extent) + ", ";
  if (shape.size() > 1) extents.resize(extents.size() - 2);
  if (shape.size() == 1) extents.pop_back();
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + extents + "), }";
  constexpr std::size_t kAlignment = 64;  // of the data, for those who map the file
  const std::size_t before = kMagic.size() + 4 + header.size() + 1;
  header.append((kAlignment - before % kAlignment) % kAlignment, ' ');
  header += '\n';
  std::string text(kMagic);
  text +=
      {'\1', '\0', static_cast<char>(header.size() % 256), static_cast<char>(header.size() / 256)};
  text += header;
  text += data;
  return text;
}

/// A zip while it is written, to memory.
class NpzWriter {
 public:
  NpzWriter() : owner_(archive_write_new(), archive_write_free), archive_(owner_.get()) {
    if (archive_ == nullptr) throw std::bad_alloc();
    check(archive_write_set_format_zip(archive_));
    check(archive_write_zip_set_compression_store(archive_));
    check(archive_write_set_bytes_in_last_block(archive_, 1));
    check(archive_write_open(archive_, this, nullptr, append, nullptr));
  }
  NpzWriter(const NpzWriter&) = delete;  // libarchive holds a pointer to it
  NpzWriter& operator=(const NpzWriter&) = delete;

  void add(const std::string& name, const std::string& data) {
    constexpr std::time_t kEarliest = 315532800;  // 1980, where a zip's calendar begins
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(),
                                                                         archive_entry_free);
    archive_entry_set_pathname(entry.get(), (name + std::string(kSuffix)).c_str());
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_mtime(entry.get(), kEarliest, 0);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(data.size()));
    check(archive_write_header(archive_, entry.get()));
    if (archive_write_data(archive_, data.data(), data.size()) !=
        static_cast<la_ssize_t>(data.size())) {
      check(ARCHIVE_FATAL);
    }
  }
  std::vector<std::uint8_t> finish() {
    check(archive_write_close(archive_));
    return std::move(bytes_);
  }

 private:
  static la_ssize_t append(struct archive* /*archive*/, void* self, const void* data,
                           std::size_t size) {
    const auto* from = static_cast<const std::uint8_t*>(data);
    auto& bytes = static_cast<NpzWriter*>(self)->bytes_;
    bytes.insert(bytes.end(), from, from + size);
    return static_cast<la_ssize_t>(size);
  }
  void check(int status) {
    if (status >= ARCHIVE_WARN) return;
    const char* text = archive_error_string(archive_);
    throw RunError(std::string("cannot make a .npz: ") +
                   (text != nullptr ? text : "unknown error"));
  }

  std::vector<std::uint8_t> bytes_;  ///< before owner_, which may still write when it goes
  std::unique_ptr<struct archive, int (*)(struct archive*)> owner_;
  struct archive* archive_;
};

}  // namespace

Npz read_npz(const fs::path& path, const std::vector<std::string>& names, std::int64_t max_values) {
  Npz contents;
  NpzReader reader(path);
  while (reader.next()) {
    if (!reader.member().ends_with(kSuffix)) continue;
    const std::string name = reader.member().substr(0, reader.member().size() - kSuffix.size());
    if (std::find(names.begin(), names.end(), name) == names.end()) continue;
    if (contents.arrays.count(name) + contents.texts.count(name) > 0) reader.fail("is there twice");
    const NpyHeader header = read_header(reader);
    if (header.descr.starts_with("|S") && header.shape.empty()) {
      contents.texts[name] = read_text_of(reader, header);
    } else {
      contents.arrays[name] = read_array(reader, header, max_values);
    }
    reader.expect_end();
  }
  return contents;
}

void write_npz(const fs::path& path, const Npz& contents) {
  NpzWriter writer;
  for (const auto& [name, array] : contents.arrays) {
    writer.add(name, npy("<f8", array.shape,
                         {reinterpret_cast<const char*>(array.values.data()),
                          array.values.size() * sizeof(double)}));
  }
  for (const auto& [name, text] : contents.texts) {
    writer.add(name, npy("|S" + std::to_string(text.size()), {}, text));
  }
  write_file(path, writer.finish());
}

}  // namespace gp
