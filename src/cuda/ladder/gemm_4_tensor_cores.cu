// Rung 4, the engine's kernel for tf32: the multiply-adds of a warp become products of 16×8 by 8×8 on
// the tensor cores (tensor_core_product.h), which take numbers of 10 bits after the point.
//
// They wait: nothing is multiplied while the next tiles come, and each fragment of 16×8 is put together
// from single loads.
#include "cuda/ladder/rungs.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {

void gemm_4_tensor_cores(const Tensor& a, const Tensor& b, const Tensor& c) {
  using A = MatrixOperand<float, true>;
  using B = MatrixOperand<float, false>;
  using C = MatrixOutput<float>;
  require_tensor_cores(Precision::tf32);
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const ProductShape shape(M, N, K, kTensorCoreTile, kTensorCoreTile, kDepth);
  launch(tensor_core_product_kernel<A, B, C>, blocks_of(kThreads, shape.blocks()),
         A{a.raw<float>(), K}, B{b.raw<float>(), N}, C{c.raw<float>(), M, N}, shape);
}

}  // namespace mocograd::MOCO_CUDA
