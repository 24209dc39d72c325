// The micro-kernel that all matrix products and convolutions share: one tile of C += A · B that
// stays in registers while its sum is taken.
//
//   c[i][j] = Σ_r Σ_k  a_i[r · run_stride + k] · b[r · run_length + k][j]
//   i < MR rows, j < NV vectors
//
// A row of A is not one line of memory but `runs` of them, run_length numbers each, run_stride
// apart: that is how a convolution reads its input without copying it into a matrix (conv2d.cpp). A
// plain matrix has one run. B is packed beforehand into panels of one tile's width, so that it is
// read in order. Each number of C is summed in one accumulator, in the order of r and k, whatever
// its tile.
//
// Why this shape: each k costs NV loads of B, and one multiply-add for each accumulator, whose
// factor a_i[k] the instruction itself broadcasts from memory. Twelve rows and two vectors fill 24
// of the 32 AVX-512 registers, which hides the latency of the adder and leaves its throughput as
// the limit.
#pragma once

#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 12;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTailRows = 4;  // what is left of the rows goes in tiles of four, then singly

template <class T>
constexpr int64_t kTileColumns = 2 * kLanes<T>;

// Where the accumulators of a tile go: overwriting, or added to what is there.
enum class Store { overwrite, accumulate };

// Stores the first `columns` numbers of NV vectors.
template <Store store_mode, class T, int NV>
MOCO_ALWAYS_INLINE void store_row(T* c, const Vec<T> (&sum)[NV], int64_t columns) {
  if (columns >= NV * kLanes<T>) {
    for (int j = 0; j < NV; ++j) {
      T* target = c + j * kLanes<T>;
      store<T>(target, store_mode == Store::accumulate ? load(target) + sum[j] : sum[j]);
    }
    return;
  }
  T numbers[NV * kLanes<T>];
  for (int j = 0; j < NV; ++j) store<T>(numbers + j * kLanes<T>, sum[j]);
  for (int64_t j = 0; j < columns; ++j)
    c[j] = store_mode == Store::accumulate ? c[j] + numbers[j] : numbers[j];
}

// Rows of A and where their results go. The pointers are one for each row.
template <class T>
struct TileRows {
  const T* const* a;
  T* const* c;  // the first column of C; a panel adds its own
  int64_t runs, run_length, run_stride;
};

// One tile: rows.a[0 … MR), a panel of NV vectors, into rows.c[i] + column.
template <class T, int MR, int NV>
[[gnu::noinline]] void multiply_tile(const TileRows<T>& rows, const T* panel, int64_t column,
                                     int64_t columns) {
  Vec<T> sum[MR][NV] = {};
  const T* a[MR];
  for (int i = 0; i < MR; ++i) a[i] = rows.a[i];
  for (int64_t run = 0; run < rows.runs; ++run) {
    for (int64_t k = 0; k < rows.run_length; ++k) {
      Vec<T> b[NV];
      for (int j = 0; j < NV; ++j) b[j] = load(panel + j * kLanes<T>);
      panel += NV * kLanes<T>;
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Vec<T> factor = broadcast(a[i][k]);
        for (int j = 0; j < NV; ++j) sum[i][j] += factor * b[j];
      }
    }
    for (int i = 0; i < MR; ++i) a[i] += rows.run_stride;
  }
  for (int i = 0; i < MR; ++i)
    store_row<Store::overwrite, T, NV>(rows.c[i] + column, sum[i], columns);
}

// All tiles of `count` rows with one panel of NV vectors.
template <class T, int NV>
MOCO_ALWAYS_INLINE void multiply_rows(TileRows<T> rows, int64_t count, const T* panel,
                                      int64_t column, int64_t columns) {
  for (; count >= kTileRows; count -= kTileRows, rows.a += kTileRows, rows.c += kTileRows)
    multiply_tile<T, kTileRows, NV>(rows, panel, column, columns);
  for (; kTileRows > kTailRows && count >= kTailRows;
       count -= kTailRows, rows.a += kTailRows, rows.c += kTailRows)
    multiply_tile<T, kTailRows, NV>(rows, panel, column, columns);
  for (; count > 0; --count, ++rows.a, ++rows.c)
    multiply_tile<T, 1, NV>(rows, panel, column, columns);
}

// B packed: panels of kTileColumns columns, [panel][k][column], padded with zeros; a last panel
// that has no more columns than one vector is one vector wide.
template <class T>
struct PackedPanels {
  T* data;
  int64_t depth;    // k
  int64_t columns;  // of B, without padding

  MOCO_ALWAYS_INLINE int64_t panels() const {
    return (columns + kTileColumns<T> - 1) / kTileColumns<T>;
  }
  MOCO_ALWAYS_INLINE int64_t columns_of(int64_t panel) const {
    const int64_t left = columns - panel * kTileColumns<T>;
    return left < kTileColumns<T> ? left : kTileColumns<T>;
  }
  MOCO_ALWAYS_INLINE int64_t width_of(int64_t panel) const {
    return columns_of(panel) > kLanes<T> ? kTileColumns<T> : kLanes<T>;
  }
  MOCO_ALWAYS_INLINE T* panel(int64_t panel) const {
    return data + panel * kTileColumns<T> * depth;
  }
};

// Packs into this thread's scratch slot, in parallel by panels; at(k, column) gives the number.
template <class T, class At>
MOCO_ALWAYS_INLINE PackedPanels<T> pack_panels(int slot, int64_t depth, int64_t columns,
                                               const At& at) {
  PackedPanels<T> packed{nullptr, depth, columns};
  packed.data = static_cast<T*>(
      scratch(slot, static_cast<size_t>(packed.panels() * kTileColumns<T> * depth) * sizeof(T)));
  parallel_tasks(packed.panels(), [&](int64_t index) {
    const int64_t first = index * kTileColumns<T>, width = packed.width_of(index);
    const int64_t real = packed.columns_of(index);
    T* target = packed.panel(index);
    for (int64_t k = 0; k < depth; ++k, target += width) {
      for (int64_t j = 0; j < real; ++j) target[j] = at(k, first + j);
      for (int64_t j = real; j < width; ++j) target[j] = 0;
    }
  });
  return packed;
}

// `count` rows with one panel.
template <class T>
MOCO_ALWAYS_INLINE void multiply_panel(const TileRows<T>& rows, int64_t count,
                                       const PackedPanels<T>& b, int64_t panel) {
  const int64_t column = panel * kTileColumns<T>, columns = b.columns_of(panel);
  if (b.width_of(panel) == kTileColumns<T>) {
    multiply_rows<T, 2>(rows, count, b.panel(panel), column, columns);
  } else {
    multiply_rows<T, 1>(rows, count, b.panel(panel), column, columns);
  }
}

}  // namespace mocograd::MOCO_ISA
