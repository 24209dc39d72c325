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

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

// Of the thread that runs. A debugger reads them as well: break … if threadIdx.x == 5
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

}  // namespace mocograd::cuda_emulated
