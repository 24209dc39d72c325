// What batch norm needs to know of the groups of a batch, taken in passes of their own (batch_norm.cu), or
// from what the kernel that wrote the batch has left of each chunk (result_sums.h).
#pragma once

#include <variant>

#include "cuda/columns.h"

namespace mocograd::MOCO_CUDA {

// mean, var: [S, C], of the S groups of x, as Backend::batch_norm_forward takes them.
struct Statistics {
  Tensor mean, var;
};
// sums: [S, 2, C], Σdz and Σdz·(x − mean) of each group, dz = dh·[h > 0]
struct GradientSums {
  Tensor h, x, mean, sums;
};
// Of a result: y, or dh, in whose place dz is then written.
using WantedSums = std::variant<std::monostate, Statistics, GradientSums>;

void take_statistics(const Tensor& x, const Statistics& to);
void take_gradient_sums(const Tensor& dz, const GradientSums& to);

// partials: [group][chunk][3][C], m, Σ(x − m) and Σ(x − m)²
void combine_statistics(const Chunks& part, const float* partials, const Statistics& to);
// partials: [group][chunk][2][C], Σdz and Σdz·(x − mean)
void combine_gradient_sums(const Chunks& part, const float* partials, const GradientSums& to);

}  // namespace mocograd::MOCO_CUDA
