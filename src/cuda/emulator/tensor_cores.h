// What the matrix instructions of cuda/mma.h and cuda/wgmma.h do. The sums are in fp32, k ascending; a
// GPU's order is not specified.
#pragma once

#include <cstdint>

#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

// Each is called by all 32 lanes.
void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void ldmatrix_x4(uint32_t* fragments, const void* row, bool transposed, const CallSite& site);

struct WgmmaOperand {
  uint64_t descriptor;  // cuda/wgmma.h
  bool along_k;
};
// d += the thread's part of a · bᵀ, `n` columns wide; carried out at the wait.
void wgmma(float* d, int n, WgmmaOperand a, WgmmaOperand b, const CallSite& site);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int64_t groups_left);

}  // namespace mocograd::emulator
