// Rung 6, the engine's kernel for convolutions in bf16 on compute capability 9.0 (warpgroup_product.h):
// four warps multiply tiles of 64×16 by 16×128 where they lie in shared memory, and nobody loads
// fragments.
//
// It wants both operands along k, so b is transposed first, as the engine does with weights.
#include "cuda/ladder/rungs.h"
#include "cuda/staged_operand.h"
#include "cuda/tile_product.h"
#include "cuda/warpgroup_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

template <bool whole_pieces>
void multiply(const Tensor& a, const BFloat16* b, int64_t ld, const Tensor& c) {
  using Tile = WarpgroupTile<128>;
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const MatrixOperand<BFloat16, true, whole_pieces> left{a.raw<BFloat16>(), K};
  const MatrixOperand<BFloat16, true, true> right{b, ld};
  pipelined_product_to<BFloat16, Tile>(left, right, MatrixOutput<float>{c.raw<float>(), M, N},
                                       pipelined_shape<BFloat16, Tile>(M, N, K));
}

}  // namespace

void gemm_6_wgmma(const Tensor& a, const Tensor& b, const Tensor& c) {
  const int64_t N = c.dim(1), K = a.dim(1), piece = kPiece<BFloat16>;
  const int64_t ld = ceil_div(K, piece) * piece;
  const Scratch<BFloat16> transposed(N * ld);
  stage(MatrixOperand<BFloat16, false>{b.raw<BFloat16>(), N}, N, K, ld, transposed.data());
  if (K == ld)
    multiply<true>(a, transposed.data(), ld, c);
  else
    multiply<false>(a, transposed.data(), ld, c);
}

}  // namespace mocograd::MOCO_CUDA
