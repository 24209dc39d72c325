// C = A·B by tiles: the one loop under gemm, InfoNCE and the three convolutions.
//   C_mn = Σ_k A_mk B_kn                                      m < M, n < N, k < K
//
// A block of 256 threads computes a tile of 64×64 of C. Step by step it brings 16 columns of A and 16
// rows of B into shared memory (tile_loader.h) and adds their product to the sums, of which each
// thread keeps 4×4 in registers. With --precision tf32 those of f32 take the tensor cores instead
// (tensor_core_product.h), and convolutions of it never come here (conv2d_tensor_cores.h).
//
// Where C has few tiles and K is long, blocks share K: each writes its part of the sum, and a second
// kernel adds the parts in order.
#pragma once

#include <type_traits>

#include "cuda/capability.h"
#include "cuda/tensor_core_product.h"
#include "cuda/tile_loader.h"
#include "tensor/precision.h"

namespace mocograd::MOCO_CUDA {

constexpr int kTile = 64, kPerThread = 4;
static_assert(kThreads == (kTile / kPerThread) * (kTile / kPerThread));

// output.row(split, m)[n] = sum writes C_mn, or its part.
template <class T, class A, class B, class Output>
__global__ void __launch_bounds__(kThreads)
    tile_product_kernel(A a, B b, Output output, ProductShape shape) {
  __shared__ OperandTile<T, kTile> a_tile, b_tile;
  const ProductPlace at(shape);
  const TileLoader<A, kTile> a_loader(a, at.m0, shape.M);
  const TileLoader<B, kTile> b_loader(b, at.n0, shape.N);
  const auto unchanged = [](T x) { return x; };
  const int m = threadIdx.x / (kTile / kPerThread) * kPerThread;  // this thread's part of the tile
  const int n = threadIdx.x % (kTile / kPerThread) * kPerThread;
  T sum[kPerThread][kPerThread] = {};
  for (int k = at.k_begin; k < at.k_end; k += kDepth) {
    a_loader.load(k, at.k_end, a_tile, unchanged);
    b_loader.load(k, at.k_end, b_tile, unchanged);
    __syncthreads();
    for (int depth = 0; depth < kDepth; ++depth) {
      T left[kPerThread], right[kPerThread];
      for (int i = 0; i < kPerThread; ++i) left[i] = a_tile[depth][m + i];
      for (int j = 0; j < kPerThread; ++j) right[j] = b_tile[depth][n + j];
      for (int i = 0; i < kPerThread; ++i)
        for (int j = 0; j < kPerThread; ++j) sum[i][j] += left[i] * right[j];
    }
    __syncthreads();
  }
  for (int i = 0; i < kPerThread; ++i) {
    if (at.m0 + m + i >= shape.M) return;
    const auto row = output.row(at.split, at.m0 + m + i);
    for (int j = 0; j < kPerThread; ++j)
      if (at.n0 + n + j < shape.N) row[at.n0 + n + j] = sum[i][j];
  }
}

template <class T>
bool on_tensor_cores() {
  return std::is_same_v<T, float> && precision() == Precision::tf32;
}

template <class T>
ProductShape product_shape(int64_t M, int64_t N, int64_t K) {
  const int tile = on_tensor_cores<T>() ? kTensorCoreTile : kTile;
  return ProductShape(M, N, K, tile, tile, kDepth);
}

// c = a·b, written where output says. Requires: shape is product_shape's.
template <class T, class A, class B, class Output>
void tile_product_to(const A& a, const B& b, const Output& output, const ProductShape& shape) {
  if constexpr (std::is_same_v<T, float>) {
    if (on_tensor_cores<T>()) {
      require_tensor_cores(Precision::tf32);
      return launch(tensor_core_product_kernel<A, B, Output>, blocks_of(kThreads, shape.blocks()),
                    a, b, output, shape);
    }
  }
  launch(tile_product_kernel<T, A, B, Output>, blocks_of(kThreads, shape.blocks()), a, b, output,
         shape);
}

// c[m·N + n], or one such matrix for each split
template <class T>
struct MatrixOutput {
  using Element = T;
  T* c;
  int64_t M, N;
  __host__ __device__ T* row(int split, int m) const { return c + (split * M + m) * N; }
};

// Calls write(output) for c, a dense matrix [M, N]; where blocks share K for the parts, which it adds.
template <class T, class Write>
void write_or_add_parts(const ProductShape& shape, T* c, const Write& write) {
  const int64_t M = shape.M, N = shape.N;
  if (shape.splits == 1) return write(MatrixOutput<T>{c, M, N});
  const Scratch<T> parts(M * N * shape.splits);
  write(MatrixOutput<T>{parts.data(), M, N});
  add_parts(M * N, shape.splits, parts.data(), c);
}

// c = a·b, written as a dense matrix [M, N]
template <class T, class A, class B>
void tile_product(const A& a, const B& b, int64_t M, int64_t N, int64_t K, T* c) {
  ProductShape shape = product_shape<T>(M, N, K);
  shape.share_k();
  write_or_add_parts(
      shape, c, [&](const MatrixOutput<T>& output) { tile_product_to<T>(a, b, output, shape); });
}

// A matrix in memory: element (i, k) is at i·outer_stride + k·inner_stride, one of which is 1.
template <class T, bool inner_is_contiguous>
struct MatrixOperand {
  using Outer = int64_t;
  using Inner = int64_t;
  static constexpr bool kInnerIsContiguous = inner_is_contiguous;

  const T* data;
  int64_t stride;  // the other one

  __device__ Outer outer(int i) const { return inner_is_contiguous ? i * stride : i; }
  __device__ Inner inner(int k) const { return inner_is_contiguous ? k : k * stride; }
  __device__ void advance(Inner& k, int steps) const {
    k += inner_is_contiguous ? steps : steps * stride;
  }
  __device__ Source<T> at(Outer i, Inner k) const { return {data + i + k, true}; }
  __device__ T load(Outer i, Inner k) const { return data[i + k]; }
};

}  // namespace mocograd::MOCO_CUDA
