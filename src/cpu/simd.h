// SIMD vectors for the kernel files, by GCC's vector extensions: ordinary operators on a register's
// worth of numbers, for whichever instruction set the file is being built for.
//
//   Vec<float> is 16 floats with AVX-512, 8 with AVX2, 4 otherwise; Vec<double> half as many.
//   load/store work at any address; a + b, a * s, … act on each lane; GCC contracts a*b + c.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mocograd::MOCO_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
MOCO_ALWAYS_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
MOCO_ALWAYS_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}
// value − 0 is value, also for −0, and costs nothing; 0 + value would cost an addition, as it turns
// −0 into 0.
template <class T>
MOCO_ALWAYS_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

}  // namespace mocograd::MOCO_ISA
