// gemm: c = op(a) · op(b)
//   c_mn = Σ_k a_mk b_kn                      op(a): [M, K]; op(b): [K, N]; c: [M, N]
//
// B is packed into panels (packed_panels.h), a transposed A is copied the right way round. C is cut
// into blocks of rows and groups of panels, one task each.
#include "cpu/cpu_backend.h"
#include "cpu/micro_kernel.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kBlockRows = 16 * kTileRows;
constexpr int64_t kPanelsPerTask = 8;  // less where that would leave less than
constexpr int64_t kMinTasks = 4;
enum ScratchSlot { kPanelSlot, kTransposedSlot };

// Row m of op(a) begins at first + m·stride.
template <class T>
struct Rows {
  const T* first;
  int64_t stride;
};

// a: [K, M] → [M, K], its rows no power of two apart, which would send all rows of a tile to one set
// of the cache.
template <class T>
Rows<T> transposed(const T* a, int64_t M, int64_t K) {
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
  const T* const numbers = b.raw<T>();
  const PackedPanels<T> panels =
      pack_panels<T>(kPanelSlot, K, N, [&](int64_t first, int64_t count, T* target, int64_t width) {
        if (transpose_b) {
          copy_transposed(numbers + first * K, K, count, K, target, width);
        } else {
          copy_rows(numbers + first, N, K, count, target, width);
        }
      });
  const Rows<T> rows = transpose_a ? transposed(a.raw<T>(), M, K) : Rows<T>{a.raw<T>(), K};
  T* c_data = c.raw<T>();

  const int64_t row_blocks = ceil_div(M, kBlockRows);
  const int64_t per_task =
      larger(1, smaller(kPanelsPerTask, panels.panels() * row_blocks / kMinTasks));
  const int64_t groups = ceil_div(panels.panels(), per_task);
  parallel_tasks(row_blocks * groups, [&](int64_t task) {
    const int64_t first_row = task / groups * kBlockRows;
    const int64_t count = smaller(kBlockRows, M - first_row);
    const T* a_row[kBlockRows];
    T* c_row[kBlockRows];
    for (int64_t i = 0; i < count; ++i) {
      a_row[i] = rows.first + (first_row + i) * rows.stride;
      c_row[i] = c_data + (first_row + i) * N;
    }
    const int64_t first = task % groups * per_task;
    for (int64_t panel = first; panel < smaller(panels.panels(), first + per_task); ++panel)
      multiply_panel(TileRows<T>{a_row, c_row, 1, K, 0}, count, panels, panel);
  });
}

}  // namespace

void CpuBackend::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                      const Tensor& c) {
  with_float_type(c.dtype(),
                  [&](auto type) { product<decltype(type)>(a, transpose_a, b, transpose_b, c); });
}

}  // namespace mocograd::MOCO_ISA
