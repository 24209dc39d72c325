// Matrix products, f32 or f64.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

// y = a · bᵀ             a: [M, K]; b: [N, K]; y: [M, N]
//   da = dy · b, db = dyᵀ · a                                                        saved: a, b
Variable matmul_transposed(const Variable& a, const Variable& b);

// y = x · wᵀ + b         x: [N, C]; w: [D, C]; b: [D]; y: [N, D]   (PyTorch's nn.Linear)
//   dx = dy · w, dw = dyᵀ · x, db_j = Σ_i dy_ij                                      saved: x, w
Variable linear(const Variable& x, const Variable& w, const Variable& b);

}  // namespace mocograd
