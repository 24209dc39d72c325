// Sums, maxima and counts over the threads of a block, combined in a fixed order. Every thread of the
// block must call them, and each gets the result. Requires: whole warps.
#pragma once

#include "cuda/launch.h"

namespace mocograd::MOCO_CUDA {

constexpr unsigned kAllLanes = 0xffffffff;

// combine(…) must not depend on the order of its two arguments.
template <class T, class Combine>
__device__ T block_reduce(T x, const Combine& combine) {
  __shared__ T of_warp[32];
  for (int distance = 16; distance > 0; distance /= 2)
    x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
  __syncthreads();  // the results of a call before this one have been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  T result = of_warp[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) result = combine(result, of_warp[warp]);
  return result;
}

template <class T>
__device__ T block_sum(T x) {
  return block_reduce(x, [](T a, T b) { return a + b; });
}

// Of numbers that are not NaN.
template <class T>
__device__ T block_max(T x) {
  return block_reduce(x, [](T a, T b) { return a < b ? b : a; });
}

}  // namespace mocograd::MOCO_CUDA
