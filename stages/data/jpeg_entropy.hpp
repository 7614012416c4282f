#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace gp {

/// The bits of one entropy-coded segment, taken out of their bytes: byte stuffing is removed piece
/// by piece into a small buffer, so that reading needs neither checks nor branches. It owns the
/// buffer and borrows the bytes.
///
/// Within one MCU at most kMcuBytes may be read, after prepare() has said that there is something.
class EntropyBits {
 public:
  /// 10 blocks of 64 symbols, a symbol's code and value being 31 bits at most.
  static constexpr std::ptrdiff_t kMcuBytes = 10 * 64 * 4;

  /// `scan` begins with the first byte after the header of the scan.
  explicit EntropyBits(std::span<const std::uint8_t> scan)
      : in_(scan.data()), in_end_(scan.data() + scan.size()) {
    clear();
  }
  EntropyBits(const EntropyBits&) = delete;
  EntropyBits& operator=(const EntropyBits&) = delete;

  /// To be called before each MCU. False: more was read than there is.
  bool prepare() { return end_ - cursor.next >= kMcuBytes || fetch(); }

  /// To be called at the end of a restart interval. False unless all of it was read and nothing but
  /// marker RST`n` follows.
  bool pass_restart(int n);

  /// To be called after the last MCU. False when more was read than there is, or no marker follows.
  bool finish();

  /// Where the reader is. A loop that reads much takes a copy and brings it back.
  struct Cursor {
    const std::uint8_t* next;  ///< the byte behind those in `bits`, or one that is already there
    std::uint64_t bits;        ///< the next bits, from the top
    int count;                 ///< how many of `bits` are to be relied on

    /// Makes `count` 56 or more.
    void refill() {
      bits |= load(next) >> count;
      next += (63 - count) >> 3;
      count |= 56;
    }
    void skip(int n) {
      bits <<= n;
      count -= n;
    }
    /// Takes back the last `n` bits (no more than the MCU has read) and refills.
    void unread(int n) {
      const int behind = count + n;  // bits between the position wanted and `next`
      next -= (behind + 7) >> 3;
      bits = 0;
      count = 0;
      refill();
      skip(-behind & 7);
    }

   private:
    static std::uint64_t load(const std::uint8_t* at) {
      std::uint64_t value;
      std::memcpy(&value, at, sizeof value);
      return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(value) : value;
    }
  };
  Cursor cursor;

 private:
  static constexpr std::ptrdiff_t kBufferBytes = 16 << 10;
  static constexpr std::ptrdiff_t kOverread = 16;

  void clear();
  bool fetch();
  std::ptrdiff_t bits_left() const { return (end_ - cursor.next) * 8 + cursor.count; }

  const std::uint8_t* in_;
  const std::uint8_t* in_end_;
  bool segment_ended_;       ///< no byte of the segment is left at in_: a marker, or the end
  const std::uint8_t* end_;  ///< of what is in the buffer; zeros follow once the segment has ended
  std::array<std::uint8_t, kBufferBytes + kMcuBytes + kOverread> buffer_;
};

/// A Huffman table as a JPEG defines it.
struct HuffmanCode {
  std::array<std::uint8_t, 17> counts;    ///< [n]: codes of n bits; [0] unused
  std::array<std::uint8_t, 256> symbols;  ///< in the order of their codes

  bool operator==(const HuffmanCode&) const = default;
};

/// What is common to both kinds of tables: from bits to symbols.
class HuffmanSymbols {
 public:
  /// False: this is no prefix code, or (as libjpeg has it) one whose last code is all ones.
  bool build(const HuffmanCode& code);

  struct Symbol {
    int length;  ///< of its code; 0: there is no such code
    int value;
  };
  /// The symbol whose code `bits` begin with.
  Symbol find(std::uint64_t bits) const;

 private:
  static constexpr int kBits = 9;

  std::array<std::uint16_t, 1 << kBits> lookup_;  ///< length << 8 | value; 0: longer than kBits
  std::array<int, 17> offsets_;                   ///< [n]: index of a symbol less its code
  std::array<int, 17> limits_;                    ///< [n]: the largest code of n bits; -1: none
  std::array<std::uint8_t, 256> values_;
};

/// Decodes differences of DC coefficients, code and value in one look-up.
class DcTable {
 public:
  static constexpr int kMaxSize = 11;  ///< bits of a difference; more is nothing that 8 bits need

  /// False: the table is not to be used.
  bool build(const HuffmanCode& code);

  struct Entry {
    std::int16_t difference;
    std::uint8_t length;  ///< of code and value; 0: no such code, or more than kMaxSize bits
  };
  /// Looks at no more than 27 bits.
  Entry find(std::uint64_t bits) const {
    const Entry entry = entries_[bits >> (64 - kBits)];
    return entry.length != 0 ? entry : find_long(bits);
  }

 private:
  static constexpr int kBits = 10;

  Entry find_long(std::uint64_t bits) const;

  HuffmanSymbols symbols_;
  std::array<Entry, 1 << kBits> entries_;
};

/// What AcTable gives: one symbol, or two of which the first is so short that the table knows its
/// value. Packed into 32 bits, because the tables should stay in the processor's nearest cache.
class AcSymbols {
 public:
  static constexpr int kEndOfBlock = 128;  ///< added to the advance where the block ends

  /// None.
  AcSymbols() = default;
  /// One, with run and size as ITU-T T.81 has them.
  AcSymbols(int code_length, int symbol);
  /// `first`, which has a coefficient of `value`, and `second` behind it.
  AcSymbols(const AcSymbols& first, int value, const AcSymbols& second);

  static bool can_be_first(const AcSymbols& symbols, int value) {
    return symbols.size() > 0 && value >= INT8_MIN && value <= INT8_MAX;
  }

  /// Bits of all; 0: there is none.
  int length() const { return static_cast<std::uint8_t>(word_); }
  /// Of the index in zigzag order that comes next. The last coefficient stands before the new one.
  int advance() const { return static_cast<std::uint8_t>(word_ >> 8); }
  /// Bits of the last coefficient. 0: the block ends, or 16 zeros are all there is.
  int size() const { return word_ >> 20 & 15; }
  int code_length() const { return length() - size(); }
  /// How far behind the index the first of two coefficients stands. One alone: as that.
  int offset1() const { return word_ >> 16 & 15; }
  /// The first of two coefficients. One alone: 0.
  std::int16_t value1() const {
    return static_cast<std::int16_t>(static_cast<std::int32_t>(word_) >> 24);
  }
  /// The last coefficient (F.2.2.1, EXTEND) without branches. `bits`: those that the symbols were
  /// found in. Whatever it is where the size is 0.
  std::int16_t value2(std::uint64_t bits) const {
    bits <<= code_length();
    const std::uint64_t negative =
        ~static_cast<std::uint64_t>(static_cast<std::int64_t>(bits) >> 63);
    return static_cast<std::int16_t>((((bits ^ negative) >> 1 >> (63 - size())) ^ negative) -
                                     negative);
  }

 private:
  AcSymbols(int length, int advance, int offset1, int size, int value1)
      : word_(static_cast<std::uint32_t>(length | advance << 8 | offset1 << 16 | size << 20) |
              static_cast<std::uint32_t>(value1) << 24) {}

  std::uint32_t word_ = 0;
};

/// Decodes AC coefficients: where they are short, two of them in one look-up.
class AcTable {
 public:
  static constexpr int kMaxSize = 10;  ///< bits of a coefficient; 8 bits need no more

  /// False: the table is not to be used.
  bool build(const HuffmanCode& code);

  /// Looks at no more than 22 bits. None: find_one() has to be asked. Never 16 zeros as the last.
  AcSymbols find(std::uint64_t bits) const { return entries_[bits >> (64 - kBits)]; }
  /// One symbol, whatever it is. Looks at no more than 26 bits. None: there is no such code, or one
  /// of more than kMaxSize bits.
  AcSymbols find_one(std::uint64_t bits) const;

 private:
  static constexpr int kBits = 12;

  HuffmanSymbols symbols_;
  std::array<AcSymbols, 1 << kBits> entries_;
};

}  // namespace gp
