// Products of matrices whose rows lie some distance apart, by the micro-kernel's tiles: what gemm and
// InfoNCE share.
#pragma once

#include "cpu/micro_kernel.h"

namespace mocograd::MOCO_ISA {

// Row m begins at first + m·stride.
template <class T>
struct Rows {
  T* first;
  int64_t stride;

  MOCO_ALWAYS_INLINE T* row(int64_t m) const { return first + m * stride; }
};

// op(b): [K, N], packed; b itself is dense, op(b) = bᵀ where asked.
template <class T>
PackedPanels<T> pack_matrix(int slot, const T* b, bool transpose, int64_t K, int64_t N) {
  return pack_panels<T>(slot, K, N, [&](int64_t first, int64_t count, T* target, int64_t width) {
    if (transpose) {
      copy_transposed(b + first * K, K, count, K, target, width);
    } else {
      copy_rows(b + first, N, K, count, target, width);
    }
  });
}

// c = a · b                 a: [M, K]; b: [K, N]; c: [M, N]
// C is cut into blocks of rows and groups of panels, one task each.
template <class T>
void multiply_matrix(const Rows<const T>& a, const PackedPanels<T>& b, int64_t M,
                     const Rows<T>& c) {
  constexpr int64_t kBlockRows = 16 * kTileRows;
  constexpr int64_t kPanelsPerTask = 8;  // less where that would leave less than
  constexpr int64_t kMinTasks = 4;
  const int64_t row_blocks = ceil_div(M, kBlockRows);
  const int64_t per_task = larger(1, smaller(kPanelsPerTask, b.panels() * row_blocks / kMinTasks));
  const int64_t groups = ceil_div(b.panels(), per_task);
  parallel_tasks(row_blocks * groups, [&](int64_t task) {
    const int64_t first_row = task / groups * kBlockRows;
    const int64_t count = smaller(kBlockRows, M - first_row);
    const T* a_row[kBlockRows];
    T* c_row[kBlockRows];
    for (int64_t i = 0; i < count; ++i) {
      a_row[i] = a.row(first_row + i);
      c_row[i] = c.row(first_row + i);
    }
    const int64_t first = task % groups * per_task;
    for (int64_t panel = first; panel < smaller(b.panels(), first + per_task); ++panel)
      multiply_panel(TileRows<T>{a_row, c_row, 1, b.depth, 0}, count, b, panel);
  });
}

}  // namespace mocograd::MOCO_ISA
