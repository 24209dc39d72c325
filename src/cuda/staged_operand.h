// An operand (tile_loader.h) written down along k as the tensor cores want it, rounded to the type they
// multiply: weights, which are f32 and lie along the columns of C.
#pragma once

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

constexpr int kStagedRows = 32, kStagedColumns = 64;  // of y, by a block

// y[i][k] = element (i, k) of the operand, rounded.     y: [count, K]
// Read the way the operand lies, by many loads at once, and written along k.
template <class T, class Operand>
__global__ void __launch_bounds__(kThreads) stage_kernel(Operand operand, int count, int K, T* y) {
  __shared__ float tile[kStagedRows][kStagedColumns + 1];
  constexpr int kEach = kStagedRows * kStagedColumns / kThreads;
  const int tiles_in_a_row = (K + kStagedColumns - 1) / kStagedColumns;
  const int i0 = blockIdx.x / tiles_in_a_row * kStagedRows;
  const int k0 = blockIdx.x % tiles_in_a_row * kStagedColumns;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int n = threadIdx.x + e * kThreads;
    const int i = Operand::kInnerIsContiguous ? n / kStagedColumns : n % kStagedRows;
    const int k = Operand::kInnerIsContiguous ? n % kStagedColumns : n / kStagedRows;
    float x = 0;
    if (i0 + i < count && k0 + k < K)
      x = operand.load(operand.outer(i0 + i), operand.inner(k0 + k));
    tile[i][k] = x;
  }
  __syncthreads();
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int n = threadIdx.x + e * kThreads;
    const int i = n / kStagedColumns, k = n % kStagedColumns;
    if (i0 + i < count && k0 + k < K) y[int64_t{i0 + i} * K + k0 + k] = T(tile[i][k]);
  }
}

template <class T, class Operand>
void stage(const Operand& operand, int64_t count, int64_t K, T* y) {
  launch(stage_kernel<T, Operand>,
         blocks_of(kThreads, ceil_div(count, kStagedRows) * ceil_div(K, kStagedColumns)), operand,
         static_cast<int>(count), static_cast<int>(K), y);
}

}  // namespace mocograd::MOCO_CUDA
