// Softmax cross entropy, the mean over the rows
//   p_ij = exp(x_ij − max_j x_ij) / Σ_j exp(x_ij − max_j x_ij)
//   y = −1/N · Σ_i log p_{i,label_i}             x: [N, C], f32 or f64; label: i64 [N]; y: []
//   dx_ij = dy/N · (p_ij − [j = label_i])                 each row sums to zero
// saved: p, label.  Requires: 0 <= label_i < C; checked in the host's memory alone, since to read
// labels on another device is to wait for it.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

Variable cross_entropy(const Variable& x, const Tensor& label);

}  // namespace mocograd
