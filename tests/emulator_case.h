// For the tests of kernels on the emulator.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "cuda/launch.h"

namespace mocograd::cuda_emulated {

// Memory of the device for one test.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count), data_(device_allocate(count * sizeof(T))) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    device_copy(data_, values.data(), count_ * sizeof(T));
  }
  ~DeviceArray() { device_free(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return static_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> values(count_);
    device_copy(values.data(), data_, count_ * sizeof(T));
    return values;
  }

 private:
  size_t count_;
  void* data_;
};

class EmulatorTest : public testing::Test {
 protected:
  void TearDown() override { emulator::set_seed(0); }
};

__global__ inline void record_order(unsigned* order, unsigned* next) {
  order[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

// Chooses a seed: of two threads in a block, this one runs first.
inline void draw_first(unsigned thread) {
  DeviceArray<unsigned> order(2);
  for (uint64_t seed = 0;; ++seed) {
    emulator::set_seed(seed);
    DeviceArray<unsigned> next(std::vector<unsigned>{0});
    launch(record_order, Grid{1, 2}, order.data(), next.data());
    if (order.values()[0] == thread) return;
  }
}

}  // namespace mocograd::cuda_emulated
