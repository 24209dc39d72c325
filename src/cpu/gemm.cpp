// gemm: c = op(a) · op(b)
//   c_mn = Σ_k a_mk b_kn                      op(a): [M, K]; op(b): [K, N]; c: [M, N]
//
// B is packed into panels (micro_kernel.h), a transposed A is copied the right way round. C is cut
// into blocks of rows and groups of panels, one task each.
#include "cpu/cpu_backend.h"
#include "cpu/integers.h"
#include "cpu/micro_kernel.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kBlockRows = 8 * kTileRows;
constexpr int64_t kPanelsPerTask = 8;
enum ScratchSlot { kPanelSlot, kTransposedSlot };

// a: [K, M] → [M, K], in square pieces, so that both sides are read and written by whole cache
// lines.
template <class T>
const T* transposed(const T* a, int64_t M, int64_t K) {
  constexpr int64_t kPiece = 16;
  T* copy = static_cast<T*>(scratch(kTransposedSlot, static_cast<size_t>(M * K) * sizeof(T)));
  parallel_tasks((M + kPiece - 1) / kPiece, [&](int64_t piece) {
    const int64_t begin = piece * kPiece, end = smaller(M, begin + kPiece);
    for (int64_t k0 = 0; k0 < K; k0 += kPiece) {
      for (int64_t m = begin; m < end; ++m) {
        for (int64_t k = k0; k < smaller(K, k0 + kPiece); ++k) copy[m * K + k] = a[k * M + m];
      }
    }
  });
  return copy;
}

template <class T>
void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
             const Tensor& c) {
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(transpose_a ? 0 : 1);
  const T* b_data = b.raw<T>();
  const PackedPanels<T> panels =
      transpose_b ? pack_panels<T>(kPanelSlot, K, N,
                                   [&](int64_t k, int64_t n) { return b_data[n * K + k]; })
                  : pack_panels<T>(kPanelSlot, K, N,
                                   [&](int64_t k, int64_t n) { return b_data[k * N + n]; });
  const T* a_data = transpose_a ? transposed(a.raw<T>(), M, K) : a.raw<T>();
  T* c_data = c.raw<T>();

  const int64_t row_blocks = (M + kBlockRows - 1) / kBlockRows;
  const int64_t groups = (panels.panels() + kPanelsPerTask - 1) / kPanelsPerTask;
  parallel_tasks(row_blocks * groups, [&](int64_t task) {
    const int64_t first_row = task / groups * kBlockRows;
    const int64_t count = smaller(kBlockRows, M - first_row);
    const T* a_row[kBlockRows];
    T* c_row[kBlockRows];
    for (int64_t i = 0; i < count; ++i) {
      a_row[i] = a_data + (first_row + i) * K;
      c_row[i] = c_data + (first_row + i) * N;
    }
    const int64_t first = task % groups * kPanelsPerTask;
    for (int64_t panel = first; panel < smaller(panels.panels(), first + kPanelsPerTask); ++panel)
      multiply_panel<T>({a_row, c_row, 1, K, 0}, count, panels, panel);
  });
}

}  // namespace

void CpuBackend::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                      const Tensor& c) {
  with_float_type(c.dtype(),
                  [&](auto type) { product<decltype(type)>(a, transpose_a, b, transpose_b, c); });
}

}  // namespace mocograd::MOCO_ISA
