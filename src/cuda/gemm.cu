// gemm: c = op(a) · op(b)
//   c_mn = Σ_k a_mk b_kn                      op(a): [M, K]; op(b): [K, N]; c: [M, N]
//
// A transposed matrix is the same memory read the other way round, and only changes which way
// neighbouring threads go (tile_product.h). Where there is cuBLAS, it computes instead (cublas.h).
#include "cuda/cublas.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Calls f with the operand whose element (i, k) is x[i][k], or x[k][i] where k is the outer one.
template <class T, class F>
void with_operand(const Tensor& x, bool k_is_outer, const F& f) {
  if (k_is_outer) {
    f(MatrixOperand<T, false>{x.raw<T>(), x.dim(1)});
  } else {
    f(MatrixOperand<T, true>{x.raw<T>(), x.dim(1)});
  }
}

}  // namespace

void CudaBackend::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                       const Tensor& c) {
  if (const Cublas* cublas = cublas_of(c.device()))
    return cublas->gemm(a, transpose_a, b, transpose_b, c);
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(transpose_a ? 0 : 1);
  with_float_type(c.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_operand<T>(a, transpose_a, [&](const auto& left) {
      with_operand<T>(b, !transpose_b,
                      [&](const auto& right) { tile_product(left, right, M, N, K, c.raw<T>()); });
    });
  });
}

}  // namespace mocograd::MOCO_CUDA
