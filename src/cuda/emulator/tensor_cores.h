// What the matrix instructions of cuda/mma.h do; cuda/wgmma.h's are in async.h.
#pragma once

#include <cstdint>

#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

// Each is called by all 32 lanes. The sums are in fp32, k ascending; a GPU's order is not specified.
void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site);
void ldmatrix_x4(uint32_t* fragments, const void* row, bool transposed, const CallSite& site);

}  // namespace mocograd::emulator
