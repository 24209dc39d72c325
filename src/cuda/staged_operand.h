// An operand (tile_loader.h) written down along k as the tensor cores want it, rounded to the type they
// multiply: weights, which are f32 and lie along the columns of C. Either as rows, or as tiles, of
// which one thread copies each at once to where wgmma reads it (bulk_copy.h).
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kStagedRows = 32, kStagedColumns = 64;  // of y, by a block

// y: [count, K], rows of whole pieces. As an operand: MatrixOperand<T, true>.
struct StagedRows {
  int count, K;
  __device__ int64_t place(int i, int k) const { return int64_t{i} * K + k; }
};

// y: [count / rows][K / kStep] tiles of `rows` rows by kStep of k, as they lie in shared memory
// (staged_tile.h). What is beyond the operand's ends is zero. As an operand itself.
template <class T, int rows>
struct StagedTiles {
  static constexpr bool kInnerIsContiguous = true;
  static constexpr int kTileSize = rows * kStep<T>;
  int count, K;
  T* y;

  __device__ const T* tile(int i, int k) const {
    const int steps = K / kStep<T>, step = k / kStep<T>;
    return y + (int64_t{i / rows} * steps + step) * kTileSize;
  }
  __device__ int64_t place(int i, int k) const {
    const uint32_t bytes = place_in_tile<T, true>(i % rows, k % kStep<T>);
    return tile(i, k) - y + bytes / static_cast<uint32_t>(sizeof(T));
  }
};

// y[i][k] = element (i, k) of the operand, rounded, or zero.
// Read the way the operand lies, by many loads at once, and written along k by pieces.
template <class T, class Operand, class Layout>
__global__ void __launch_bounds__(kThreads)
    stage_kernel(Operand operand, int count, int K, Layout layout, T* y) {
  __shared__ float tile[kStagedRows][kStagedColumns + 1];
  constexpr bool kAlongK = Operand::kInnerIsContiguous;
  constexpr int kSide = kAlongK ? kStagedColumns : kStagedRows, kLines = kThreads / kSide;
  const int tiles_in_a_row = (layout.K + kStagedColumns - 1) / kStagedColumns;
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
    if (i0 + i >= layout.count || k0 + k >= layout.K) continue;
    Piece<T> piece;
#pragma unroll
    for (int j = 0; j < kPiece<T>; ++j) piece.element[j] = T(tile[i][k + j]);
    *reinterpret_cast<Piece<T>*>(y + layout.place(i0 + i, k0 + k)) = piece;
  }
}

template <class T, class Operand, class Layout>
void stage(const Operand& operand, int64_t count, int64_t K, const Layout& layout, T* y) {
  const int64_t blocks = ceil_div(layout.count, kStagedRows) * ceil_div(layout.K, kStagedColumns);
  launch(stage_kernel<T, Operand, Layout>, blocks_of(kThreads, blocks), operand,
         static_cast<int>(count), static_cast<int>(K), layout, y);
}

}  // namespace mocograd::MOCO_CUDA
