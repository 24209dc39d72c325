// An operand (tile_loader.h) written down along k as the tensor cores want it, rounded to the type they
// multiply: weights, which are f32 and lie along the columns of C.
#pragma once

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

constexpr int kSquare = 32;

// y[i][k] = element (i, k) of the operand, rounded; zero from K on.     y: [count, ld]
// By squares, which are read the way the operand lies and written along k.
template <class T, class Operand>
__global__ void __launch_bounds__(kThreads)
    stage_kernel(Operand operand, int count, int K, int ld, T* y) {
  __shared__ float square[kSquare][kSquare + 1];
  const int squares = (ld + kSquare - 1) / kSquare, lane = threadIdx.x % kSquare;
  const int i0 = blockIdx.x / squares * kSquare, k0 = blockIdx.x % squares * kSquare;
  for (int line = threadIdx.x / kSquare; line < kSquare; line += kThreads / kSquare) {
    const int i = Operand::kInnerIsContiguous ? line : lane;
    const int k = Operand::kInnerIsContiguous ? lane : line;
    const bool inside = i0 + i < count && k0 + k < K;
    square[i][k] = 0;
    if (inside) square[i][k] = operand.load(operand.outer(i0 + i), operand.inner(k0 + k));
  }
  __syncthreads();
  for (int line = threadIdx.x / kSquare; line < kSquare; line += kThreads / kSquare)
    if (i0 + line < count && k0 + lane < ld)
      y[int64_t{i0 + line} * ld + k0 + lane] = T(square[line][lane]);
}

template <class T, class Operand>
void stage(const Operand& operand, int64_t count, int64_t K, int64_t ld, T* y) {
  launch(stage_kernel<T, Operand>,
         blocks_of(kThreads, ceil_div(count, kSquare) * ceil_div(ld, kSquare)), operand,
         static_cast<int>(count), static_cast<int>(K), static_cast<int>(ld), y);
}

}  // namespace mocograd::MOCO_CUDA
