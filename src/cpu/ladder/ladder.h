// The ladder: matrix product and convolution from the plain loops to the engine's kernels, one idea
// a rung. docs/KERNELS.md walks up; `moco bench --ladder` measures it on this machine.
//
// Rungs are for reading and run in f32 on the calling thread; the last of each ladder are the
// engine's own kernels (gemm.cpp, conv2d.cpp, winograd.cpp) on all compute threads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

struct Rung {
  std::string name;  // of the file, without .cpp
  std::string idea;
  bool engine = false;  // the engine's own kernel
  // c = a · b          a: [M, K]; b: [K, N]; c: [M, N]
  // y = conv(x, w)     x: [N, H, W, C]; w: [3, 3, C, OC]; y: [N, H, W, OC]; stride 1, padding 1
  std::function<void(const Tensor&, const Tensor&, const Tensor&)> run;
};

// With the instruction set in use, from the bottom up.
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();

}  // namespace mocograd
