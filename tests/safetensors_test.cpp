// safetensors: what is written reads back, and what is not exactly the format is refused by name.
#include <sys/stat.h>

#include <cstring>

#include "io/json.h"
#include "safetensors_files.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

std::string file_of(const std::string& header, size_t data_bytes) {
  return little_endian(header.size()) + header + std::string(data_bytes, 'x');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

void expect_same(const NamedTensors& read, const NamedTensors& written) {
  EXPECT_EQ(read.metadata, written.metadata);
  ASSERT_EQ(read.tensors.size(), written.tensors.size());
  for (const auto& [name, expected] : written.tensors) {
    ASSERT_TRUE(read.tensors.contains(name)) << name;
    const Tensor& found = read.tensors.at(name);
    ASSERT_EQ(found.dtype(), expected.dtype()) << name;
    ASSERT_EQ(found.shape(), expected.shape()) << name;
    EXPECT_EQ(std::memcmp(found.raw_bytes(), expected.raw_bytes(), expected.bytes()), 0) << name;
  }
}

// Every dtype, of every kind of shape; bits at random, NaN and denormals among them.
NamedTensors all_kinds() {
  NamedTensors contents;
  uint32_t sample = 0;
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8}) {
    for (const Shape& shape :
         {Shape{}, Shape{1}, Shape{0}, Shape{7}, Shape{2, 0, 3}, Shape{3, 5}, Shape{2, 1, 3, 2, 2}})
      contents.tensors[name_of(dtype) + shape.to_string()] = random_bytes(shape, dtype, sample++);
  }
  contents.metadata = {{"", "empty key"}, {"empty value", ""}, {"text", "\"\\\n\u20ac\x01"}};
  return contents;
}

TEST_F(SafetensorsTest, EveryDtypeAndShapeReadsBack) {
  const NamedTensors written = all_kinds();
  write_safetensors(path(), written);
  expect_same(read_safetensors(path()), written);
}

TEST_F(SafetensorsTest, NothingAtAllReadsBack) {
  write_safetensors(path(), {});
  EXPECT_EQ(contents(), little_endian(8) + "{}      ");
  expect_same(read_safetensors(path()), {});
}

TEST_F(SafetensorsTest, NamesMayHoldAnything) {
  NamedTensors written;
  for (const std::string name : {"", "a\"b\\", "\n", "\u20ac", "data_offsets", "dtype"})
    written.tensors[name] = random_bytes({2}, DType::f32, 0);
  write_safetensors(path(), written);
  expect_same(read_safetensors(path()), written);
}

TEST_F(SafetensorsTest, TheBytesAreTheFormats) {
  NamedTensors written;
  written.tensors["b"] = Tensor::from({1}, {1}, {.dtype = DType::i64});
  written.tensors["a"] = Tensor::from({1.5, -2}, {2, 1});
  written.metadata = {{"step", "3"}};
  write_safetensors(path(), written);
  const std::string header =
      R"({"__metadata__":{"step":"3"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const std::string data = "\0\0\xC0\x3F\0\0\0\xC0\1\0\0\0\0\0\0\0"s;
  EXPECT_EQ(contents(), little_endian(padded.size()) + padded + data);
}

TEST_F(SafetensorsTest, TheHeaderIsAMultipleOf8AndTheBytesAreTheSameEachTime) {
  NamedTensors written = all_kinds();
  for (int i = 0; i < 9; ++i) {
    written.metadata["padding"] += "x";
    write_safetensors(path(), written);
    const std::string first = contents();
    uint64_t length = 0;
    std::memcpy(&length, first.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    write_safetensors(path(), written);
    EXPECT_EQ(contents(), first);
  }
}

TEST_F(SafetensorsTest, TheWriterRefusesWhatCannotBeRead) {
  EXPECT_THROW(write_safetensors(path(), {.tensors = {{"a", Tensor()}}, .metadata = {}}), Error);
  EXPECT_THROW(write_safetensors(
                   path(), {.tensors = {{"__metadata__", Tensor::zeros({1})}}, .metadata = {}}),
               Error);
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(SafetensorsTest, MetadataThatIsNoUtf8DoesNotMakeAnUnreadableFile) {
  write_safetensors(path(), {.tensors = {}, .metadata = {{"data", "cifar10:/\xff"}}});
  EXPECT_EQ(read_safetensors(path()).metadata.at("data"), "cifar10:/\uFFFD");
}

TEST_F(SafetensorsTest, AcceptsWhatTheFormatAllows) {
  const std::string accepted[] = {
      file_of("{}", 0),
      file_of("{}   ", 0),
      file_of("{\"__metadata__\":{}}", 0),
      // order in the header is free, what counts is the order of the data
      file_of(
          "{" + tensor("a", "U8", "[3]", "[4,7]") + "," + tensor("b", "F32", "[]", "[0,4]") + "}",
          7),
      file_of(
          "{ \"a\" : { \"data_offsets\" : [ 0 , 1 ] , \"shape\" : [ 1 ] , \"dtype\" : \"U8\" } }",
          1),
      // empty tensors at the begin, between and at the end
      file_of("{" + tensor("a", "F32", "[0]", "[0,0]") + "," + tensor("b", "U8", "[2]", "[0,2]") +
                  "," + tensor("c", "F64", "[3,0]", "[2,2]") + "," +
                  tensor("d", "U8", "[1]", "[2,3]") + "," + tensor("e", "I64", "[0]", "[3,3]") +
                  "}",
              3),
      file_of("{" + tensor("a", "U8", "[0,9223372036854775807]", "[0,0]") + "}", 0),
      file_of("{" + tensor("a", "U8", "[1,1,1,1,1]", "[0,1]") + "}", 1),
  };
  for (const std::string& bytes : accepted) EXPECT_EQ(error_of(bytes), "(no error)") << bytes;
}

TEST_F(SafetensorsTest, TheHeadersLengthMustFit) {
  for (const std::string& bytes :
       {""s, "1234567"s, little_endian(0), little_endian(2), little_endian(2) + "{"})
    expect_refused(bytes, "too short");
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{100'000'001},
                                uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7})
    expect_refused(little_endian(length) + "{}", std::to_string(length));
  // a whole header, but longer than the format's bound; sparse, so nothing is really written
  put(little_endian(100'000'001) + "{}");
  fs::resize_file(path(), 100'000'009);
  EXPECT_NE(error_of_reading(path()).find("a header of 100000001 bytes"), std::string::npos);
}

TEST_F(SafetensorsTest, TheHeaderMustBeOneObject) {
  expect_refused(file_of("[]", 0), "no JSON object");
  expect_refused(file_of("12", 0), "no JSON object");
  expect_refused(file_of(" {}", 0), "no JSON object");
  expect_refused(file_of("{}x", 0), "JSON: something follows the value at byte 2");
  expect_refused(file_of("{\"a\"}", 0), "JSON: expected ':' at byte 4");
  expect_refused(file_of("{\"\xff\":1}", 0), "JSON: invalid UTF-8 at byte 2");
  expect_refused(file_of("{}\0"s, 0), "JSON");
  const std::string a = tensor("a", "U8", "[1]", "[0,1]");
  expect_refused(file_of("{" + a + "," + a + "}", 1), "key \"a\" appears twice");
  expect_refused(file_of("{" + a + "," + tensor("\\u0061", "U8", "[0]", "[1,1]") + "}", 1),
                 "key \"a\" appears twice");
}

TEST_F(SafetensorsTest, MetadataMapStringsToStrings) {
  for (const std::string wrong : {"[]", "null", "\"text\"", "1"})
    expect_refused(file_of("{\"__metadata__\":" + wrong + "}", 0), "__metadata__ is no object");
  for (const std::string wrong : {"1", "null", "true", "[\"x\"]", "{}"})
    expect_refused(file_of("{\"__metadata__\":{\"k\":" + wrong + "}}", 0),
                   "__metadata__: \"k\" is no string");
  expect_refused(file_of("{\"__metadata__\":{},\"__metadata__\":{}}", 0), "appears twice");
  expect_refused(file_of("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}", 0), "appears twice");
}

TEST_F(SafetensorsTest, ATensorHasExactlyItsThreeMembers) {
  const std::string needs = "tensor \"a\": needs dtype, shape and data_offsets";
  for (const std::string wrong :
       {"1", "null", "[]", "{}", R"({"dtype":"U8","shape":[1]})",
        R"({"dtype":"U8","data_offsets":[0,1]})", R"({"shape":[1],"data_offsets":[0,1]})",
        R"({"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0})",
        R"({"dtype":"U8","shape":[1],"offsets":[0,1]})"})
    expect_refused(file_of("{\"a\":" + wrong + "}", 1), needs);
  expect_refused(
      file_of(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
      "key \"dtype\" appears twice");
}

TEST_F(SafetensorsTest, DtypesAreTheFormats) {
  for (const std::string wrong : {"f32", "F31", "", "FLOAT", " F32", "I128"})
    expect_refused(file_of("{" + tensor("a", wrong, "[1]", "[0,4]") + "}", 4),
                   "tensor \"a\": unknown dtype \"" + wrong + "\"");
  expect_refused(file_of(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4),
                 "tensor \"a\": dtype is no string");
}

TEST_F(SafetensorsTest, DtypesThatCannotBeReadAreRefusedByName) {
  const std::pair<std::string, int> known[] = {
      {"F16", 2}, {"BOOL", 1}, {"I8", 1},  {"I16", 2},     {"U16", 2},
      {"I32", 4}, {"U32", 4},  {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [dtype, bytes] : known) {
    const std::string end = std::to_string(3 * bytes);
    expect_refused(file_of("{" + tensor("conv1.weight", dtype, "[3]", "[0," + end + "]") + "}",
                           static_cast<size_t>(3 * bytes)),
                   "tensor \"conv1.weight\": dtype " + dtype + " is not supported");
  }
}

TEST_F(SafetensorsTest, SizesAreNonNegativeIntegers) {
  for (const std::string wrong :
       {"[-1]", "[1.0]", "[1e0]", "[\"1\"]", "[null]", "[[1]]", "[true]"}) {
    expect_refused(file_of("{" + tensor("a", "U8", wrong, "[0,1]") + "}", 1),
                   "tensor \"a\": shape holds no non-negative integer");
    const std::string item = wrong.substr(1, wrong.size() - 2);
    expect_refused(file_of("{" + tensor("a", "U8", "[1]", "[0," + item + "]") + "}", 1),
                   "tensor \"a\": data_offsets holds no non-negative integer");
  }
  for (const std::string wrong : {"1", "null", "{}", "\"[1]\""}) {
    expect_refused(file_of("{" + tensor("a", "U8", wrong, "[0,1]") + "}", 1), "shape is no list");
    expect_refused(file_of("{" + tensor("a", "U8", "[1]", wrong) + "}", 1),
                   "data_offsets is no list");
  }
  expect_refused(file_of("{" + tensor("a", "U8", "[9223372036854775808]", "[0,1]") + "}", 1),
                 "out of range");
}

TEST_F(SafetensorsTest, OffsetsAreARangeOfTheData) {
  for (const std::string wrong :
       {"[]", "[0]", "[0,1,1]", "[1,0]", "[0,2]", "[2,2]", "[2,3]", "[0,9223372036854775807]"})
    expect_refused(file_of("{" + tensor("a", "U8", "[1]", wrong) + "}", 1),
                   "tensor \"a\": data_offsets are no range within the 1 bytes of data");
}

TEST_F(SafetensorsTest, DtypeAndShapeGiveTheSize) {
  expect_refused(file_of("{" + tensor("a", "F32", "[2]", "[0,4]") + "}", 4),
                 "tensor \"a\": dtype and shape need 8 bytes, data_offsets give 4");
  expect_refused(file_of("{" + tensor("a", "F32", "[]", "[0,0]") + "}", 0), "need 4 bytes");
  expect_refused(file_of("{" + tensor("a", "F32", "[0]", "[0,4]") + "}", 4), "need 0 bytes");
  // products that come out as 0 or as 4 in 64 bits
  for (const std::string shape :
       {"[4294967296,4294967296]", "[4611686018427387904]", "[4611686018427387905]",
        "[4294967296,4294967296,0]", "[9223372036854775807,9223372036854775807]"})
    for (const int bytes : {0, 4})
      expect_refused(
          file_of("{" + tensor("a", "F32", shape, "[0," + std::to_string(bytes) + "]") + "}",
                  static_cast<size_t>(bytes)),
          "tensor \"a\": the shape is too large");
}

TEST_F(SafetensorsTest, AtMostFiveDimensions) {
  expect_refused(file_of("{" + tensor("a", "U8", "[1,1,1,1,1,1]", "[0,1]") + "}", 1),
                 "tensor \"a\": 6 dimensions are not supported, at most 5");
}

TEST_F(SafetensorsTest, NoHoleNoOverlapNothingLeft) {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{" + tensor("a", "U8", "[2]", first) + "," + tensor("b", "U8", "[2]", second) + "}";
  };
  EXPECT_EQ(error_of(file_of(two("[0,2]", "[2,4]"), 4)), "(no error)");
  expect_refused(file_of(two("[0,2]", "[3,5]"), 5), "tensor \"b\": begins at byte 3");  // a hole
  expect_refused(file_of(two("[1,3]", "[3,5]"), 5), "tensor \"a\": begins at byte 1");  // at 0
  expect_refused(file_of(two("[0,2]", "[1,3]"), 3), "tensor \"b\": begins at byte 1");  // overlap
  expect_refused(file_of(two("[2,4]", "[1,3]"), 4), "tensor \"b\": begins at byte 1");
  expect_refused(file_of(two("[0,2]", "[0,2]"), 2), "begins at byte 0");  // the same
  expect_refused(file_of(two("[0,2]", "[2,4]"), 5), "end at byte 4 of the data, the file at 5");
  expect_refused(file_of("{}", 1), "end at byte 0 of the data, the file at 1");
  expect_refused(file_of("{" + tensor("a", "U8", "[0]", "[1,1]") + "," +
                             tensor("b", "U8", "[2]", "[0,2]") + "}",
                         2),
                 "begins at byte");  // an empty one inside another
}

TEST_F(SafetensorsTest, WhatIsNoFileIsRefused) {
  EXPECT_EQ(error_of_reading(path()), path() + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error_of_reading(folder_), folder_.string() + ": is not a regular file");
  EXPECT_EQ(error_of_reading("/dev/null"), "/dev/null: is not a regular file");
  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);  // nobody writes into it: opening must not wait
  EXPECT_EQ(error_of_reading(path()), path() + ": is not a regular file");
}

}  // namespace
}  // namespace mocograd
