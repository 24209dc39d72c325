// Rung 1: the definition, c_mn = Σ_k a_mk b_kn, a thread for each number of c.
//
// The 32 threads of a warp read 32 neighbours of a row of b at once, and all the same number of a: good
// loads, but two of them for each multiply-add. Every number of a and b comes from the caches, or from
// memory, as often as c has columns and rows.
#include "cuda/blocks.h"
#include "cuda/ladder/rungs.h"

namespace mocograd::MOCO_CUDA {
namespace {

__global__ void naive_kernel(int64_t M, int64_t N, int64_t K, const float* a, const float* b,
                             float* c) {
  const int64_t i = grid_index();
  if (i >= M * N) return;
  const int64_t m = i / N, n = i % N;
  float sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += a[m * K + k] * b[k * N + n];
  c[i] = sum;
}

}  // namespace

void gemm_1_naive(const Tensor& a, const Tensor& b, const Tensor& c) {
  launch(naive_kernel, one_thread_each(c.numel()), c.dim(0), c.dim(1), a.dim(1), a.raw<float>(),
         b.raw<float>(), c.raw<float>());
}

}  // namespace mocograd::MOCO_CUDA
