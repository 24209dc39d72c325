// cp.async.bulk: one thread copies many bytes from global to shared memory, and all that need them wait
// at a barrier in shared memory. Compute capability 9.0; a kernel that calls them is not launched on
// anything older.
//
//   if (threadIdx.x == 0) begin_barriers(barriers, count);
//   __syncthreads();                                             the barriers are there
//   if (threadIdx.x == 0) bulk_copy(tile, x, bytes, barriers[i]);
//   wait_for_bulk_copy(barriers[i], 0);                          the tile is there for who waited
//
// A barrier has one copy at a time: they have numbers 0, 1, …, and each is waited for before the next
// begins. What was copied so is seen by wgmma without a fence, and may be overwritten by a copy when
// the products that read it have ended.
#pragma once

#include "cuda/launch.h"
#ifndef __CUDACC__
#include "cuda/emulator/instructions.h"
#endif

namespace mocograd::MOCO_CUDA {

struct BulkCopyBarrier {  // in shared memory
  uint64_t state;
};

// One thread, for the whole block.
__device__ inline void begin_barriers(BulkCopyBarrier* barriers, int count,
                                      [[maybe_unused]] CallSite site = CallSite::current()) {
  for (int i = 0; i < count; ++i) {
#if !defined(__CUDACC__)
    emulator::begin_barrier(&barriers[i], site);
#elif __CUDA_ARCH__ >= 900
    const auto barrier = static_cast<uint32_t>(__cvta_generic_to_shared(&barriers[i]));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
#endif
  }
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 900  // what copies sees them too
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Requires: both addresses and `bytes` are multiples of 16; fewer than 2^20 bytes.
__device__ inline void bulk_copy(void* to, const void* from, int bytes, BulkCopyBarrier& barrier,
                                 [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::bulk_copy(to, from, static_cast<size_t>(bytes), &barrier, site);
#elif __CUDA_ARCH__ >= 900
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const auto arrival = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(arrival), "r"(bytes)
               : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(arrival)
      : "memory");
#else
  __trap();
#endif
}

// Waits for the copy with this number at the barrier.
__device__ inline void wait_for_bulk_copy(BulkCopyBarrier& barrier, int number,
                                          [[maybe_unused]] CallSite site = CallSite::current()) {
#if !defined(__CUDACC__)
  emulator::wait_for_bulk_copy(&barrier, number, site);
#elif __CUDA_ARCH__ >= 900
  const auto arrival = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  uint32_t arrived;
  do {
    asm volatile(
        "{\n\t"
        ".reg .pred arrived;\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 arrived, [%1], %2;\n\t"
        "selp.b32 %0, 1, 0, arrived;\n\t"
        "}"
        : "=r"(arrived)
        : "r"(arrival), "r"(number & 1)
        : "memory");
  } while (arrived == 0);
#else
  __trap();
#endif
}

}  // namespace mocograd::MOCO_CUDA
