// What the GPU in use can do. The emulator can do everything.
#pragma once

#include "cuda/device_problem.h"
#include "cuda/launch.h"
#include "tensor/precision.h"

namespace mocograd::MOCO_CUDA {

#ifdef __CUDACC__
void require_tensor_cores(Precision);  // throws Error where they cannot do tf32 and bf16
#else
inline void require_tensor_cores(Precision) {}
inline bool has_wgmma() {
  return true;
}
#endif

}  // namespace mocograd::MOCO_CUDA
