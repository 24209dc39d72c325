#include "io/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "tensor/error.h"

namespace mocograd {
namespace {

constexpr int kMaxDepth = 64;

// The length of the UTF-8 character that text begins with, 0 where it is none: a byte out of place,
// an overlong form, a surrogate or a code point above U+10FFFF.
size_t utf8_length(std::string_view text) {
  const unsigned lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (text.size() < length) return 0;
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const unsigned next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) return 0;
    code = code << 6 | (next & 0x3F);
  }
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid = code >= kLeast[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  return valid ? length : 0;
}

class Parser {
 public:
  Parser(std::string_view text, int64_t most_values) : text_(text), values_left_(most_values) {}

  JsonValue parse() {
    JsonValue value = parse_value(0);
    skip_space();
    if (at_ < text_.size()) fail("something follows the value");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { fail(what, at_); }
  [[noreturn]] static void fail(const std::string& what, size_t at) {
    throw Error("JSON: " + what + " at byte " + std::to_string(at));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string::npos)
      ++at_;
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void expect(char wanted) {
    if (at_ >= text_.size() || text_[at_] != wanted) fail(std::string("expected '") + wanted + "'");
    ++at_;
  }

  bool accept(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  // depth: how many arrays and objects it lies in
  JsonValue parse_value(int depth) {
    skip_space();
    if (values_left_-- == 0) fail("too many values");
    switch (peek()) {
      case '{':
      case '[':
        if (depth == kMaxDepth) fail("nested too deeply");
        if (peek() == '{') return {parse_members(depth + 1)};
        return {parse_array(depth + 1)};
      case '"':
        return {parse_string()};
      default:
        if (accept("true")) return {true};
        if (accept("false")) return {false};
        if (accept("null")) return {nullptr};
        if (peek() != '-' && !is_digit(peek())) fail("expected a value");
        return parse_number();
    }
  }

  JsonMembers parse_members(int depth) {
    JsonMembers members;
    std::unordered_set<std::string> keys;
    expect('{');
    skip_space();
    if (peek() == '}') return ++at_, members;
    for (;;) {
      skip_space();
      if (peek() != '"') fail("expected a key");
      const size_t begin = at_;
      std::string key = parse_string();
      if (!keys.insert(key).second) fail("key " + json_quoted(key) + " appears twice", begin);
      skip_space();
      expect(':');
      JsonValue value = parse_value(depth);
      members.emplace_back(std::move(key), std::move(value));
      skip_space();
      if (peek() == '}') return ++at_, members;
      expect(',');
    }
  }

  JsonArray parse_array(int depth) {
    JsonArray array;
    expect('[');
    skip_space();
    if (peek() == ']') return ++at_, array;
    for (;;) {
      array.push_back(parse_value(depth));
      skip_space();
      if (peek() == ']') return ++at_, array;
      expect(',');
    }
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  void skip_digits() {
    if (!is_digit(peek())) fail("expected a digit");
    while (is_digit(peek())) ++at_;
  }

  JsonValue parse_number() {
    const size_t begin = at_;
    if (peek() == '-') ++at_;
    const bool leading_zero = peek() == '0';
    const size_t digits = at_;
    skip_digits();
    if (leading_zero && at_ > digits + 1) fail("a number begins with 0", digits);
    bool integer = true;
    if (peek() == '.') {
      integer = false;
      ++at_;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      integer = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      skip_digits();
    }
    return integer ? JsonValue{converted<int64_t>(begin)} : JsonValue{converted<double>(begin)};
  }

  template <class Number>
  Number converted(size_t begin) const {
    Number number = 0;
    const auto [end, error] = std::from_chars(text_.data() + begin, text_.data() + at_, number);
    if (error != std::errc() || end != text_.data() + at_) fail("a number is out of range", begin);
    return number;
  }

  std::string parse_string() {
    std::string result;
    expect('"');
    while (peek() != '"' || at_ >= text_.size()) {
      if (at_ >= text_.size()) fail("a string has no end");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c < 0x20) fail("a control character in a string");
      if (c == '\\') {
        parse_escape(result);
      } else {
        copy_utf8(result);
      }
    }
    ++at_;
    return result;
  }

  void parse_escape(std::string& result) {
    ++at_;
    const char kind = peek();
    static constexpr std::string_view kKinds = "\"\\/bfnrt", kMeaning = "\"\\/\b\f\n\r\t";
    const size_t simple = kKinds.find(kind);
    if (kind == 'u') {
      ++at_;
      append_utf8(result, parse_code_point());
    } else if (simple != std::string_view::npos && kind != '\0') {
      result += kMeaning[simple];
      ++at_;
    } else {
      fail("an unknown escape");
    }
  }

  uint32_t parse_hex4() {
    uint32_t value = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() < 4 || error != std::errc() || end != digits.data() + 4)
      fail("\\u needs four hexadecimal digits");
    at_ += 4;
    return value;
  }

  uint32_t parse_code_point() {
    const uint32_t first = parse_hex4();
    if (first >= 0xDC00 && first <= 0xDFFF) fail("a low surrogate without a high one");
    if (first < 0xD800 || first > 0xDBFF) return first;
    if (!accept("\\u")) fail("a high surrogate without a low one");
    const uint32_t second = parse_hex4();
    if (second < 0xDC00 || second > 0xDFFF) fail("a high surrogate without a low one");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  static void append_utf8(std::string& result, uint32_t code) {
    if (code < 0x80) {
      result += static_cast<char>(code);
      return;
    }
    const int following = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
    result += static_cast<char>(kLead[following] | (code >> (6 * following)));
    for (int i = following - 1; i >= 0; --i)
      result += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  }

  void copy_utf8(std::string& result) {
    const size_t length = utf8_length(text_.substr(at_));
    if (length == 0) fail("invalid UTF-8");
    result += text_.substr(at_, length);
    at_ += length;
  }

  std::string_view text_;
  int64_t values_left_;
  size_t at_ = 0;
};

std::string number_text(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[32];
  char* const end = buffer + sizeof buffer;
  // Written out, a large whole number would pass for an integer, one that int64 may not hold.
  const bool large = std::fabs(value) >= 0x1p53;
  return std::string(buffer,
                     large ? std::to_chars(buffer, end, value, std::chars_format::scientific).ptr
                           : std::to_chars(buffer, end, value).ptr);
}

}  // namespace

const JsonValue* JsonValue::find(std::string_view name) const {
  const JsonMembers* members = get<JsonMembers>();
  if (!members) return nullptr;
  for (const auto& [key, member] : *members) {
    if (key == name) return &member;
  }
  return nullptr;
}

JsonValue parse_json(std::string_view text, int64_t most_values) {
  return Parser(text, most_values).parse();
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string json_quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string quoted = "\"";
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const unsigned char byte = static_cast<unsigned char>(text[0]);
    if (byte == '"' || byte == '\\') {
      quoted += {'\\', text[0]};
    } else if (byte < 0x20) {
      quoted += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    } else if (length == 0) {
      quoted += "\uFFFD";
    } else {
      quoted += text.substr(0, length);
    }
    text.remove_prefix(std::max(length, size_t{1}));
  }
  return quoted + '"';
}

namespace {

template <class T, class ToText>
std::string array_text(const std::vector<T>& values, const ToText& to_text) {
  std::string json = "[";
  for (const T& value : values) {
    if (json.size() > 1) json += ',';
    json += to_text(value);
  }
  return json + "]";
}

}  // namespace

JsonObject& JsonObject::add_raw(std::string_view key, std::string_view json) {
  if (!members_.empty()) members_ += ',';
  members_ += json_quoted(key);
  members_ += ':';
  members_ += json;
  return *this;
}

JsonObject& JsonObject::add(std::string_view key, std::string_view value) {
  return add_raw(key, json_quoted(value));
}
JsonObject& JsonObject::add(std::string_view key, double value) {
  return add_raw(key, number_text(value));
}
JsonObject& JsonObject::add(std::string_view key, int64_t value) {
  return add_raw(key, std::to_string(value));
}
JsonObject& JsonObject::add(std::string_view key, bool value) {
  return add_raw(key, value ? "true" : "false");
}
JsonObject& JsonObject::add(std::string_view key, const std::vector<double>& values) {
  return add_raw(key, array_text(values, number_text));
}
JsonObject& JsonObject::add(std::string_view key, const std::vector<int64_t>& values) {
  return add_raw(key, array_text(values, [](int64_t value) { return std::to_string(value); }));
}
JsonObject& JsonObject::add(std::string_view key, const JsonObject& value) {
  return add_raw(key, value.text());
}
JsonObject& JsonObject::add(std::string_view key, const std::vector<JsonObject>& values) {
  return add_raw(key, array_text(values, [](const JsonObject& value) { return value.text(); }));
}

}  // namespace mocograd
