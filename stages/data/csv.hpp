#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace gp {

struct CsvRow {
  std::size_t line;  ///< where the row begins, from 1
  std::vector<std::string> fields;
};

/// The rows of a CSV text as RFC 4180 defines it: fields between commas, quoted where they hold
/// commas, quotes (doubled) or line ends. Lines may end with LF, CRLF or CR; empty ones and a byte
/// order mark of UTF-8 are passed over. Blanks belong to their field.
///
/// Throws DataError, which names `where` and the line: a quote that is never closed or stands where
/// it may not, UTF-16, text that is not UTF-8 or holds NUL.
std::vector<CsvRow> parse_csv(const std::string& text, const std::string& where);

}  // namespace gp
