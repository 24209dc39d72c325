// Rung 2: a block of 16×16 threads computes a tile of c, and brings 16 columns of a and 16 rows of b at
// a time into shared memory, each number once for the 16 threads that need it.
//
// Memory is read a sixteenth as often. But each multiply-add still takes two loads, now from shared
// memory, which delivers 32 numbers a cycle to a multiprocessor that could multiply 128 pairs.
#include "cuda/blocks.h"
#include "cuda/ladder/rungs.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kSide = 16;

__global__ void __launch_bounds__(kSide* kSide)
    shared_tile_kernel(int M, int N, int K, const float* a, const float* b, float* c) {
  __shared__ float a_tile[kSide][kSide], b_tile[kSide][kSide];
  const int tiles = (N + kSide - 1) / kSide;  // in a row of c
  const int i = threadIdx.x / kSide, j = threadIdx.x % kSide;
  const int m = blockIdx.x / tiles * kSide + i, n = blockIdx.x % tiles * kSide + j;
  float sum = 0;
  for (int k = 0; k < K; k += kSide) {
    a_tile[i][j] = m < M && k + j < K ? a[int64_t{m} * K + k + j] : 0;
    b_tile[i][j] = k + i < K && n < N ? b[int64_t{k + i} * N + n] : 0;
    __syncthreads();  // the tiles are there
    for (int depth = 0; depth < kSide; ++depth) sum += a_tile[i][depth] * b_tile[depth][j];
    __syncthreads();  // and may be overwritten
  }
  if (m < M && n < N) c[int64_t{m} * N + n] = sum;
}

}  // namespace

void gemm_2_shared_tile(const Tensor& a, const Tensor& b, const Tensor& c) {
  const int64_t M = c.dim(0), N = c.dim(1);
  launch(shared_tile_kernel, blocks_of(kSide * kSide, ceil_div(M, kSide) * ceil_div(N, kSide)), M,
         N, a.dim(1), a.raw<float>(), b.raw<float>(), c.raw<float>());
}

}  // namespace mocograd::MOCO_CUDA
