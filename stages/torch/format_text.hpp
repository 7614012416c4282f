#pragma once

#include <cstdio>
#include <string>

namespace gp {

/// As printf, of up to 511 bytes: for messages.
template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[512];
  std::snprintf(text, sizeof(text), pattern, values...);
  return text;
}

}  // namespace gp
