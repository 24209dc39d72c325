// The ladder: matrix product and convolution from the plain loops to the engine's kernels, one idea
// a rung. docs/KERNELS.md walks up; `moco bench --ladder` measures it on this machine.
//
// Rungs are for reading and run in f32 on the calling thread; the last of each ladder are the
// engine's own kernels (gemm.cpp, conv2d.cpp, winograd.cpp) on all compute threads.
#pragma once

#include <vector>

#include "tensor/rung.h"

namespace mocograd {

// With the instruction set in use, from the bottom up.
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();

}  // namespace mocograd
