// Sums and maxima over the threads of a block, combined in a fixed order. Every thread of the block
// must call them, and each gets the result. Requires: whole warps.
#pragma once

#include "cuda/warp.h"

namespace mocograd::MOCO_CUDA {

// x: what the thread's warp has come to, of which its first lane's counts.
template <class T, class Combine>
__device__ T combine_warps(T x, const Combine& combine) {
  __shared__ T of_warp[32];
  __syncthreads();  // the results of a call before this one have been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  T result = of_warp[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) result = combine(result, of_warp[warp]);
  return result;
}

template <class T>
__device__ T block_sum(T x) {
  return combine_warps(warp_sum(x), [](T a, T b) { return a + b; });
}

// A NaN among them, and of zeros their sign, may be the result or not.
template <class T>
__device__ T block_max(T x) {
  return combine_warps(warp_max(x), [](T a, T b) { return a < b ? b : a; });
}

}  // namespace mocograd::MOCO_CUDA
