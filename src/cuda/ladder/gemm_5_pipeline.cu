// Rung 5, the engine's kernel for convolutions in bf16 (pipelined_product.h): asynchronous copies bring
// the next two steps' tiles while this one's are multiplied, ldmatrix loads four fragments in one
// instruction, and a swizzle keeps them in different banks. bf16 has half the bytes, and twice the
// products in a cycle.
//
// What mma is fed with goes through the registers, and takes instructions: the tensor cores of compute
// capability 9.0 are faster than that.
#include "cuda/ladder/rungs.h"
#include "cuda/pipelined_product.h"
#include "cuda/tile_product.h"
#include "cuda/whole_pieces.h"

namespace mocograd::MOCO_CUDA {

void gemm_5_pipeline(const Tensor& a, const Tensor& b, const Tensor& c) {
  require_tensor_cores(Precision::bf16);
  using T = BFloat16;
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const WholePieces<T> left(a.raw<T>(), M, K), right(b.raw<T>(), K, N);
  pipelined_product_to<T, WideTile>(MatrixOperand<T, true>{left.data(), left.size()},
                                    MatrixOperand<T, false>{right.data(), right.size()},
                                    MatrixOutput<float>{c.raw<float>(), M, N},
                                    pipelined_shape<T, WideTile>(M, N, K));
}

}  // namespace mocograd::MOCO_CUDA
