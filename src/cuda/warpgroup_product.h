// The pipelined product (pipelined_product.h) with wgmma: bf16, each operand along or across k.
//
// A block computes a tile of C, each of its two warpgroups 64 rows of it. wgmma reads both operands
// from shared memory, where they lie as it wants them anyway, so no warp spends instructions or
// registers on fragments.
//
// A warpgroup begins a step's products, begins the copies for a later step while they run, and waits.
// Meanwhile the multiprocessor's other block keeps the tensor cores busy.
#pragma once

#include "cuda/capability.h"
#include "cuda/pipelined_product.h"
#include "cuda/tensor_core_instructions.h"

namespace mocograd::MOCO_CUDA {

// On the emulator, where nothing is faster, only if it is asked for.
inline bool use_wgmma() {
#ifdef __CUDACC__
  return tensor_core_instructions() != TensorCoreInstructions::mma && has_wgmma();
#else
  return tensor_core_instructions() == TensorCoreInstructions::wgmma;
#endif
}

// A warpgroup's part of the block's tile.
template <int columns, bool a_along_k, bool b_along_k>
class WarpgroupProduct {
 public:
  __device__ void begin(const unsigned char* a, const unsigned char* b) {
    const unsigned char* const rows = a + threadIdx.x / 128 * tile_bytes(64);
    wgmma_fence();
#pragma unroll
    for (int part = 0; part < 4; ++part) {  // 16 of K each
      const uint64_t left = operand<a_along_k>(rows, part), right = operand<b_along_k>(b, part);
      if constexpr (columns == 64)
        wgmma_m64n64k16_bf16<a_along_k, b_along_k>(sum_, left, right);
      else
        wgmma_m64n128k16_bf16<a_along_k, b_along_k>(sum_, left, right);
    }
    wgmma_commit();
  }
  __device__ void end(const unsigned char* /*a*/, const unsigned char* /*b*/) {
    wgmma_wait<0>();
  }

  template <class F>
  __device__ void for_each_pair(const F& f) const {
    const int m = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, n = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < columns / 2; i += 2)
      f(m + 8 * (i / 2 % 2), 8 * (i / 4) + n, sum_[i], sum_[i + 1]);
  }

 private:
  static_assert(columns == 64 || columns == 128);
  // Bricks follow each other, and across k the panels of 64 columns.
  template <bool along_k>
  __device__ static uint64_t operand(const unsigned char* tile, int part) {
    return wgmma_operand(tile + part * (along_k ? 2 * kPieceBytes : tile_bytes(16)),
                         Swizzle::bytes128, tile_bytes(8), tile_bytes(64));
  }
  float sum_[columns / 2] = {};
};

template <int tile_columns>
struct WarpgroupTile {
  static constexpr int kRows = 128, kColumns = tile_columns;
  static constexpr int kThreads = 256, kBlocks = tile_columns > 64 ? 2 : 3;
  static constexpr bool kWgmma = true;
  static constexpr int kStages = 3, kStageBytes = tile_bytes(kRows + tile_columns);
  template <class T, bool a_along_k, bool b_along_k>
  using Product = WarpgroupProduct<tile_columns, a_along_k, b_along_k>;
};

}  // namespace mocograd::MOCO_CUDA
