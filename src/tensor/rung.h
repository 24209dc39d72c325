// A rung of a ladder: one way to compute a kernel, with one idea more than the rung below it
// (docs/KERNELS.md).
#pragma once

#include <functional>
#include <string>

#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace mocograd {

struct Rung {
  std::string name;  // of its file
  std::string idea;
  bool engine = false;  // the engine's own kernel
  // c = a · b          a: [M, K]; b: [K, N]; c: [M, N]
  // y = conv(x, w)     x: [N, H, W, C]; w: [3, 3, C, OC]; y: [N, H, W, OC]; stride 1, padding 1
  // With the precision bf16 a, b, x and y are bf16, c and w f32.
  std::function<void(const Tensor&, const Tensor&, const Tensor&)> run;
  Precision precision = Precision::fp32;  // to be set while it runs
};

}  // namespace mocograd
