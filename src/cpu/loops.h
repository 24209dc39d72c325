// Loops of the memory-bound kernels: over elements, over rows, over the columns of a row.
//
// Work is cut into chunks whose size depends on the tensor alone, never on the number of threads,
// so that sums over a chunk have one fixed order. A tensor of one chunk stays on the calling
// thread.
#pragma once

#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

constexpr int64_t kChunk = 16384;  // elements: tens of kilobytes, a few microseconds

// f(begin, end) for [0, chunk), [chunk, 2·chunk), … up to n.
template <class F>
MOCO_ALWAYS_INLINE void parallel_chunks(int64_t n, int64_t chunk, const F& f) {
  parallel_tasks((n + chunk - 1) / chunk, [&](int64_t index) {
    const int64_t begin = index * chunk;
    f(begin, n - begin < chunk ? n : begin + chunk);
  });
}

// f(i) for each element, vectorised by the compiler. f(i) may read and write element i only; its
// outputs may be its inputs.
template <class F>
MOCO_ALWAYS_INLINE void for_each_element(int64_t n, const F& f) {
  parallel_chunks(n, kChunk, [&](int64_t begin, int64_t end) {
    const F body = f;  // a copy of this thread's own keeps the captured pointers in registers
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// f(i) for each row of `columns` elements.
template <class F>
MOCO_ALWAYS_INLINE void for_each_row(int64_t rows, int64_t columns, const F& f) {
  const int64_t chunk = columns < kChunk ? kChunk / (columns > 0 ? columns : 1) : 1;
  parallel_chunks(rows, chunk, [&](int64_t begin, int64_t end) {
    const F body = f;
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// How a formula that is written once reads and writes a vector, or one element at a row's end, of
// numbers that are computed as T and stored as S: T itself, or BFloat16.
template <class T>
struct WideAccess {
  using V = Vec<T>;
  template <class S>
  MOCO_ALWAYS_INLINE static V load(const S* p) {
    return MOCO_ISA::load(p);
  }
  template <class S>
  MOCO_ALWAYS_INLINE static void store(S* p, V v) {
    MOCO_ISA::store(p, v);
  }
};
template <class T>
struct NarrowAccess {
  using V = T;
  template <class S>
  MOCO_ALWAYS_INLINE static V load(const S* p) {
    return *p;
  }
  template <class S>
  MOCO_ALWAYS_INLINE static void store(S* p, V v) {
    *p = static_cast<S>(v);
  }
};

// f(access, j) for each vector of columns, then for each column that is left.
template <class T, class F>
MOCO_ALWAYS_INLINE void for_each_column(int64_t columns, const F& f) {
  int64_t j = 0;
  for (; j + kLanes<T> <= columns; j += kLanes<T>) f(WideAccess<T>{}, j);
  for (; j < columns; ++j) f(NarrowAccess<T>{}, j);
}

// The sum of a vector's lanes, by halves.
template <class T>
MOCO_ALWAYS_INLINE T sum_lanes(Vec<T> v) {
  T lane[kLanes<T>];
  store(lane, v);
  for (int width = kLanes<T> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

// Σ_j f(access, j) over the columns of a row, in four vectors side by side.
template <class T, class F>
MOCO_ALWAYS_INLINE T sum_of_columns(int64_t columns, const F& f) {
  constexpr int L = kLanes<T>;
  const WideAccess<T> wide;
  Vec<T> s0{}, s1{}, s2{}, s3{};
  int64_t j = 0;
  for (; j + 4 * L <= columns; j += 4 * L) {
    s0 += f(wide, j);
    s1 += f(wide, j + L);
    s2 += f(wide, j + 2 * L);
    s3 += f(wide, j + 3 * L);
  }
  for (; j + L <= columns; j += L) s0 += f(wide, j);
  T sum = sum_lanes<T>((s0 + s1) + (s2 + s3));
  for (; j < columns; ++j) sum += f(NarrowAccess<T>{}, j);
  return sum;
}

// The C library's functions by overload: <cmath>'s would leave shared inline copies behind.
MOCO_ALWAYS_INLINE float square_root(float x) {
  return __builtin_sqrtf(x);
}
MOCO_ALWAYS_INLINE double square_root(double x) {
  return __builtin_sqrt(x);
}

}  // namespace mocograd::MOCO_ISA
