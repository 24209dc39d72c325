// Matrix products of a warpgroup (128 threads, four warps in a row) with both operands in shared
// memory: wgmma, compute capability 9.0a. A kernel that calls them is not launched on anything else.
//
//   wgmma_fence();                                  before the first product, and after d was touched
//   wgmma_m64n64k16_bf16<true, true>(d, a, b);  …   begin; all threads of the warpgroup together
//   wgmma_commit();                                 a group of products
//   wgmma_wait<0>();                                d may be read, and the operands overwritten
//
// d += a · bᵀ with a: [64, 16] and b: [n, 16], bf16; d: [64, n], fp32 sums. Thread 32w + l holds in
// d[i] the element (16w + l / 4 + 8 (i / 2 % 2), 8 (i / 4) + 2 (l % 4) + i % 2). The two flags say
// whether a and b lie along k (rows in memory are rows of a and b) or across k (their columns).
#pragma once

#include "cuda/launch.h"
#ifndef __CUDACC__
#include "cuda/emulator/instructions.h"
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MOCO_HAS_WGMMA 1
#endif

namespace mocograd::MOCO_CUDA {

// How the rows of an operand along k lie in shared memory, in bricks of 8 rows:
//   none         8 rows of 16 bytes one after the other; the brick of the next 8 columns (k) is
//                `leading_bytes` away
//   bytes32 …    8 rows of 32, 64 or 128 bytes one after the other, that is 16, 32 or 64 columns;
//                `leading_bytes` is not looked at; of every byte's address, counted from a multiple of
//                1024, the place of its 16 bytes is swizzled(): no bank of shared memory is asked twice
// The brick of the next 8 rows is `stride_bytes` away. To begin at column 16 i, add 32 i to the
// address.
//
// Across k, of which we use bytes128 alone, a brick is 8 k of 64 rows (128 bytes) each. The next 8 k
// are `stride_bytes` away, the next 64 rows `leading_bytes`. To begin at k, add 128 k to the address.
enum class Swizzle : uint64_t { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };

// Where the byte at `offset` of an operand really is.
template <Swizzle kSwizzle>
__host__ __device__ constexpr uint32_t swizzled(uint32_t offset) {
  if (kSwizzle == Swizzle::none) return offset;
  const uint32_t pieces = 16u >> static_cast<unsigned>(kSwizzle);  // 8, 4, 2 of 16 bytes in a row
  return offset ^ (offset >> 7 & (pieces - 1)) << 4;
}

// Requires: `operand` is in dynamic shared memory, all three multiples of 16 bytes.
__device__ inline uint64_t wgmma_operand(const void* operand, Swizzle swizzle,
                                         uint32_t stride_bytes, uint32_t leading_bytes = 0) {
#ifdef __CUDACC__
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(operand));
#else
  const auto address =
      static_cast<uint64_t>(static_cast<const char*>(operand) - shared_memory<const char>());
#endif
  return (address & 0x3ffff) >> 4 | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{stride_bytes >> 4} << 32 | static_cast<uint64_t>(swizzle) << 62;
}

__device__ inline void wgmma_fence() {
#if !defined(__CUDACC__)
  emulator::wgmma_fence();
#elif defined(MOCO_HAS_WGMMA)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

__device__ inline void wgmma_commit() {
#if !defined(__CUDACC__)
  emulator::wgmma_commit();
#elif defined(MOCO_HAS_WGMMA)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

template <int kGroupsLeft>
__device__ inline void wgmma_wait() {
#if !defined(__CUDACC__)
  emulator::wgmma_wait(kGroupsLeft);
#elif defined(MOCO_HAS_WGMMA)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroupsLeft) : "memory");
#endif
}

// What this thread wrote to shared memory is seen by wgmma. Then a barrier, then the products.
__device__ inline void fence_before_wgmma() {
#if !defined(__CUDACC__)
  emulator::fence_before_wgmma();
#elif defined(MOCO_HAS_WGMMA)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Waits for all threads of the warpgroup; what they wrote before can be read after it. The block has at
// most 15 warpgroups.
__device__ inline void warpgroup_barrier([[maybe_unused]] CallSite site = CallSite::current()) {
#ifdef __CUDACC__
  asm volatile("bar.sync %0, 128;" ::"r"(1 + threadIdx.x / 128) : "memory");  // 0: __syncthreads
#else
  emulator::warpgroup_barrier("warpgroup_barrier", site);
#endif
}

template <bool a_along_k, bool b_along_k>
__device__ inline void wgmma_m64n64k16_bf16(float (&d)[32], uint64_t a, uint64_t b,
                                            [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::wgmma(d, 64, {a, a_along_k}, {b, b_along_k}, site);
#elif defined(MOCO_HAS_WGMMA)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, %34, %35;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "n"(a_along_k ? 0 : 1), "n"(b_along_k ? 0 : 1));
#else
  __trap();
#endif
}

template <bool a_along_k, bool b_along_k>
__device__ inline void wgmma_m64n128k16_bf16(float (&d)[64], uint64_t a, uint64_t b,
                                             [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::wgmma(d, 128, {a, a_along_k}, {b, b_along_k}, site);
#elif defined(MOCO_HAS_WGMMA)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, %66, %67;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63])
      : "l"(a), "l"(b), "n"(a_along_k ? 0 : 1), "n"(b_along_k ? 0 : 1));
#else
  __trap();
#endif
}

template <bool a_along_k, bool b_along_k>
__device__ inline void wgmma_m64n192k16_bf16(float (&d)[96], uint64_t a, uint64_t b,
                                             [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::wgmma(d, 192, {a, a_along_k}, {b, b_along_k}, site);
#elif defined(MOCO_HAS_WGMMA)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
      "%96, %97, 1, 1, 1, %98, %99;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
      : "l"(a), "l"(b), "n"(a_along_k ? 0 : 1), "n"(b_along_k ? 0 : 1));
#else
  __trap();
#endif
}

template <bool a_along_k, bool b_along_k>
__device__ inline void wgmma_m64n256k16_bf16(float (&d)[128], uint64_t a, uint64_t b,
                                             [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::wgmma(d, 256, {a, a_along_k}, {b, b_along_k}, site);
#elif defined(MOCO_HAS_WGMMA)
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "%128, %129, 1, 1, 1, %130, %131;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b), "n"(a_along_k ? 0 : 1), "n"(b_along_k ? 0 : 1));
#else
  __trap();
#endif
}

}  // namespace mocograd::MOCO_CUDA

#undef MOCO_HAS_WGMMA
