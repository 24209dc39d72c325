// Matrix products of one warp (mma.sync) and the loads that feed them (ldmatrix). All 32 lanes call
// them together. Compute capability 8.0 and newer; a kernel that calls them is not launched on less.
//
// Who holds what, for lane l with row g = l / 4 and t = l % 4; pairs are packed low half first:
//   bf16  a: [16, 16]  a[0] (g, 2t 2t+1)  a[1] (g+8, 2t 2t+1)  a[2] (g, 2t+8 2t+9)  a[3] (g+8, 2t+8 2t+9)
//         b: [16, 8]   b[0] (2t 2t+1, g)  b[1] (2t+8 2t+9, g)
//   tf32  a: [16, 8]   a[0] (g, t)        a[1] (g+8, t)        a[2] (g, t+4)        a[3] (g+8, t+4)
//         b: [8, 8]    b[0] (t, g)        b[1] (t+4, g)
//   both  d: [16, 8]   d[0] (g, 2t)       d[1] (g, 2t+1)       d[2] (g+8, 2t)       d[3] (g+8, 2t+1)
#pragma once

#include "cuda/launch.h"
#ifndef __CUDACC__
#include "cuda/emulator/instructions.h"
#endif

namespace mocograd::MOCO_CUDA {

// d += a · b, bf16 in, fp32 sums.
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2],
                                         [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::mma_m16n8k16_bf16(d, a, b, site);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// d += a · b, tf32 in: fp32 whose lowest 13 bits are not looked at.
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2],
                                        [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::mma_m16n8k8_tf32(d, a, b, site);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lanes 8m to 8m+7 name the rows of
// matrix m. Lane l gets, in fragments[m], elements 2t and 2t+1 of row g, or with kTransposed of
// column g. Requires: each row's address is a multiple of 16.
template <bool kTransposed = false>
__device__ inline void ldmatrix_x4(uint32_t (&fragments)[4], const void* row,
                                   [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::ldmatrix_x4(fragments, row, kTransposed, site);
#else
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared)
                 : "memory");
#endif
}

// fp32 bits, rounded to the nearest that tf32 can hold, ties away from zero.
__device__ inline uint32_t to_tf32(float x) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#else
  const uint32_t bits = __float_as_uint(x);
  return x == x ? (bits + 0x1000) & ~0x1fffu : 0x7fffffff;
#endif
}

// Two numbers rounded to the nearest bf16, ties to even, packed.
__device__ inline uint32_t pack_bf16(float low, float high) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  const auto rounded = [](float x) {
    const uint32_t bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
  };
  return rounded(low) | rounded(high) << 16;
#endif
}

}  // namespace mocograd::MOCO_CUDA
