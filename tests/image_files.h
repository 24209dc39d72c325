// For the tests of images: files to make, to read and to damage.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "data/image_file.h"
#include "temporary_directory.h"

namespace mocograd {

using Bytes = std::vector<uint8_t>;

// A file with its folders.
inline void put_file(const std::string& path, const Bytes& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline Bytes file_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(stream), {});
}

// Pixels unlike each other, which the size and `tint` decide.
inline Image test_picture(int64_t height, int64_t width, int tint = 0) {
  Image image{height, width, {}};
  for (int64_t i = 0; i < height * width; ++i) {
    for (const int64_t value : {7 * i + tint, 3 * (i % width) + 40 * tint, i * i + 11})
      image.rgb.push_back(static_cast<uint8_t>(value));
  }
  return image;
}

}  // namespace mocograd
