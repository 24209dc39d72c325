// Rung 3, the engine's kernel for fp32: each thread keeps 4×4 sums in registers (tile_product.h). The
// eight numbers that it loads from shared memory for one k serve 16 multiply-adds.
//
// What is left between it and the limit of fp32: the copies into shared memory are waited for. And that
// limit is a small part of what the tensor cores can do.
#include "cuda/ladder/rungs.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {

void gemm_3_register_tile(const Tensor& a, const Tensor& b, const Tensor& c) {
  using A = MatrixOperand<float, true>;
  using B = MatrixOperand<float, false>;
  using C = MatrixOutput<float>;
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const ProductShape shape(M, N, K, kTile, kTile, kDepth);
  launch(tile_product_kernel<float, A, B, C>, blocks_of(kThreads, shape.blocks()),
         A{a.raw<float>(), K}, B{b.raw<float>(), N}, C{c.raw<float>(), M, N}, shape);
}

}  // namespace mocograd::MOCO_CUDA
