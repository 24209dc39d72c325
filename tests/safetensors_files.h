// safetensors files of a test, valid and not.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/safetensors.h"
#include "temporary_directory.h"
#include "tensor/random.h"

namespace mocograd {

class SafetensorsTest : public testing::Test {
 protected:
  std::string path() const { return folder_ / "a.safetensors"; }

  void put(const std::string& bytes) const {
    // Not emptied first: some file systems then write to the disk at every close.
    std::ofstream(path(), std::ios::binary | std::ios::app).flush();
    std::ofstream(path(), std::ios::binary | std::ios::in) << bytes;
    std::filesystem::resize_file(path(), bytes.size());
  }

  std::string contents() const {
    std::ifstream stream(path(), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }

  std::string error_of(const std::string& bytes) const {
    put(bytes);
    return error_of_reading(path());
  }

  static std::string error_of_reading(const std::string& path) {
    try {
      read_safetensors(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  }

  // The file is refused in one line that names it and holds what is wrong.
  void expect_refused(const std::string& bytes, const std::string& wrong) const {
    const std::string error = error_of(bytes);
    EXPECT_EQ(error.rfind(path() + ": ", 0), 0u) << error;
    EXPECT_NE(error.find(wrong), std::string::npos) << error << "\n  does not say: " << wrong;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }

  const TemporaryDirectory directory_;
  const std::filesystem::path folder_ = directory_.path();
};

inline std::string little_endian(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(value >> (8 * i));
  return bytes;
}

inline Tensor random_bytes(const Shape& shape, DType dtype, uint32_t sample) {
  const Tensor tensor = Tensor::empty(shape, {.dtype = dtype});
  RandomStream random(0, Purpose::test, 0, sample);
  for (size_t i = 0; i < tensor.bytes(); ++i)
    static_cast<uint8_t*>(tensor.raw_bytes())[i] = static_cast<uint8_t>(random.below(256));
  return tensor;
}

}  // namespace mocograd
