// gemm: c = op(a) · op(b)
//   c_mn = Σ_k a_mk b_kn                      op(a): [M, K]; op(b): [K, N]; c: [M, N]
//
// B is packed into panels (packed_panels.h), a transposed A is copied the right way round, and the
// tiles are multiplied (matrix_product.h).
#include "cpu/cpu_backend.h"
#include "cpu/matrix_product.h"

namespace mocograd::MOCO_ISA {
namespace {

enum ScratchSlot { kPanelSlot, kTransposedSlot };

// a: [K, M] → [M, K], its rows no power of two apart, which would send all rows of a tile to one set
// of the cache.
template <class T>
Rows<const T> transposed(const T* a, int64_t M, int64_t K) {
  constexpr int64_t kPiece = 4 * kLanes<T>;
  const int64_t stride = K + kLanes<T>;
  T* copy = scratch_of<T>(kTransposedSlot, M * stride);
  parallel_tasks(ceil_div(M, kPiece), [&](int64_t piece) {
    const int64_t m = piece * kPiece;
    copy_transposed(a + m, M, K, smaller(kPiece, M - m), copy + m * stride, stride);
  });
  return {copy, stride};
}

template <class T>
void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
             const Tensor& c) {
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(transpose_a ? 0 : 1);
  const PackedPanels<T> panels = pack_matrix(kPanelSlot, b.raw<T>(), transpose_b, K, N);
  const Rows<const T> rows =
      transpose_a ? transposed(a.raw<T>(), M, K) : Rows<const T>{a.raw<T>(), K};
  multiply_matrix(rows, panels, M, {c.raw<T>(), N});
}

}  // namespace

void CpuBackend::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                      const Tensor& c) {
  with_float_type(c.dtype(),
                  [&](auto type) { product<decltype(type)>(a, transpose_a, b, transpose_b, c); });
}

}  // namespace mocograd::MOCO_ISA
