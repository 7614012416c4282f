#pragma once

#include <cstdint>
#include <span>

namespace gp {

/// CRC-32C (Castagnoli; iSCSI, RFC 3720): reflected polynomial 0x82F63B78, initial value and final
/// xor all ones. Uses the SSE4.2 instruction where the processor has it. Thread-safe.
std::uint32_t crc32c(std::span<const std::uint8_t> bytes);

/// The two ways to compute it, apart, for tests. The second may be called only where
/// `has_crc32c_instruction` says so.
std::uint32_t crc32c_by_table(std::span<const std::uint8_t> bytes);
std::uint32_t crc32c_by_instruction(std::span<const std::uint8_t> bytes);
bool has_crc32c_instruction();

}  // namespace gp
