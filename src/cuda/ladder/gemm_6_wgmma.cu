// Rung 6, the engine's kernel for convolutions in bf16 on compute capability 9.0 (warpgroup_product.h):
// four warps multiply tiles of 64×16 by 16×128 where they lie in shared memory, and nobody loads
// fragments.
//
// What remains: the same warps make the copies, and work out an address for each 16 bytes.
#include "cuda/ladder/rungs.h"
#include "cuda/tile_product.h"
#include "cuda/warpgroup_product.h"
#include "cuda/whole_pieces.h"

namespace mocograd::MOCO_CUDA {

void gemm_6_wgmma(const Tensor& a, const Tensor& b, const Tensor& c) {
  using T = BFloat16;
  using Tile = WarpgroupTile<128>;
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const WholePieces<T> left(a.raw<T>(), M, K), right(b.raw<T>(), K, N);
  pipelined_product_to<T, Tile>(MatrixOperand<T, true>{left.data(), left.size()},
                                MatrixOperand<T, false>{right.data(), right.size()},
                                MatrixOutput<float>{c.raw<float>(), M, N},
                                pipelined_shape<T, Tile>(M, N, K));
}

}  // namespace mocograd::MOCO_CUDA
