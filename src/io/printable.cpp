#include "io/printable.h"

#include <cstdio>

namespace mocograd {

std::string printable(const std::string& text) {
  std::string result;
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto add_escaped = [&](unsigned value) {
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\x%02x", value);
    result += escape;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (byte(i) == 0xC2 && byte(i + 1) >= 0x80 &&
        byte(i + 1) <= 0x9F) {  // U+0080 … U+009F in UTF-8
      add_escaped(byte(i++));
      add_escaped(byte(i));
    } else if (byte(i) < 0x20 || byte(i) == 0x7F) {
      add_escaped(byte(i));
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace mocograd
