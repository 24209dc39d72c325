// SIMD vectors for the kernel files, by GCC's vector extensions: ordinary operators on a register's
// worth of numbers, for whichever instruction set the file is being built for.
//
//   Vec<float> is 16 floats with AVX-512, 8 with AVX2, 4 otherwise; Vec<double> half as many.
//   load/store work at any address; a + b, a * s, … act on each lane; GCC contracts a*b + c.
//   Numbers in memory may be BFloat16: they are floats in a register, rounded when they are stored.
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
using Vec = typename VecOf<Arithmetic<T>>::type;

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Arithmetic<T>));

template <class T>
MOCO_ALWAYS_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
MOCO_ALWAYS_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}

typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));

MOCO_ALWAYS_INLINE Vec<float> load(const BFloat16* p) {
  const HalfWords upper = *reinterpret_cast<const HalfWords*>(p);
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(upper, Words) << 16);
}
// As BFloat16's constructor rounds.
MOCO_ALWAYS_INLINE void store(BFloat16* p, Vec<float> v) {
  const Words word = reinterpret_cast<Words>(v);
  const Words rounded = word + 0x7fff + (word >> 16 & 1), quiet = word | 0x400000;
  const Words result = v == v ? rounded : quiet;
  *reinterpret_cast<HalfWords*>(p) = __builtin_convertvector(result >> 16, HalfWords);
}

// value − 0 is value, also for −0, and costs nothing; 0 + value would cost an addition, as it turns
// −0 into 0.
template <class T>
MOCO_ALWAYS_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

}  // namespace mocograd::MOCO_ISA
