// Values as text that reads back to the same value: what configurations and checkpoints' metadata
// are written in.
#pragma once

#include <charconv>
#include <string>

namespace mocograd {

inline std::string to_text(const std::string& value) {
  return value;
}
inline std::string to_text(bool value) {
  return value ? "true" : "false";
}
template <class Number>
std::string to_text(Number value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);  // shortest exact
  return std::string(buffer, end);
}

// False, and the value is then unspecified, where the whole text is not one value of that type.
inline bool from_text(const std::string& text, std::string& value) {
  value = text;
  return true;
}
inline bool from_text(const std::string& text, bool& value) {
  value = text == "true";
  return text == "true" || text == "false";
}
template <class Number>
bool from_text(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end;
}

}  // namespace mocograd
