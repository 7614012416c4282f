#include "stages/data/hdf5/crc32c.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace gp {
namespace {

using Bytes = std::vector<std::uint8_t>;

struct Known {
  Bytes bytes;
  std::uint32_t crc;
};

/// The check value of the CRC catalogues, and the vectors of RFC 3720, B.4.
std::vector<Known> known() {
  const std::string digits = "123456789";
  Bytes rising(32);
  std::iota(rising.begin(), rising.end(), std::uint8_t{0});
  const Bytes falling(rising.rbegin(), rising.rend());
  return {{{}, 0},
          {Bytes(digits.begin(), digits.end()), 0xE3069283},
          {Bytes(32, 0x00), 0x8A9136AA},
          {Bytes(32, 0xFF), 0x62A8AB43},
          {rising, 0x46DD794E},
          {falling, 0x113FDB5C}};
}

TEST(Crc32c, TableGivesTheKnownValues) {
  for (const Known& vector : known()) EXPECT_EQ(crc32c_by_table(vector.bytes), vector.crc);
}

TEST(Crc32c, InstructionGivesTheKnownValues) {
  if (!has_crc32c_instruction()) {
    // Then crc32c() must be the table, and asking for the instruction an error, not a crash.
    EXPECT_EQ(crc32c(known()[1].bytes), known()[1].crc);
    return;
  }
  for (const Known& vector : known()) EXPECT_EQ(crc32c_by_instruction(vector.bytes), vector.crc);
}

TEST(Crc32c, ChosenWayEqualsTableForEveryLengthAndAlignment) {
  Bytes bytes(10000);
  std::uint32_t state = 1;
  for (std::uint8_t& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  for (std::size_t start = 0; start < 16; ++start) {
    for (std::size_t length = 0; length <= 150; ++length) {
      const std::span<const std::uint8_t> piece(bytes.data() + start, length);
      ASSERT_EQ(crc32c(piece), crc32c_by_table(piece)) << start << " + " << length;
    }
  }
  // Around multiples of 3 KiB, which the instruction takes in pieces.
  for (const std::size_t length : {3071, 3072, 3073, 3080, 6143, 6144, 6151, 9216, 10000}) {
    const std::span<const std::uint8_t> piece(bytes.data(), length);
    ASSERT_EQ(crc32c(piece), crc32c_by_table(piece)) << length;
  }
}

}  // namespace
}  // namespace gp
