// Sums and maxima over the 32 lanes of a warp; every lane gets the result. All lanes must call them.
#pragma once

#include "cuda/launch.h"

namespace mocograd::MOCO_CUDA {

constexpr unsigned kAllLanes = 0xffffffff;

template <class T>
__device__ inline T warp_sum(T x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}

// A NaN among them, and of zeros their sign, may be the result or not, in each lane differently.
template <class T>
__device__ inline T warp_max(T x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, lanes);
    x = x < other ? other : x;
  }
  return x;
}

}  // namespace mocograd::MOCO_CUDA
