// What a softmax over the columns of a row is made of, and the mean of the rows' losses.
#pragma once

#include "cpu/exponential.h"
#include "cpu/loops.h"

namespace mocograd::MOCO_ISA {

MOCO_ALWAYS_INLINE float logarithm(float x) {
  return __builtin_logf(x);
}
MOCO_ALWAYS_INLINE double logarithm(double x) {
  return __builtin_log(x);
}

// The largest of a row, NaN passed over: it shows in exp(NaN − max) then.
template <class T>
T max_of_row(const T* x, int64_t C) {
  Vec<T> best = broadcast(x[0]);
  int64_t j = 0;
  for (; j + kLanes<T> <= C; j += kLanes<T>) {
    const Vec<T> v = load(x + j);
    best = v > best ? v : best;
  }
  T lane[kLanes<T>];
  store(lane, best);
  T max = lane[0];
  for (int i = 1; i < kLanes<T>; ++i) max = lane[i] > max ? lane[i] : max;
  for (; j < C; ++j) max = x[j] > max ? x[j] : max;
  return max;
}

// Summed in order.
template <class T>
T mean(const T* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return static_cast<T>(sum / static_cast<double>(n));
}

}  // namespace mocograd::MOCO_ISA
