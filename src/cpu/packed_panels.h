// The right factor of micro_kernel.h, packed into panels of a tile's width, and the copies that pack.
#pragma once

#include <utility>

#include "cpu/integers.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

template <class T>
constexpr int64_t kTileColumns = 2 * kLanes<T>;

template <int half, class V, int... lane>
MOCO_ALWAYS_INLINE V interleave(V a, V b, std::integer_sequence<int, lane...>) {
  constexpr int L = sizeof...(lane);
  return __builtin_shufflevector(a, b, (half * L / 2 + lane / 2 + lane % 2 * L)...);
}

// Transposes a square of numbers. Each step interleaves row i with row i + L/2, which moves one bit
// of the row's number into the lane's, and one of the lane's into the row's.
template <class T, int L = kLanes<T>>
MOCO_ALWAYS_INLINE void transpose(Vec<T> (&row)[L]) {
  constexpr auto lanes = std::make_integer_sequence<int, L>();
#pragma GCC unroll 4
  for (int step = 1; step < L; step *= 2) {
    Vec<T> next[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) {
      next[2 * i] = interleave<0>(row[i], row[i + L / 2], lanes);
      next[2 * i + 1] = interleave<1>(row[i], row[i + L / 2], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) row[i] = next[i];
  }
}

// y = x, n numbers
template <class Stored, class T>
MOCO_ALWAYS_INLINE void copy_numbers(const Stored* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i];
}
template <class T>
MOCO_ALWAYS_INLINE void copy_numbers(const T* x, int64_t n, T* y) {
  __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
}

// target = the columns [left, left + columns) of an image's row, W pixels of C numbers; zeros where
// there are none, and in place of a row that does not exist: nullptr.
template <class Stored, class T>
MOCO_ALWAYS_INLINE void copy_with_border(const Stored* row, int64_t W, int64_t C, int64_t left,
                                         int64_t columns, T* target) {
  const auto clear = [=](int64_t begin, int64_t end) {
    __builtin_memset(target + begin * C, 0, static_cast<size_t>((end - begin) * C) * sizeof(T));
  };
  const int64_t before = smaller(columns, larger(0, -left));
  const int64_t end = larger(before, smaller(columns, W - left));
  if (!row || before == end) return clear(0, columns);
  clear(0, before);
  copy_numbers(row + (left + before) * C, (end - before) * C, target + before * C);
  clear(end, columns);
}

// target[i][j] = source[i][j], i < rows, j < columns; a stride is the distance between rows.
template <class Stored, class T>
MOCO_ALWAYS_INLINE void copy_rows(const Stored* source, int64_t source_stride, int64_t rows,
                                  int64_t columns, T* target, int64_t target_stride) {
  if (columns == kTileColumns<T>) {
    for (int64_t i = 0; i < rows; ++i, source += source_stride, target += target_stride) {
      store(target, load(source));
      store(target + kLanes<T>, load(source + kLanes<T>));
    }
    return;
  }
  for (int64_t i = 0; i < rows; ++i, source += source_stride, target += target_stride)
    copy_numbers(source, columns, target);
}

// target[j][i] = source[i][j], i < rows, j < columns.
template <class T>
[[gnu::noinline]] void copy_transposed(const T* source, int64_t source_stride, int64_t rows,
                                       int64_t columns, T* target, int64_t target_stride) {
  constexpr int L = kLanes<T>;
  const int64_t whole_rows = rows / L * L, whole_columns = columns / L * L;
  for (int64_t i = 0; i < whole_rows; i += L) {
    for (int64_t j = 0; j < whole_columns; j += L) {
      Vec<T> row[L];
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) row[r] = load(source + (i + r) * source_stride + j);
      transpose<T>(row);
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) store(target + (j + r) * target_stride + i, row[r]);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      target[j * target_stride + i] = source[i * source_stride + j];
  }
}

// B: panels of kTileColumns columns, [panel][k][column], padded with zeros; a last panel that has no
// more columns than one vector is one vector wide.
template <class T>
struct PackedPanels {
  T* data;
  int64_t depth;    // k
  int64_t columns;  // of B, without padding

  MOCO_ALWAYS_INLINE int64_t panels() const { return ceil_div(columns, kTileColumns<T>); }
  MOCO_ALWAYS_INLINE int64_t columns_of(int64_t panel) const {
    return smaller(kTileColumns<T>, columns - panel * kTileColumns<T>);
  }
  MOCO_ALWAYS_INLINE int64_t width_of(int64_t panel) const {
    return columns_of(panel) > kLanes<T> ? kTileColumns<T> : kLanes<T>;
  }
  MOCO_ALWAYS_INLINE T* panel(int64_t panel) const {
    return data + panel * kTileColumns<T> * depth;
  }
};

// Packs into this thread's scratch slot, in parallel by panels. fill(first, count, target, width)
// writes B's columns [first, first + count) to target, [depth][width].
template <class T, class Fill>
MOCO_ALWAYS_INLINE PackedPanels<T> pack_panels(int slot, int64_t depth, int64_t columns,
                                               const Fill& fill) {
  PackedPanels<T> packed{nullptr, depth, columns};
  packed.data = scratch_of<T>(slot, packed.panels() * kTileColumns<T> * depth);
  parallel_tasks(packed.panels(), [&](int64_t index) {
    const int64_t count = packed.columns_of(index), width = packed.width_of(index);
    T* const target = packed.panel(index);
    if (count < width) __builtin_memset(target, 0, static_cast<size_t>(depth * width) * sizeof(T));
    fill(index * kTileColumns<T>, count, target, width);
  });
  return packed;
}

}  // namespace mocograd::MOCO_ISA
