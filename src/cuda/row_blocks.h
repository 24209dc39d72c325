// Kernels in which a block of 128 threads has one row of a matrix, and its threads take every 128th
// element; and the mean of what the rows have come to.
#pragma once

#include "cuda/blocks.h"
#include "cuda/reduce.h"

namespace mocograd::MOCO_CUDA {

constexpr int kRowThreads = 128;

inline Grid one_block_a_row(const Tensor& x) {
  return blocks_of(kRowThreads, x.dim(0));
}

// Calls f(j) for this thread's elements of a row.
template <class F>
__device__ void for_each_column(int64_t C, const F& f) {
  for (int64_t j = threadIdx.x; j < C; j += kRowThreads) f(j);
}

// y = 1/n Σ_i x_i, by one block
template <class T>
__global__ void mean_kernel(int64_t n, const T* x, T* y) {
  double sum = 0;
  for_each_column(n, [&](int64_t i) { sum += static_cast<double>(x[i]); });
  sum = block_sum(sum);
  if (threadIdx.x == 0) *y = static_cast<T>(sum / static_cast<double>(n));
}
template <class T>
void mean(int64_t n, const T* x, T* y) {
  launch(mean_kernel<T>, blocks_of(kRowThreads, 1), n, x, y);
}

}  // namespace mocograd::MOCO_CUDA
