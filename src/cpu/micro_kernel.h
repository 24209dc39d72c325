// The micro-kernel that all matrix products and convolutions share: one tile of C += A · B that
// stays in registers while its sum is taken.
//
//   c[i][j] = Σ_r Σ_k  a_i[r · run_stride + k] · b[r · run_length + k][j]
//   i < MR rows, j < NV vectors
//
// A row of A is not one line of memory but `runs` of them, run_length numbers each, run_stride
// apart: that is how a convolution reads its input without copying it into a matrix (conv2d.cpp). A
// plain matrix has one run. B is packed beforehand into panels of one tile's width (packed_panels.h),
// so that it is read in order. Each number of C is summed in one accumulator, in the order of r and
// k, whatever its tile.
//
// Why this shape: each k costs NV loads of B, MR broadcasts of a_i[k] and MR·NV multiply-adds, which
// should be the limit. Ten rows and two vectors keep 20 sums in flight, enough to hide the latency of
// the adder, and leave an address register for each row of A: with twelve rows two of these were in
// memory, and a tile whose operands lay in L1 came to 83 % of the peak in place of 93 %.
#pragma once

#include "cpu/packed_panels.h"

namespace mocograd::MOCO_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 10;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

// Where the accumulators of a tile go: overwriting, or added to what is there.
enum class Store { overwrite, accumulate };

// The accumulators of a tile. They stay in registers only if every loop over them is unrolled: one
// that is not takes their addresses.
template <class T, int MR, int NV>
struct Accumulators {
  Vec<T> sum[MR][NV];

  MOCO_ALWAYS_INLINE Accumulators() {
#pragma GCC unroll 27
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sum[i][j] = Vec<T>{};
    }
  }

  // sum[i][·] += at(i) · b[·], b: NV vectors
  template <class At>
  MOCO_ALWAYS_INLINE void add_outer_product(const At& at, const T* b) {
    Vec<T> row[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) row[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 27
    for (int i = 0; i < MR; ++i) {
      const Vec<T> factor = broadcast(at(i));
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sum[i][j] += factor * row[j];
    }
  }

  // row(i): where row i goes.
  template <Store mode, class Row>
  MOCO_ALWAYS_INLINE void store_to(const Row& row) const {
#pragma GCC unroll 27
    for (int i = 0; i < MR; ++i) {
      auto* const c = row(i);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) {
        auto* const target = c + j * kLanes<T>;
        store(target, mode == Store::accumulate ? load(target) + sum[i][j] : sum[i][j]);
      }
    }
  }
};

// The edge of a matrix, where only `rows` rows and the first `columns` numbers of each belong to it:
// tile(c, stride) is run on a whole tile in place of them, whose row(i) are copied.
template <class Stored, int MR, int NV, class Row, class Tile>
MOCO_ALWAYS_INLINE void on_whole_tile(const Row& row, int64_t rows, int64_t columns,
                                      const Tile& tile) {
  constexpr int64_t width = NV * kLanes<Stored>;
  const size_t bytes = static_cast<size_t>(columns) * sizeof(Stored);
  Stored copy[MR * width] = {};
  for (int i = 0; i < rows; ++i) __builtin_memcpy(copy + i * width, row(i), bytes);
  tile(copy, width);
  for (int i = 0; i < rows; ++i) __builtin_memcpy(row(i), copy + i * width, bytes);
}

// Rows of A and where their results go, which may be rounded to bf16 there. The pointers are one for
// each row.
template <class T, class Stored = T>
struct TileRows {
  const T* const* a;
  Stored* const* c;  // the first column of C; a panel adds its own
  int64_t runs, run_length, run_stride;
};

// One tile: rows.a[0 … MR), a panel of NV vectors, into rows.c[i] + column.
template <class T, int MR, int NV, class Stored>
[[gnu::noinline]] void multiply_tile(const TileRows<T, Stored>& rows, const T* panel,
                                     int64_t column) {
  Accumulators<T, MR, NV> c;
  for (int64_t run = 0; run < rows.runs; ++run) {
    const T* a[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) a[i] = rows.a[i] + run * rows.run_stride;
#pragma GCC unroll 4
    for (int64_t k = 0; k < rows.run_length; ++k, panel += NV * kLanes<T>)
      c.add_outer_product([&](int i) { return a[i][k]; }, panel);
  }
  c.template store_to<Store::overwrite>([&](int i) { return rows.c[i] + column; });
}

// The same, of which only the first `columns` numbers of a row belong to C.
template <class T, int MR, int NV, class Stored>
[[gnu::noinline]] void multiply_edge_tile(const TileRows<T, Stored>& rows, const T* panel,
                                          int64_t column, int64_t columns) {
  on_whole_tile<Stored, MR, NV>([&](int i) { return rows.c[i] + column; }, MR, columns,
                                [&](Stored* copy, int64_t stride) {
                                  Stored* c[MR];
                                  for (int i = 0; i < MR; ++i) c[i] = copy + i * stride;
                                  multiply_tile<T, MR, NV, Stored>(
                                      {rows.a, c, rows.runs, rows.run_length, rows.run_stride},
                                      panel, 0);
                                });
}

// A tile of so many rows as are known only now, 1 <= height <= MR.
template <class T, int MR, int NV, class Stored>
MOCO_ALWAYS_INLINE void multiply_any_tile(const TileRows<T, Stored>& rows, int64_t height,
                                          const T* panel, int64_t column, int64_t columns) {
  if constexpr (MR > 1) {
    if (height < MR) return multiply_any_tile<T, MR - 1, NV>(rows, height, panel, column, columns);
  }
  if (columns == NV * kLanes<T>) return multiply_tile<T, MR, NV>(rows, panel, column);
  multiply_edge_tile<T, MR, NV>(rows, panel, column, columns);
}

// All tiles of `count` rows with one panel of NV vectors: as even as can be.
template <class T, int NV, class Stored>
MOCO_ALWAYS_INLINE void multiply_rows(TileRows<T, Stored> rows, int64_t count, const T* panel,
                                      int64_t column, int64_t columns) {
  const EvenParts tiles{count, ceil_div(count, kTileRows)};
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    const int64_t height = tiles.size(tile);
    multiply_any_tile<T, kTileRows, NV>(rows, height, panel, column, columns);
    rows.a += height;
    rows.c += height;
  }
}

// `count` rows with one panel.
template <class T, class Stored>
MOCO_ALWAYS_INLINE void multiply_panel(const TileRows<T, Stored>& rows, int64_t count,
                                       const PackedPanels<T>& b, int64_t panel) {
  const int64_t column = panel * kTileColumns<T>, columns = b.columns_of(panel);
  const T* numbers = b.panel(panel);
  if (b.width_of(panel) == kTileColumns<T>) {
    multiply_rows<T, 2>(rows, count, numbers, column, columns);
  } else {
    multiply_rows<T, 1>(rows, count, numbers, column, columns);
  }
}

}  // namespace mocograd::MOCO_ISA
