// What batch norm needs to know of the groups of a batch, taken in passes of their own
// (batch_statistics.cu, batch_norm.cu), or from what the kernel that wrote the batch has left of each
// chunk (result_sums.h).
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

// In a pass of its own.
void take_statistics(const Tensor& x, const Statistics& to);

// partials: [group][chunk][3][C], m, Σ(x − m) and Σ(x − m)²
void combine_statistics(const Chunks& part, const float* partials, const Statistics& to);
// partials: [group][chunk][2][C], Σdz and Σdz·(x − mean)
void combine_gradient_sums(const Chunks& part, const float* partials, const GradientSums& to);

// ---- the passes ------------------------------------------------------------------------------------

// Channels of a thread. As many in f32 as in bf16, so that both add in the same order and a result in
// bf16 is the rounded one in f32.
template <class T>
constexpr int kChannels = sizeof(T) == sizeof(double) ? 2 : 8;

__device__ inline unsigned block_in_reverse() {
  return gridDim.x - 1 - blockIdx.x;
}

// Calls f with the partition of x, by vectors where x's channels and all these places allow it.
template <class T, class F, class... P>
void with_partition(const Tensor& x, const Tensor& mean, const F& f, const P*... places) {
  const int64_t C = mean.dim(mean.ndim() - 1), rows = x.numel() / C, groups = mean.numel() / C;
  constexpr int V = kChannels<T>;
  if (C % V == 0 && takes_vectors<V>(places...)) {
    f(ColumnPartition<V>(C, rows, groups));
  } else {
    f(ColumnPartition<1>(C, rows, groups));
  }
}

}  // namespace mocograd::MOCO_CUDA
