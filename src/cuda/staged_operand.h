// An operand (tile_loader.h) written down along k as the tensor cores want it, rounded to the type they
// multiply: weights, which are f32 and lie along the columns of C.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kStagedRows = 32, kStagedColumns = 64;  // of y, by a block

// y[i][k] = element (i, k) of the operand, rounded.     y: [count, K], rows of whole pieces
// Read the way the operand lies, by many loads at once, and written along k by pieces.
template <class T, class Operand>
__global__ void __launch_bounds__(kThreads) stage_kernel(Operand operand, int count, int K, T* y) {
  __shared__ float tile[kStagedRows][kStagedColumns + 1];
  constexpr bool kAlongK = Operand::kInnerIsContiguous;
  constexpr int kSide = kAlongK ? kStagedColumns : kStagedRows, kLines = kThreads / kSide;
  const int tiles_in_a_row = (K + kStagedColumns - 1) / kStagedColumns;
  const int i0 = blockIdx.x / tiles_in_a_row * kStagedRows;
  const int k0 = blockIdx.x % tiles_in_a_row * kStagedColumns;
  const int side = threadIdx.x % kSide, line = threadIdx.x / kSide;
  const int first_i = kAlongK ? line : side, first_k = kAlongK ? side : line;
  // Where an element is takes divisions to work out, the half that does not change once.
  const auto outer = operand.outer(min(i0 + first_i, count - 1));
  const auto inner = operand.inner(min(k0 + first_k, K - 1));
#pragma unroll
  for (int e = 0; e < kStagedRows * kStagedColumns / kThreads; ++e) {
    const int i = first_i + (kAlongK ? e * kLines : 0), k = first_k + (kAlongK ? 0 : e * kLines);
    float x = 0;
    if (i0 + i < count && k0 + k < K) {
      if constexpr (kAlongK)
        x = operand.load(operand.outer(i0 + i), inner);
      else
        x = operand.load(outer, operand.inner(k0 + k));
    }
    tile[i][k] = x;
  }
  __syncthreads();
  for (int n = threadIdx.x; n < kStagedRows * kStagedColumns / kPiece<T>; n += kThreads) {
    constexpr int kPieces = kStagedColumns / kPiece<T>;
    const int i = n / kPieces, k = n % kPieces * kPiece<T>;
    if (i0 + i >= count || k0 + k >= K) continue;
    Piece<T> piece;
#pragma unroll
    for (int j = 0; j < kPiece<T>; ++j) piece.element[j] = T(tile[i][k + j]);
    *reinterpret_cast<Piece<T>*>(y + int64_t{i0 + i} * K + k0 + k) = piece;
  }
}

template <class T, class Operand>
void stage(const Operand& operand, int64_t count, int64_t K, T* y) {
  launch(stage_kernel<T, Operand>,
         blocks_of(kThreads, ceil_div(count, kStagedRows) * ceil_div(K, kStagedColumns)), operand,
         static_cast<int>(count), static_cast<int>(K), y);
}

}  // namespace mocograd::MOCO_CUDA
