// Small data sets for tests, in memory and on disk.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "data/dataset.h"
#include "temporary_directory.h"
#include "tensor/random.h"

namespace mocograd {

// Pictures of noise; image i is of class i mod `classes`, which shifts the mean of its colour, so
// that the classes can be told apart.
inline ImageSet tiny_images(int64_t count, int64_t classes, int64_t size, uint32_t split) {
  ImageSet set{Tensor::empty({count, 3, size, size}, {.dtype = DType::u8}),
               Tensor::empty({count}, {.dtype = DType::i64})};
  RandomStream random(1, Purpose::test, 5, split);
  uint8_t* pixel = set.images.data<uint8_t>();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t label = i % classes;
    set.labels.data<int64_t>()[i] = label;
    for (int64_t c = 0; c < 3; ++c) {
      const int64_t mean = 40 + 120 * ((label >> c) & 1) + 20 * (label >> 3);
      for (int64_t p = 0; p < size * size; ++p)
        *pixel++ = static_cast<uint8_t>(mean + random.below(40));
    }
  }
  return set;
}

inline DataSet tiny_data(int64_t train = 40, int64_t test = 20, int64_t classes = 10,
                         int64_t size = 8) {
  DataSet data;
  data.name = "tiny";
  data.train = tiny_images(train, classes, size, 0);
  data.test = tiny_images(test, classes, size, 1);
  for (int64_t c = 0; c < classes; ++c) data.classes.push_back("class " + std::to_string(c));
  data.mean = {0.5f, 0.5f, 0.5f};
  data.std = {0.2f, 0.2f, 0.2f};
  return data;
}

// In CIFAR-10's binary format.
inline void write_cifar10(const ImageSet& set, const std::string& path) {
  constexpr int64_t kImageBytes = 3 * 32 * 32;
  std::ofstream stream(path, std::ios::binary);
  for (int64_t i = 0; i < set.size(); ++i) {
    stream.put(static_cast<char>(set.labels.data<int64_t>()[i]));
    stream.write(reinterpret_cast<const char*>(set.images.data<uint8_t>()) + i * kImageBytes,
                 kImageBytes);
  }
}

}  // namespace mocograd
