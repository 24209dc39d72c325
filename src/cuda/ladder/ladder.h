// The ladder on a GPU: matrix product and convolution from the definition to the engine's kernels, one
// idea a rung. docs/KERNELS.md walks up; `moco bench --ladder --device cuda` measures it.
#pragma once

#include <vector>

#include "tensor/rung.h"

namespace mocograd {

// From the bottom up. Requires: device is not the CPU (cpu/ladder/ladder.h).
std::vector<Rung> gemm_ladder(Device device);
std::vector<Rung> conv_ladder(Device device);
// The same product by cuBLAS in each precision, which the rungs are compared with; none where it is not
// there.
std::vector<Rung> cublas_products(Device device);

}  // namespace mocograd
