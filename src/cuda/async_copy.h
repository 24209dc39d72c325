// cp.async: copies from global to shared memory that go on while the thread does something else.
//
//   async_copy<16>(&tile[i], &x[i]);   async_copy_commit();      a group of copies
//   async_copy_wait<1>();                                        all groups but the last 1 are there
//   __syncthreads();                                             those of the other threads too
//
// GPUs before compute capability 8.0 copy at once.
#pragma once

#include "cuda/launch.h"
#ifndef __CUDACC__
#include "cuda/emulator/instructions.h"
#endif

namespace mocograd::MOCO_CUDA {

// Copies kBytes, or zeros if not `valid`; then `from` is not read.
// Requires: kBytes is 4, 8 or 16; both addresses are multiples of it.
template <int kBytes>
__device__ inline void async_copy(void* to, const void* from, bool valid = true,
                                  [[maybe_unused]] CallSite site = CallSite::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#if !defined(__CUDACC__)
  emulator::async_copy(to, from, kBytes, valid, site);
#elif __CUDA_ARCH__ >= 800
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)  // past the first cache, which only copies of 16 bytes can leave out
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from),
                 "n"(kBytes), "r"(bytes)
                 : "memory");
#else
  for (int i = 0; i < kBytes / 4; ++i)
    static_cast<uint32_t*>(to)[i] = valid ? static_cast<const uint32_t*>(from)[i] : 0;
#endif
}

// The same of 16 bytes, or nothing at all if not `wanted`; without a branch, in front of which the
// products of wgmma.h would be waited for.
__device__ inline void async_copy_if(bool wanted, void* to, const void* from, bool valid,
                                     [[maybe_unused]] CallSite site = CallSite::current()) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "{\n\t"
      ".reg .pred wanted;\n\t"
      "setp.ne.b32 wanted, %3, 0;\n\t"
      "@wanted cp.async.cg.shared.global [%0], [%1], 16, %2;\n\t"
      "}" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(valid ? 16 : 0), "r"(static_cast<int>(wanted))
      : "memory");
#else
  if (wanted) async_copy<16>(to, from, valid, site);
#endif
}

__device__ inline void async_copy_commit() {
#if !defined(__CUDACC__)
  emulator::async_copy_commit();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int kGroupsLeft>
__device__ inline void async_copy_wait() {
#if !defined(__CUDACC__)
  emulator::async_copy_wait(kGroupsLeft);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
#endif
}

}  // namespace mocograd::MOCO_CUDA
