// BFloat16: the upper half of a float, 8 bits of exponent and 7 after the point. For storage alone:
// arithmetic on it is arithmetic on floats, and a result is rounded when it is put back.
#pragma once

#include <concepts>
#include <cstdint>

#include "tensor/error.h"

// Functions that CUDA kernels call too.
#ifdef __CUDACC__
#define MOCO_HOST_DEVICE __host__ __device__
#else
#define MOCO_HOST_DEVICE
#endif

namespace mocograd {

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  // To nearest, ties to even; beyond the largest to infinity; NaN stays NaN.
  MOCO_HOST_DEVICE MOCO_ALWAYS_INLINE explicit BFloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    const uint32_t word = __builtin_bit_cast(uint32_t, x);
    const uint32_t rounded = word + 0x7fff + (word >> 16 & 1);
    const uint32_t quiet = word | 0x400000;
    bits = static_cast<uint16_t>((x == x ? rounded : quiet) >> 16);
#endif
  }
  MOCO_HOST_DEVICE MOCO_ALWAYS_INLINE operator float() const {
    return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  }
  // Not to an integer, which c ? x : 0 would be.
  template <std::integral Integer>
  operator Integer() const = delete;
};

}  // namespace mocograd
