// JSON (RFC 8259): a strict reader, and a writer of one object a line.
//
// The reader is stricter than general libraries, because checkpoint headers are read with it:
// duplicate keys, invalid UTF-8, numbers out of range and anything after the value are errors, and
// an integer is kept apart from a number with a fraction or an exponent.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mocograd {

struct JsonValue;
using JsonArray = std::vector<JsonValue>;
using JsonMembers = std::vector<std::pair<std::string, JsonValue>>;  // in the order of the text

struct JsonValue {
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, JsonArray, JsonMembers> value;

  template <class T>
  const T* get() const {  // null where it is something else
    return std::get_if<T>(&value);
  }
  // The member of that name, null where this is no object or has none.
  const JsonValue* find(std::string_view name) const;
};

// Throws Error with the offset in bytes. At most 64 levels deep; most_values in all, each of which takes
// some hundred bytes of memory, two of text.
JsonValue parse_json(std::string_view text, int64_t most_values = INT64_MAX);

// {"event":"step","step":3,"loss":6.25}, members in the order they were added. Doubles in the
// shortest form that reads back exactly; NaN and infinities, which JSON has not, as null.
class JsonObject {
 public:
  JsonObject& add(std::string_view key, std::string_view value);
  JsonObject& add(std::string_view key, const char* value) {
    return add(key, std::string_view(value));
  }
  JsonObject& add(std::string_view key, double value);
  JsonObject& add(std::string_view key, int64_t value);
  JsonObject& add(std::string_view key, int value) { return add(key, int64_t{value}); }
  JsonObject& add(std::string_view key, bool value);
  JsonObject& add(std::string_view key, const std::vector<double>& values);
  JsonObject& add(std::string_view key, const std::vector<int64_t>& values);
  JsonObject& add(std::string_view key, const std::vector<JsonObject>& values);
  JsonObject& add(std::string_view key, const JsonObject& value);
  JsonObject& add_null(std::string_view key) { return add_raw(key, "null"); }

  std::string text() const { return "{" + members_ + "}"; }

 private:
  JsonObject& add_raw(std::string_view key, std::string_view json);

  std::string members_;
};

bool is_utf8(std::string_view text);

// In quotation marks, escaped. A byte that is not valid UTF-8 becomes U+FFFD, so that everything
// that is written can be read.
std::string json_quoted(std::string_view text);

}  // namespace mocograd
