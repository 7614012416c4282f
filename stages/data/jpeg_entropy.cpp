#include "stages/data/jpeg_entropy.hpp"

#include <algorithm>

namespace gp {
namespace {

/// Two's complement of the `size` bits that follow a code (ITU-T T.81, F.2.2.1 EXTEND).
int extend(std::uint64_t bits, int size) {
  if (size == 0) return 0;
  const int value = static_cast<int>(bits >> (64 - size));
  return value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
}

}  // namespace

void EntropyBits::clear() {
  segment_ended_ = false;
  end_ = buffer_.data();
  cursor = {buffer_.data(), 0, 0};
}

bool EntropyBits::fetch() {
  if (!segment_ended_) {
    // What is still to be read goes to the front. Up to 8 bytes of it are in `bits` as well.
    const std::uint8_t* from =
        cursor.next - std::min<std::ptrdiff_t>(8, cursor.next - buffer_.data());
    const std::ptrdiff_t back = cursor.next - from;
    std::uint8_t* out = std::copy(from, end_, buffer_.data());
    cursor.next = buffer_.data() + back;
    std::uint8_t* const full = buffer_.data() + kBufferBytes;
    while (out < full && !segment_ended_) {
      const std::ptrdiff_t most = std::min(full - out, in_end_ - in_);
      const void* stop =
          most > 0 ? std::memchr(in_, 0xFF, static_cast<std::size_t>(most)) : nullptr;
      const std::ptrdiff_t plain =
          stop != nullptr ? static_cast<const std::uint8_t*>(stop) - in_ : most;
      out = std::copy_n(in_, plain, out);
      in_ += plain;
      if (in_ == in_end_) {
        segment_ended_ = true;
      } else if (stop != nullptr) {
        if (in_end_ - in_ < 2 || in_[1] != 0) {
          segment_ended_ = true;
        } else {
          *out++ = 0xFF;
          in_ += 2;
        }
      }
    }
    end_ = out;
    std::fill_n(out, kMcuBytes + kOverread, std::uint8_t{0});
  }
  return bits_left() >= 0;
}

bool EntropyBits::pass_restart(int n) {
  if (!prepare() || !segment_ended_ || bits_left() >= 8) return false;
  if (in_end_ - in_ < 2 || in_[1] != 0xD0 + n) return false;
  in_ += 2;
  clear();
  return true;
}

bool EntropyBits::finish() {
  if (!prepare()) return false;
  while (in_end_ - in_ >= 2) {
    const void* stop = std::memchr(in_, 0xFF, static_cast<std::size_t>(in_end_ - in_ - 1));
    if (stop == nullptr) return false;
    in_ = static_cast<const std::uint8_t*>(stop);
    if (in_[1] != 0) return in_[1] != 0xFF;
    in_ += 2;
  }
  return false;
}

bool HuffmanSymbols::build(const HuffmanCode& code) {
  lookup_.fill(0);
  values_ = code.symbols;
  int next = 0;   // code
  int index = 0;  // of its symbol
  for (int length = 1; length <= 16; ++length) {
    const int count = code.counts[static_cast<std::size_t>(length)];
    if (index + count > 256) return false;
    const auto n = static_cast<std::size_t>(length);
    offsets_[n] = index - next;
    limits_[n] = count > 0 ? next + count - 1 : -1;
    if (count > 0 && next + count >= 1 << length) return false;
    if (length <= kBits) {
      const int copies = 1 << (kBits - length);
      for (int i = 0; i < count; ++i) {
        const auto entry =
            static_cast<std::uint16_t>(length << 8 | values_[static_cast<std::size_t>(index + i)]);
        std::fill_n(lookup_.begin() + static_cast<std::ptrdiff_t>(next + i) * copies, copies,
                    entry);
      }
    }
    next = (next + count) << 1;
    index += count;
  }
  return true;
}

HuffmanSymbols::Symbol HuffmanSymbols::find(std::uint64_t bits) const {
  const int entry = lookup_[bits >> (64 - kBits)];
  if (entry != 0) return {entry >> 8, entry & 0xFF};
  for (int length = kBits + 1; length <= 16; ++length) {
    const auto n = static_cast<std::size_t>(length);
    const int code = static_cast<int>(bits >> (64 - length));
    if (code <= limits_[n]) return {length, values_[static_cast<std::size_t>(code + offsets_[n])]};
  }
  return {0, 0};
}

bool DcTable::build(const HuffmanCode& code) {
  int count = 0;
  for (std::size_t length = 1; length <= 16; ++length) count += code.counts[length];
  for (int i = 0; i < std::min(count, 256); ++i) {
    if (code.symbols[static_cast<std::size_t>(i)] > 15) return false;  // libjpeg: an error
  }
  if (!symbols_.build(code)) return false;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry entry = find_long(std::uint64_t{i} << (64 - kBits));
    entries_[i] = entry.length <= kBits ? entry : Entry{0, 0};
  }
  return true;
}

DcTable::Entry DcTable::find_long(std::uint64_t bits) const {
  const HuffmanSymbols::Symbol symbol = symbols_.find(bits);
  if (symbol.length == 0 || symbol.value > kMaxSize) return {0, 0};
  return {static_cast<std::int16_t>(extend(bits << symbol.length, symbol.value)),
          static_cast<std::uint8_t>(symbol.length + symbol.value)};
}

AcSymbols::AcSymbols(int code_length, int symbol) {
  const int run = symbol >> 4;
  const int size = symbol & 15;
  // As libjpeg has it, whatever has no size and is not a run of 16 ends the block.
  const bool ends = size == 0 && run != 15;
  *this = {code_length + size, ends ? kEndOfBlock : run + 1, ends ? 0 : run, size, 0};
}

AcSymbols::AcSymbols(const AcSymbols& first, int value, const AcSymbols& second)
    : AcSymbols(first.length() + second.length(), first.advance() + second.advance(),
                first.offset1(), second.size(), value) {}

bool AcTable::build(const HuffmanCode& code) {
  if (!symbols_.build(code)) return false;
  constexpr std::size_t kMask = (1 << kBits) - 1;
  std::array<AcSymbols, kMask + 1> single;
  for (std::size_t i = 0; i <= kMask;) {
    const AcSymbols one = find_one(std::uint64_t{i} << (64 - kBits));
    const bool is_zeros = one.size() == 0 && one.advance() < AcSymbols::kEndOfBlock;
    const bool known = one.length() > 0 && one.code_length() <= kBits && !is_zeros;
    const std::size_t end = i + (known ? std::size_t{1} << (kBits - one.code_length()) : 1);
    while (i < end) single[i++] = known ? one : AcSymbols();
  }
  for (std::size_t i = 0; i <= kMask; ++i) {
    const AcSymbols first = single[i];
    entries_[i] = first;
    const int value = first.value2(std::uint64_t{i} << (64 - kBits));
    if (first.length() >= kBits || !AcSymbols::can_be_first(first, value)) continue;
    const AcSymbols second = single[(i << first.length()) & kMask];
    if (second.length() == 0 || first.length() + second.code_length() > kBits) continue;
    entries_[i] = AcSymbols(first, value, second);
  }
  return true;
}

AcSymbols AcTable::find_one(std::uint64_t bits) const {
  const HuffmanSymbols::Symbol symbol = symbols_.find(bits);
  if (symbol.length == 0 || (symbol.value & 15) > kMaxSize) return {};
  return {symbol.length, symbol.value};
}

}  // namespace gp
