#pragma once

#include <string>

namespace gp {

/// Well-formed UTF-8 without NUL.
bool is_utf8(const std::string& text);

/// The same without any control characters: what may stand in a list with tabs and lines, in JSON
/// and in HDF5.
bool is_plain_text(const std::string& text);

/// ASCII letters in lower case, whatever the locale.
std::string lower(std::string text);

}  // namespace gp
