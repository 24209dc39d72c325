#include "io/npy.h"

#include <bit>

#include "io/durable_file.h"

namespace mocograd {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they are stored");

const char* description(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "<f4";
    case DType::f64:
      return "<f8";
    case DType::i64:
      return "<i8";
    case DType::u8:
      return "|u1";
    case DType::bf16:
      break;  // NumPy has none
  }
  throw Error(std::string("npy: no description of ") + name_of(dtype));
}

// As Python writes a tuple: (), (2,), (2, 3).
std::string tuple(const Shape& shape) {
  std::string text = "(";
  for (int i = 0; i < shape.ndim(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.ndim() == 1 ? ",)" : ")");
}

}  // namespace

std::string npy_header(const Tensor& tensor) {
  constexpr size_t kAlignment = 64, kBeforeText = 10;
  std::string text = std::string("{'descr': '") + description(tensor.dtype()) +
                     "', 'fortran_order': False, 'shape': " + tuple(tensor.shape()) + ", }";
  const size_t used = kBeforeText + text.size() + 1;
  text += std::string((kAlignment - used % kAlignment) % kAlignment, ' ') + '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

void write_npy(const std::string& path, const Tensor& tensor) {
  const Tensor host = tensor.to(arithmetic_dtype(tensor.dtype())).to(Device::cpu);
  const std::string header = npy_header(host);
  DurableFile file(path);
  file.write(header.data(), header.size());
  file.write(host.raw_bytes(), host.bytes());
  file.commit();
}

}  // namespace mocograd
