#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "io/durable_file.h"
#include "io/input_file.h"
#include "io/json.h"

namespace mocograd {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr int64_t kMaxHeaderValues = 100'000;  // of some 8,000 tensors
constexpr uint64_t kLengthBytes = 8;

// A dtype of the format, and ours where there is one.
struct FormatType {
  const char* name;
  uint64_t bytes;
  std::optional<DType> dtype;
};

constexpr FormatType kFormatTypes[] = {
    {"F32", 4, DType::f32},   {"F64", 8, DType::f64},       {"I64", 8, DType::i64},
    {"U8", 1, DType::u8},     {"BOOL", 1, std::nullopt},    {"I8", 1, std::nullopt},
    {"I16", 2, std::nullopt}, {"U16", 2, std::nullopt},     {"F16", 2, std::nullopt},
    {"BF16", 2, DType::bf16}, {"I32", 4, std::nullopt},     {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt}, {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
};

const char* format_name(DType dtype) {
  for (const FormatType& type : kFormatTypes) {
    if (type.dtype == dtype) return type.name;
  }
  MOCO_CHECK(false, "safetensors: no type for ", name_of(dtype));
}

// One tensor as the header tells of it.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;  // in the data
};

// Turns a header into entries, sorted by where they begin.
class HeaderReader {
 public:
  HeaderReader(const InputFile& file, uint64_t data_bytes) : file_(file), data_bytes_(data_bytes) {}

  std::vector<Entry> read(const std::string& text, std::map<std::string, std::string>& metadata) {
    JsonValue header;
    try {
      header = parse_json(text, kMaxHeaderValues);
    } catch (const Error& error) {
      file_.fail(std::string("the header is not valid ") + error.what());
    }
    const JsonMembers* members = header.get<JsonMembers>();
    if (!members || text[0] != '{') file_.fail("the header is no JSON object");
    std::vector<Entry> entries;
    for (const auto& [name, value] : *members) {
      if (name == "__metadata__") {
        read_metadata(value, metadata);
      } else {
        entries.push_back(read_entry(name, value));
      }
    }
    check_layout(entries);
    return entries;
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    file_.fail("tensor " + json_quoted(name) + ": " + what);
  }

  void read_metadata(const JsonValue& value, std::map<std::string, std::string>& metadata) const {
    const JsonMembers* members = value.get<JsonMembers>();
    if (!members) file_.fail("__metadata__ is no object");
    for (const auto& [key, text] : *members) {
      if (!text.get<std::string>())
        file_.fail("__metadata__: " + json_quoted(key) + " is no string");
      metadata[key] = *text.get<std::string>();
    }
  }

  Entry read_entry(const std::string& name, const JsonValue& value) const {
    const JsonMembers* members = value.get<JsonMembers>();
    const JsonValue* dtype = value.find("dtype");
    const JsonValue* shape = value.find("shape");
    const JsonValue* offsets = value.find("data_offsets");
    if (!members || members->size() != 3 || !dtype || !shape || !offsets)
      fail(name, "needs dtype, shape and data_offsets, and nothing else");
    const FormatType& type = find_type(name, *dtype);
    const std::vector<uint64_t> dims = read_sizes(name, "shape", *shape);
    const std::vector<uint64_t> range = read_sizes(name, "data_offsets", *offsets);
    if (range.size() != 2 || range[0] > range[1] || range[1] > data_bytes_)
      fail(name, "data_offsets are no range within the " + std::to_string(data_bytes_) +
                     " bytes of data");
    uint64_t bytes = type.bytes;
    for (uint64_t dim : dims) {
      if (__builtin_mul_overflow(bytes, dim, &bytes)) fail(name, "the shape is too large");
    }
    if (bytes != range[1] - range[0])
      fail(name, "dtype and shape need " + std::to_string(bytes) + " bytes, data_offsets give " +
                     std::to_string(range[1] - range[0]));
    if (!type.dtype) fail(name, std::string("dtype ") + type.name + " is not supported");
    if (dims.size() > static_cast<size_t>(Shape::kMaxDims))
      fail(name, std::to_string(dims.size()) + " dimensions are not supported, at most " +
                     std::to_string(Shape::kMaxDims));
    return {name, *type.dtype, Shape(std::vector<int64_t>(dims.begin(), dims.end())), range[0],
            range[1]};
  }

  const FormatType& find_type(const std::string& name, const JsonValue& value) const {
    const std::string* text = value.get<std::string>();
    if (!text) fail(name, "dtype is no string");
    for (const FormatType& type : kFormatTypes) {
      if (*text == type.name) return type;
    }
    fail(name, "unknown dtype " + json_quoted(*text));
  }

  std::vector<uint64_t> read_sizes(const std::string& name, const char* what,
                                   const JsonValue& value) const {
    const JsonArray* array = value.get<JsonArray>();
    if (!array) fail(name, std::string(what) + " is no list");
    std::vector<uint64_t> sizes;
    for (const JsonValue& item : *array) {
      const int64_t* number = item.get<int64_t>();
      if (!number || *number < 0) fail(name, std::string(what) + " holds no non-negative integer");
      sizes.push_back(static_cast<uint64_t>(*number));
    }
    return sizes;
  }

  // Sorted by offset: no hole, no overlap, from 0 to the end of the file.
  void check_layout(std::vector<Entry>& entries) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t reached = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != reached)
        fail(entry.name, "begins at byte " + std::to_string(entry.begin) +
                             " of the data, the one " + "before it ends at " +
                             std::to_string(reached));
      reached = entry.end;
    }
    if (reached != data_bytes_)
      file_.fail("the tensors end at byte " + std::to_string(reached) +
                 " of the data, the file at " + std::to_string(data_bytes_));
  }

  const InputFile& file_;
  const uint64_t data_bytes_;
};

std::string header_of(const NamedTensors& contents) {
  std::string header = "{";
  if (!contents.metadata.empty()) {
    JsonObject metadata;
    for (const auto& [key, value] : contents.metadata) metadata.add(key, value);
    header += "\"__metadata__\":" + metadata.text();
  }
  size_t offset = 0;
  for (const auto& [name, tensor] : contents.tensors) {
    std::string dims;
    for (int64_t dim : tensor.shape().to_vector())
      dims += (dims.empty() ? "" : ",") + std::to_string(dim);
    header += (header.size() > 1 ? "," : "") + json_quoted(name) + ":{\"dtype\":\"" +
              format_name(tensor.dtype()) + "\",\"shape\":[" + dims + "],\"data_offsets\":[" +
              std::to_string(offset) + "," + std::to_string(offset + tensor.bytes()) + "]}";
    offset += tensor.bytes();
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

}  // namespace

NamedTensors read_safetensors(const std::string& path) {
  InputFile file(path);
  uint64_t length = 0;
  if (file.size() < kLengthBytes + 2) file.fail("is too short for a safetensors file");
  file.read(&length, kLengthBytes);
  if (length < 2 || length > kMaxHeader || length > file.size() - kLengthBytes)
    file.fail("is no safetensors file: a header of " + std::to_string(length) +
              " bytes in a file of " + std::to_string(file.size()));
  std::string text(length, '\0');
  file.read(text.data(), length);

  NamedTensors contents;
  HeaderReader reader(file, file.size() - kLengthBytes - length);
  for (const Entry& entry : reader.read(text, contents.metadata)) {
    const Tensor tensor = Tensor::empty(entry.shape, {.dtype = entry.dtype});
    file.read(tensor.raw_bytes(), entry.end - entry.begin);
    contents.tensors.emplace(entry.name, tensor);
  }
  return contents;
}

void write_safetensors(const std::string& path, const NamedTensors& contents) {
  for (const auto& [name, tensor] : contents.tensors)
    MOCO_CHECK(tensor.defined() && name != "__metadata__", "safetensors: cannot write ",
               json_quoted(name), ", ", tensor.describe());
  DurableFile file(path);
  const std::string header = header_of(contents);
  const uint64_t length = header.size();
  file.write(&length, kLengthBytes);
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : contents.tensors) {
    const Tensor host = tensor.to(Device::cpu);
    file.write(host.raw_bytes(), host.bytes());
  }
  file.commit();
}

}  // namespace mocograd
