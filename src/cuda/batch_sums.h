// What batch norm needs to know of the groups of a batch, taken in passes of their own (batch_norm.cu).
#pragma once

#include "tensor/tensor.h"

namespace mocograd::MOCO_CUDA {

// mean, var: [S, C], of the S groups of x, as Backend::batch_norm_forward takes them.
void take_statistics(const Tensor& x, const Tensor& mean, const Tensor& var);
// sums: [S, 2, C], Σdz and Σdz·(x − mean) of each group.
void take_gradient_sums(const Tensor& dz, const Tensor& x, const Tensor& mean, const Tensor& sums);

}  // namespace mocograd::MOCO_CUDA
