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

namespace mocograd::MOCO_CUDA {
namespace {

template <bool whole_pieces>
void multiply(const Tensor& a, const Tensor& b, const Tensor& c) {
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(1);
  const MatrixOperand<BFloat16, true, whole_pieces> left{a.raw<BFloat16>(), K};
  const MatrixOperand<BFloat16, false, whole_pieces> right{b.raw<BFloat16>(), N};
  pipelined_product_to<BFloat16, WideTile>(left, right, MatrixOutput<float>{c.raw<float>(), M, N},
                                           pipelined_shape<BFloat16, WideTile>(M, N, K));
}

}  // namespace

void gemm_5_pipeline(const Tensor& a, const Tensor& b, const Tensor& c) {
  require_tensor_cores(Precision::bf16);
  const bool whole = a.dim(1) % kPiece<BFloat16> == 0 && b.dim(1) % kPiece<BFloat16> == 0;
  whole ? multiply<true>(a, b, c) : multiply<false>(a, b, c);
}

}  // namespace mocograd::MOCO_CUDA
