// C = A·B by tiles on the tensor cores: numbers rounded to tf32 (10 bits after the point), their
// products summed in fp32.
//
// A block of 256 threads computes a tile of 128×128 of C, each of its 8 warps 64×32 of it: 4×4 tiles
// of mma_m16n8k8 (mma.h), whose sums stay in registers. Step by step 16 columns of A and 16 rows of B
// come into shared memory (tile_loader.h), rounded on the way.
#pragma once

#include "cuda/mma.h"
#include "cuda/tile_loader.h"

namespace mocograd::MOCO_CUDA {

constexpr int kTensorCoreTile = 128;

// A warp's part of the tile, with rows g, g + 8 and columns 2t, 2t + 1 of each 16×8 in this lane.
class WarpSums {
 public:
  __device__ WarpSums()
      : m_(threadIdx.x / 32 / 4 * 64),
        n_(threadIdx.x / 32 % 4 * 32),
        g_(threadIdx.x % 32 / 4),
        t_(threadIdx.x % 4) {}

  using Tile = OperandTile<uint32_t, kTensorCoreTile>;
  __device__ void add_product(const Tile& a, const Tile& b) {
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t right[4][2];
      for (int j = 0; j < 4; ++j) {
        const int n = n_ + 8 * j + g_;
        right[j][0] = b[k + t_][n];
        right[j][1] = b[k + t_ + 4][n];
      }
      for (int i = 0; i < 4; ++i) {
        const int m = m_ + 16 * i + g_;
        const uint32_t left[4] = {a[k + t_][m], a[k + t_][m + 8], a[k + t_ + 4][m],
                                  a[k + t_ + 4][m + 8]};
        for (int j = 0; j < 4; ++j) mma_m16n8k8_tf32(sum_[i][j], left, right[j]);
      }
    }
  }

  // Calls f(m, n, sum) for each of this lane's.
  template <class F>
  __device__ void for_each(const F& f) const {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        for (int q = 0; q < 4; ++q)
          f(m_ + 16 * i + g_ + q / 2 * 8, n_ + 8 * j + 2 * t_ + q % 2, sum_[i][j][q]);
  }

 private:
  const int m_, n_, g_, t_;
  float sum_[4][4][4] = {};
};

// output.row(split, m)[n] = sum writes C_mn, or its part.
template <class A, class B, class Output>
__global__ void __launch_bounds__(kThreads)
    tensor_core_product_kernel(A a, B b, Output output, ProductShape shape) {
  __shared__ OperandTile<uint32_t, kTensorCoreTile> a_tile, b_tile;
  const ProductPlace at(shape);
  const TileLoader<A, kTensorCoreTile> a_loader(a, at.m0, shape.M);
  const TileLoader<B, kTensorCoreTile> b_loader(b, at.n0, shape.N);
  WarpSums sums;
  for (int k = at.k_begin; k < at.k_end; k += kDepth) {
    a_loader.load(k, at.k_end, a_tile, to_tf32);
    b_loader.load(k, at.k_end, b_tile, to_tf32);
    __syncthreads();
    sums.add_product(a_tile, b_tile);
    __syncthreads();
  }
  sums.for_each([&](int m, int n, float sum) {
    if (at.m0 + m < shape.M && at.n0 + n < shape.N)
      output.row(at.split, at.m0 + m)[at.n0 + n] = sum;
  });
}

}  // namespace mocograd::MOCO_CUDA
