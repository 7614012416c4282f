#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace gp {

/// Reads numbers at any offset of untrusted bytes; outside them there is nothing (nullopt).
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::uint8_t> bytes, bool big_endian = false)
      : bytes_(bytes), big_endian_(big_endian) {}

  std::optional<std::uint16_t> u16(std::uint64_t at) const { return number<std::uint16_t>(at); }
  std::optional<std::uint32_t> u32(std::uint64_t at) const { return number<std::uint32_t>(at); }
  std::optional<std::uint64_t> u64(std::uint64_t at) const { return number<std::uint64_t>(at); }

  bool has(std::uint64_t at, std::uint64_t count) const {
    return at <= bytes_.size() && count <= bytes_.size() - at;
  }
  bool starts_with(std::string_view text, std::uint64_t at = 0) const {
    return has(at, text.size()) && std::memcmp(bytes_.data() + at, text.data(), text.size()) == 0;
  }
  /// At most `count` bytes from `at` on.
  std::span<const std::uint8_t> slice(std::uint64_t at, std::uint64_t count) const {
    if (at >= bytes_.size()) return {};
    return bytes_.subspan(at, std::min<std::uint64_t>(count, bytes_.size() - at));
  }
  std::size_t size() const { return bytes_.size(); }

 private:
  template <class T>
  std::optional<T> number(std::uint64_t at) const {
    if (!has(at, sizeof(T))) return std::nullopt;
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      const std::size_t byte = big_endian_ ? i : sizeof(T) - 1 - i;
      value = static_cast<T>((static_cast<std::uint64_t>(value) << 8) | bytes_[at + byte]);
    }
    return value;
  }

  std::span<const std::uint8_t> bytes_;
  bool big_endian_;
};

}  // namespace gp
