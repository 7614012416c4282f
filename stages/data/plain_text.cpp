#include "stages/data/plain_text.hpp"

#include <algorithm>

namespace gp {

bool is_utf8(const std::string& text) {
  const auto* byte = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* end = byte + text.size();
  while (byte < end) {
    const unsigned lead = *byte++;
    if (lead < 0x80) {
      if (lead == 0) return false;
      continue;
    }
    const int more = lead >= 0xC2 && lead <= 0xDF   ? 1
                     : (lead & 0xF0) == 0xE0        ? 2
                     : lead >= 0xF0 && lead <= 0xF4 ? 3
                                                    : 0;
    if (more == 0 || end - byte < more) return false;
    // The second byte rules out overlong forms, surrogates and what is above U+10FFFF.
    if ((lead == 0xE0 && byte[0] < 0xA0) || (lead == 0xED && byte[0] > 0x9F) ||
        (lead == 0xF0 && byte[0] < 0x90) || (lead == 0xF4 && byte[0] > 0x8F)) {
      return false;
    }
    for (int i = 0; i < more; ++i) {
      if ((*byte++ & 0xC0) != 0x80) return false;
    }
  }
  return true;
}

bool is_plain_text(const std::string& text) {
  return is_utf8(text) && std::none_of(text.begin(), text.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
         });
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

}  // namespace gp
