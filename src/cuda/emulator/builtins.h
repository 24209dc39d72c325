// The types and variables that CUDA gives every kernel.
#pragma once

#include <cstddef>

namespace mocograd::cuda_emulated {

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the thread that runs. A debugger reads them as well: break … if threadIdx.x == 5
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

}  // namespace mocograd::cuda_emulated
