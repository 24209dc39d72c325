// The JSON reader against RFC 8259, accepted and refused; the writer; files of JSON lines.
#include "io/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "io/json_lines.h"
#include "temporary_directory.h"
#include "tensor/error.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

std::string error_of(const std::string& text) {
  try {
    parse_json(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

template <class T>
T parsed(const std::string& text) {
  const JsonValue value = parse_json(text);
  const T* found = value.get<T>();
  EXPECT_TRUE(found) << text << " has another type";
  return found ? *found : T();
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(JsonReader, AcceptsWhatTheGrammarAllows) {
  const std::string accepted[] = {
      "null", "true", "false", "0", "-0", "-1", "0.5", "-0.5e-3", "1E+2", "1e0", "123456789",
      // structures and the four kinds of white space
      "[]", "{}", "[ ]", "{ }", " \t\r\n[ 1 ,\n2 ] \n", "[[],{}]", R"({"a":{"b":[{}]}})",
      R"({"":0})", "[null,true,false]",
      // strings: every escape, characters that need none, one of each length of UTF-8
      R"("")", R"("\"\\\/\b\f\n\r\t")", R"("\u0000")", R"("\uFfFf")", R"("/")", "\"\x7f\"",
      "\"\u00e9 \u20ac \U0001F600\"", "\"\U0010FFFF\"", "\"\xed\x9f\xbf\xee\x80\x80\""};
  for (const std::string& text : accepted) EXPECT_NO_THROW(parse_json(text)) << text;
}

TEST(JsonReader, RefusesWhatItDoesNot) {
  const std::string refused[] = {
      "", " ", "\n", "\0"s, "\xEF\xBB\xBF{}",  // a byte order mark
      // words and numbers that are none
      "nul", "nulll", "True", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "-01", "00", "1.",
      ".5", "-.5", "1.e1", "1e", "1e+", "1e1.5", "0x10", "1_000", "1 2", "- 1", "\xEF\xBC\x91",
      // structures
      "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1}", "{]", "[]]",
      "{}{}", "[1]x", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{1:2}",
      "{a:1}", "{'a':1}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\":1:2}", "{null:1}", "//",
      "[1]//", "[1]/**/", "[1,\f2]", "[1\v]", "\xC2\xA0[]", "[1]\0"s,
      // a key twice, also where an escape hides it
      R"({"a":1,"a":1})", R"({"a":1,"b":2,"\u0061":3})", R"({"":1,"":1})",
      // strings
      "\"", "\"a", "'a'", "\"\\\"", "\"\\", "\"\\x\"", "\"\\'\"", "\"\\u\"", "\"\\u12\"",
      "\"\\u12g4\"", "\"\\u 123\"", "\"\\u-123\"", "\"\\u123", "\"\\U0041\"", "\"\\0\"", "\"\\\n\"",
      "\"a\nb\"", "\"\t\"", "\"\x1f\"", "\"\0\""s, "\"a\0b\""s, "\"\\\0\""s};
  for (const std::string& text : refused)
    EXPECT_THROW(parse_json(text), Error) << testing::PrintToString(text);
}

TEST(JsonReader, SurrogatesComeInPairs) {
  EXPECT_EQ(parsed<std::string>(R"("\ud83d\ude00")"), "\U0001F600");
  EXPECT_EQ(parsed<std::string>(R"("\uD800\uDC00")"), "\U00010000");
  EXPECT_EQ(parsed<std::string>(R"("\uDBFF\uDFFF")"), "\U0010FFFF");
  EXPECT_EQ(parsed<std::string>(R"("\uD7FF\uE000")"), "\uD7FF\uE000");
  for (const char* alone :
       {R"("\ud800")", R"("\udc00")", R"("\udfff")", R"("\udbff")", R"("\ud800x")", R"("\ud800\n")",
        R"("\ud800\u0041")", R"("\ud800\ud800")", R"("\ud800\ue000")", R"("\udc00\ud800")"})
    EXPECT_NE(error_of(alone).find("surrogate"), std::string::npos) << alone;
}

TEST(JsonReader, RefusesInvalidUtf8) {
  const std::string invalid[] = {"\x80",
                                 "\xBF",
                                 "\xC0\x80",
                                 "\xC1\xBF",  // a following byte first; overlong
                                 "\xC2",
                                 "\xC2\x41",
                                 "\xE2\x82",
                                 "\xF0\x9F\x98",  // cut off
                                 "\xE0\x80\x80",
                                 "\xE0\x9F\xBF",
                                 "\xF0\x8F\xBF\xBF",  // overlong
                                 "\xED\xA0\x80",
                                 "\xED\xBF\xBF",  // surrogates
                                 "\xF4\x90\x80\x80",
                                 "\xF5\x80\x80\x80",
                                 "\xFE",
                                 "\xFF"};
  for (const std::string& bytes : invalid) {
    EXPECT_EQ(error_of("\"" + bytes + "\""), "JSON: invalid UTF-8 at byte 1")
        << testing::PrintToString(bytes);
    EXPECT_EQ(error_of("{\"" + bytes + "\":1}"), "JSON: invalid UTF-8 at byte 2");
  }
}

TEST(JsonReader, GoesExactly64LevelsDeep) {
  for (const auto& [open, close] : {std::pair("[", "]"), std::pair("{\"a\":", "}")}) {
    EXPECT_NO_THROW(parse_json(repeated(open, 64) + "1" + repeated(close, 64)));
    EXPECT_THROW(parse_json(repeated(open, 65) + "1" + repeated(close, 65)), Error);
  }
  EXPECT_NO_THROW(parse_json(repeated("[", 64) + repeated("]", 64)));
  EXPECT_THROW(parse_json(repeated("[", 65) + repeated("]", 65)), Error);
  EXPECT_NE(error_of(repeated("[", 100'000)).find("nested too deeply at byte 64"),
            std::string::npos);
}

TEST(JsonReader, RefusesMoreValuesThanAsked) {
  EXPECT_NO_THROW(parse_json("[1, {\"a\": []}, 2]", 5));
  EXPECT_THROW(parse_json("[1, {\"a\": []}, 2]", 4), Error);
}

TEST(JsonReader, IntegersAreInt64AndNothingElse) {
  EXPECT_EQ(parsed<int64_t>("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(parsed<int64_t>("-9223372036854775808"), INT64_MIN);
  for (const char* outside : {"9223372036854775808", "-9223372036854775809", "18446744073709551616",
                              "1000000000000000000000000000000"})
    EXPECT_NE(error_of(outside).find("out of range"), std::string::npos) << outside;
  // What has a fraction or an exponent is a double, even where its value is whole.
  for (const char* number : {"1.0", "1e0", "-0.0", "9223372036854775808.0"})
    EXPECT_TRUE(parse_json(number).get<double>()) << number;
}

TEST(JsonReader, DoublesAreTheNearest) {
  EXPECT_EQ(parsed<double>("0.1"), 0.1);
  EXPECT_EQ(parsed<double>("1.7976931348623157e308"), std::numeric_limits<double>::max());
  EXPECT_EQ(parsed<double>("5e-324"), std::numeric_limits<double>::denorm_min());
  EXPECT_TRUE(std::signbit(parsed<double>("-0.0")));
  for (const char* outside : {"1e309", "-1e309", "1e99999999999"})
    EXPECT_NE(error_of(outside).find("out of range"), std::string::npos) << outside;
}

TEST(JsonReader, TellsTheByte) {
  const struct {
    const char *text, *error;
  } cases[] = {
      {"", "expected a value at byte 0"},
      {"[1, tru]", "expected a value at byte 4"},
      {"  x", "expected a value at byte 2"},
      {"{} {}", "something follows the value at byte 3"},
      {"[1 2]", "expected ',' at byte 3"},
      {"{\"a\" 1}", "expected ':' at byte 5"},
      {"{1:1}", "expected a key at byte 1"},
      {"[1.x]", "expected a digit at byte 3"},
      {"[-]", "expected a digit at byte 2"},
      {"[0, 012]", "a number begins with 0 at byte 4"},
      {"[12345678901234567890]", "a number is out of range at byte 1"},
      {"\"ab", "a string has no end at byte 3"},
      {"\"a\\q\"", "an unknown escape at byte 3"},
      {"[\"\n\"]", "a control character in a string at byte 2"},
      {"{\"a\":1, \"a\":2}", "key \"a\" appears twice at byte 8"},
  };
  for (const auto& wrong : cases)
    EXPECT_EQ(error_of(wrong.text), std::string("JSON: ") + wrong.error) << wrong.text;
}

TEST(JsonReader, KeepsTheOrderAndFindsMembers) {
  const JsonValue value = parse_json(R"({"b":1,"a":[true,null,"x"],"":{"c":0.5}})");
  const JsonMembers* members = value.get<JsonMembers>();
  ASSERT_TRUE(members);
  ASSERT_EQ(members->size(), 3u);
  EXPECT_EQ((*members)[0].first, "b");
  EXPECT_EQ((*members)[2].first, "");
  const JsonArray* array = value.find("a")->get<JsonArray>();
  ASSERT_TRUE(array);
  ASSERT_EQ(array->size(), 3u);
  EXPECT_EQ(*(*array)[0].get<bool>(), true);
  EXPECT_TRUE((*array)[1].get<std::nullptr_t>());
  EXPECT_EQ(*value.find("")->find("c")->get<double>(), 0.5);
  EXPECT_EQ(value.find("c"), nullptr);
  EXPECT_EQ(value.find("b")->find("a"), nullptr) << "an integer has no members";
}

TEST(JsonWriter, TextIsOneFlatObject) {
  EXPECT_EQ(JsonObject().text(), "{}");
  EXPECT_EQ(JsonObject()
                .add("event", "step")
                .add("step", 3)
                .add("loss", 6.25)
                .add("whole", 2.0)
                .add("big", INT64_MIN)
                .add("good", true)
                .add("list", std::vector<double>{1, 0.5})
                .add("none", std::vector<double>{})
                .text(),
            R"({"event":"step","step":3,"loss":6.25,"whole":2,"big":-9223372036854775808,)"
            R"("good":true,"list":[1,0.5],"none":[]})");
}

TEST(JsonWriter, WhatJsonLacksIsNull) {
  EXPECT_EQ(JsonObject().add("x", NAN).add("y", -INFINITY).text(), R"({"x":null,"y":null})");
}

TEST(JsonWriter, StringsReadBack) {
  std::string every_ascii;
  for (char c = 0; c < 0x7f; ++c) every_ascii += c;
  for (const std::string& text : {""s, "a\"b\\c/d"s, every_ascii, "\u00e9\u20ac\U0001F600"s})
    EXPECT_EQ(parsed<std::string>(json_quoted(text)), text);
}

// A path may hold any bytes. What is written must read back, or a checkpoint would be lost.
TEST(JsonWriter, InvalidUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(json_quoted("a\xff"
                        "b"),
            "\"a\uFFFDb\"");
  EXPECT_EQ(json_quoted("\xe2\x82"), "\"\uFFFD\uFFFD\"");
  EXPECT_EQ(json_quoted("\xed\xa0\x80z"), "\"\uFFFD\uFFFD\uFFFDz\"");
  for (int byte = 0; byte < 256; ++byte) {
    for (const std::string after : {"", "x", "\x80", "\x80\x80\x80"})
      EXPECT_NO_THROW(parse_json(json_quoted(std::string(1, static_cast<char>(byte)) + after)));
  }
}

TEST(JsonWriter, DoublesReadBackExactly) {
  RandomStream random(0, Purpose::test);
  for (int i = 0; i < 2000; ++i) {
    const double value = std::ldexp(random.normal(), static_cast<int>(i % 600) - 300);
    const JsonValue object = parse_json(JsonObject().add("x", value).text());
    const JsonValue* x = object.find("x");
    const double read =
        x->get<double>() ? *x->get<double>() : static_cast<double>(*x->get<int64_t>());
    ASSERT_EQ(read, value);
  }
}

class JsonLinesTest : public testing::Test {
 protected:
  std::string contents() const {
    std::ifstream stream(path());
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }
  std::string path() const { return folder_ / "metrics.jsonl"; }

  const TemporaryDirectory directory_;
  const fs::path folder_ = directory_.path();
};

TEST_F(JsonLinesTest, EachLineIsThereWholeAtOnce) {
  JsonLinesFile file(path());
  EXPECT_EQ(contents(), "");
  file.append(JsonObject().add("step", 1));
  EXPECT_EQ(contents(), "{\"step\":1}\n");
  file.append(JsonObject().add("text", "two\nlines"));
  EXPECT_EQ(contents(), "{\"step\":1}\n{\"text\":\"two\\u000alines\"}\n");
}

TEST_F(JsonLinesTest, AppendsToWhatIsThere) {
  JsonLinesFile(path()).append(JsonObject().add("step", 1));
  JsonLinesFile second(path()), third(path());
  second.append(JsonObject().add("step", 2));
  third.append(JsonObject().add("step", 3));
  second.append(JsonObject().add("step", 4));
  EXPECT_EQ(contents(), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n");
}

TEST_F(JsonLinesTest, FailuresNameTheFile) {
  for (const std::string wrong : {folder_ / "missing" / "a", folder_}) {
    try {
      JsonLinesFile file(wrong);
      ADD_FAILURE() << wrong << " could be opened";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).rfind(wrong + ": cannot be opened: ", 0), 0u);
    }
  }
  JsonLinesFile full("/dev/full");
  try {
    full.append(JsonObject().add("step", 1));
    ADD_FAILURE() << "a full device took a line";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "/dev/full: cannot be written: No space left on device");
  }
}

}  // namespace
}  // namespace mocograd
