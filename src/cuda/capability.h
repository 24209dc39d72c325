// What the GPU in use can do. The emulator can do everything.
#pragma once

#include "cuda/device_problem.h"
#include "cuda/launch.h"
#include "tensor/precision.h"

namespace mocograd::MOCO_CUDA {

#ifdef __CUDACC__
void require_tensor_cores(Precision);  // throws Error where they cannot do tf32 and bf16
int multiprocessors();
#else
inline void require_tensor_cores(Precision) {}
inline bool has_wgmma() {
  return true;
}
inline int multiprocessors() {
  return 2;  // few, so that blocks which go on from tile to tile have several
}
#endif

}  // namespace mocograd::MOCO_CUDA
