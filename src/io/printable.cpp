#include "io/printable.h"

#include <cstdio>

namespace mocograd {

std::string printable(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const unsigned byte = static_cast<unsigned char>(c);
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\x%02x", byte);
    result += byte < 0x20 || byte == 0x7F ? escape : std::string(1, c);
  }
  return result;
}

}  // namespace mocograd
