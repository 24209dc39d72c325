// Sums down the columns of a row-major [rows, C] matrix, which is what a channel's sum over the
// pixels of an NHWC tensor is.
//
// A narrow matrix wastes vectors, so it is folded: `fold` rows of [rows, C] are, in memory, one row
// of [rows/fold, fold·C]. The columns of the wide matrix are summed and the fold parts of each
// channel are added last.
#pragma once

#include "cpu/loops.h"

namespace mocograd::MOCO_ISA {

// How many rows are walked side by side. From memory one after the other, because the processor
// fetches ahead only what is read in order (measured: twice as fast); in the cache four, because
// what belongs to a column is then loaded once for them.
constexpr int kStreamed = 1, kCached = 4;

// How many rows make one wide row: at least eight vectors, and whole ones. 1 where C is wide.
template <class T>
MOCO_ALWAYS_INLINE int64_t fold_of(int64_t C) {
  constexpr int64_t kWide = 8 * kLanes<T>;
  if (C >= kWide) return 1;
  int64_t fold = (kWide + C - 1) / C;
  while (fold * C % kLanes<T> != 0) ++fold;
  return fold;
}

// Walks a flat array whose columns repeat every `period`, `interleave` rows side by side and then
// one by one: f(access, i, rows, j) stands for the elements i, i + period, … of column j, `rows` of
// them.
template <int interleave, class T, class F>
MOCO_ALWAYS_INLINE void walk_columns(int64_t elements, int64_t period, const F& f) {
  int64_t i = 0;
  for (; i + interleave * period <= elements; i += interleave * period) {
    for_each_column<T>(period, [&](auto access, int64_t j) { f(access, i + j, interleave, j); });
  }
  for (; i < elements; i += period) {
    const int64_t columns = elements - i < period ? elements - i : period;
    for_each_column<T>(columns, [&](auto access, int64_t j) { f(access, i + j, 1, j); });
  }
}

// sums[q·period + j] = Σ over the elements i of column j of their term q.
// term(access, i, j, s) adds the Q terms of element i to s[0], …, s[Q-1].
template <int Q, int interleave, class T, class F>
MOCO_ALWAYS_INLINE void sum_columns(int64_t elements, int64_t period, T* sums, const F& term) {
  for (int64_t i = 0; i < Q * period; ++i) sums[i] = 0;
  walk_columns<interleave, T>(elements, period, [&](auto access, int64_t i, int rows, int64_t j) {
    typename decltype(access)::V s[Q];
    for (int q = 0; q < Q; ++q) s[q] = access.load(sums + q * period + j);
    for (int r = 0; r < rows; ++r) term(access, i + r * period, j, s);
    for (int q = 0; q < Q; ++q) access.store(sums + q * period + j, s[q]);
  });
}

// total[c] = Σ_k sums[k·C + c], k < fold.
template <class T>
MOCO_ALWAYS_INLINE void add_folds(const T* sums, int64_t fold, int64_t C, T* total) {
  for (int64_t c = 0; c < C; ++c) total[c] = sums[c];
  for (int64_t k = 1; k < fold; ++k) {
    for (int64_t c = 0; c < C; ++c) total[c] += sums[k * C + c];
  }
}

// wide[k·C + c] = wide[c], 0 < k < fold: a channel's number for every column of a folded row.
template <class T>
MOCO_ALWAYS_INLINE void repeat_folds(T* wide, int64_t fold, int64_t C) {
  for (int64_t i = C; i < fold * C; ++i) wide[i] = wide[i - C];
}

}  // namespace mocograd::MOCO_ISA
