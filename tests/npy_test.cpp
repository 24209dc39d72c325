// .npy files, byte for byte as numpy's format 1.0 says.
#include "io/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tiny_data.h"

namespace mocograd {
namespace {

std::string contents_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(Npy, HeaderIsByteForByteWhatTheFormatSays) {
  const std::string magic("\x93NUMPY\x01\x00", 8);
  EXPECT_EQ(npy_header(Tensor::zeros({2, 3})),
            magic + std::string("\x76\x00", 2) +
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" +
                std::string(58, ' ') + "\n");
  EXPECT_EQ(npy_header(Tensor::zeros({7}, {.dtype = DType::i64})),
            magic + std::string("\x76\x00", 2) +
                "{'descr': '<i8', 'fortran_order': False, 'shape': (7,), }" + std::string(60, ' ') +
                "\n");
  EXPECT_EQ(npy_header(Tensor::zeros({}, {.dtype = DType::f64})),
            magic + std::string("\x76\x00", 2) +
                "{'descr': '<f8', 'fortran_order': False, 'shape': (), }" + std::string(62, ' ') +
                "\n");
  EXPECT_NE(npy_header(Tensor::zeros({1}, {.dtype = DType::u8})).find("'|u1'"), std::string::npos);
}

TEST(Npy, NumbersBeginAtTheNextMultipleOf64) {
  int exact = 0;
  for (int64_t digits = 4; digits <= 64; ++digits) {  // of the last four dimensions together
    std::vector<int64_t> dims{0};
    for (int64_t i = 0; i < 4; ++i)
      dims.push_back(static_cast<int64_t>(std::pow(10, (digits + i) / 4 - 1)));
    const std::string header = npy_header(Tensor::zeros(Shape(dims)));
    const size_t text = header.find(", }") + 3;
    EXPECT_EQ(header.size(), (text + 1 + 63) / 64 * 64) << header;
    EXPECT_EQ(header.find_first_not_of(' ', text), header.size() - 1);
    EXPECT_EQ(header.back(), '\n');
    const size_t length = static_cast<unsigned char>(header[8]) +
                          256 * static_cast<size_t>(static_cast<unsigned char>(header[9]));
    EXPECT_EQ(length, header.size() - 10);
    exact += text + 1 == header.size();
  }
  EXPECT_EQ(exact, 1) << "the case without any padding is missing";
}

TEST(Npy, FileIsHeaderAndRowMajorNumbers) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  const Tensor tensor = Tensor::from({1, 2.5, -3, 4, 5, 6}, {2, 3});
  write_npy(path, tensor);
  const std::string contents = contents_of(path), header = npy_header(tensor);
  ASSERT_EQ(contents.size(), header.size() + 6 * sizeof(float));
  EXPECT_EQ(contents.substr(0, header.size()), header);
  EXPECT_EQ(std::memcmp(contents.data() + header.size(), tensor.raw_bytes(), tensor.bytes()), 0);
}

TEST(Npy, ErrorNamesTheFile) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("missing/a.npy");
  try {
    write_npy(path, Tensor::zeros({1}));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).rfind(path, 0), 0u) << error.what();
  }
}

}  // namespace
}  // namespace mocograd
