// What the instructions do that CUDA C++ has no name for, and that the headers below wrap.
#pragma once

#include <cstdint>

#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

// ---- cuda/async_copy.h -----------------------------------------------------------------------------

// Requires: bytes is 4, 8 or 16.
void async_copy(void* to, const void* from, size_t bytes, bool valid, const CallSite& site);
void async_copy_commit();
void async_copy_wait(int64_t groups_left);

// ---- cuda/bulk_copy.h ------------------------------------------------------------------------------

// The first thread that waits at the barrier for a copy carries it out.
void begin_barrier(void* barrier, const CallSite& site);
void bulk_copy(void* to, const void* from, size_t bytes, void* barrier, const CallSite& site);
void wait_for_bulk_copy(void* barrier, int number, const CallSite& site);

// ---- cuda/mma.h ------------------------------------------------------------------------------------

// Each is called by all 32 lanes. The sums are in fp32, k ascending; a GPU's order is not specified.
void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void ldmatrix_x4(uint32_t* fragments, const void* row, bool transposed, const CallSite& site);

// ---- cuda/wgmma.h ----------------------------------------------------------------------------------

struct WgmmaOperand {
  uint64_t descriptor;
  bool along_k;
};
// d += the thread's part of a · bᵀ, `n` columns wide; carried out at the wait.
void wgmma(float* d, int n, WgmmaOperand a, WgmmaOperand b, const CallSite& site);
void fence_before_wgmma();
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int64_t groups_left);

}  // namespace mocograd::emulator
