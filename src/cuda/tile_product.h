// C = A·B by tiles: the one loop under gemm and the three convolutions.
//   C_mn = Σ_k A_mk B_kn                                      m < M, n < N, k < K
//
// A block of 256 threads computes a tile of 64×64 of C. Step by step it brings 16 columns of A and 16
// rows of B into shared memory and adds their product to the sums, of which each thread keeps 4×4 in
// registers. A and B need not be matrices in memory: an operand is a type with
//
//   Outer outer(int i)          what has to be known of row i of A (column i of B), worked out once
//   Inner inner(int k)          what has to be known of column k of A (row k of B)
//   T load(Outer, Inner)        the element; not called outside of the matrix
//   kInnerIsContiguous          which of the two neighbouring threads should follow
//
// Where C has few tiles and K is long, blocks share K: each writes its part of the sum, and a second
// kernel adds the parts in order. How K is cut depends on the shape alone.
#pragma once

#include <algorithm>

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

constexpr int kTile = 64, kDepth = 16, kPerThread = 4;
static_assert(kThreads == (kTile / kPerThread) * (kTile / kPerThread));

// A tile of an operand in shared memory; rows are padded against bank conflicts.
template <class T>
using OperandTile = T[kDepth][kTile + 4];

// Copies elements [first, first + 64) × [k, k + 16) of an operand for this thread's part, zero from
// `count` and `end` on. begin() works out what does not change from step to step.
template <class Operand, bool inner_is_contiguous>
class TileLoader;

// Threads follow each other along k: each has one k and four rows.
template <class Operand>
class TileLoader<Operand, true> {
 public:
  __device__ TileLoader(const Operand& operand, int first, int count)
      : operand_(operand), first_(first + threadIdx.x / kDepth), count_(count) {
    for (int r = 0; r < kPerThread; ++r)
      if (row(r) < count_) outer_[r] = operand_.outer(row(r));
  }

  template <class T>
  __device__ void load(int k0, int end, OperandTile<T>& tile) const {
    const int depth = threadIdx.x % kDepth, k = k0 + depth;
    if (k < end) {
      const auto inner = operand_.inner(k);
      for (int r = 0; r < kPerThread; ++r)
        tile[depth][place(r)] = row(r) < count_ ? operand_.load(outer_[r], inner) : T{0};
    } else {
      for (int r = 0; r < kPerThread; ++r) tile[depth][place(r)] = 0;
    }
  }

 private:
  __device__ static int place(int r) { return threadIdx.x / kDepth + r * (kThreads / kDepth); }
  __device__ int row(int r) const { return first_ + r * (kThreads / kDepth); }

  const Operand& operand_;
  int first_, count_;
  typename Operand::Outer outer_[kPerThread] = {};
};

// Threads follow each other along the rows: each has one row and four k.
template <class Operand>
class TileLoader<Operand, false> {
 public:
  __device__ TileLoader(const Operand& operand, int first, int count)
      : operand_(operand), inside_(first + static_cast<int>(threadIdx.x % kTile) < count) {
    if (inside_) outer_ = operand_.outer(first + threadIdx.x % kTile);
  }

  template <class T>
  __device__ void load(int k0, int end, OperandTile<T>& tile) const {
    for (int r = 0; r < kPerThread; ++r) {
      const int depth = threadIdx.x / kTile + r * (kThreads / kTile), k = k0 + depth;
      tile[depth][threadIdx.x % kTile] =
          inside_ && k < end ? operand_.load(outer_, operand_.inner(k)) : T{0};
    }
  }

 private:
  const Operand& operand_;
  bool inside_;
  typename Operand::Outer outer_ = {};
};

// The extent of a product, and how K is shared by blocks.
struct ProductShape {
  int M, N, K;
  int splits = 1, k_per_split;

  ProductShape(int64_t m, int64_t n, int64_t k) {
    MOCO_CHECK(std::max({m, n, k}) < int64_t{1} << 31, "cuda: a product of [", m, ", ", k,
               "] and [", k, ", ", n, "]: no side may reach 2^31");
    M = static_cast<int>(m), N = static_cast<int>(n), K = static_cast<int>(k);
    k_per_split = K;
  }

  int64_t row_tiles() const { return ceil_div(M, kTile); }
  int64_t column_tiles() const { return ceil_div(N, kTile); }
  Grid grid() const { return blocks_of(kThreads, row_tiles() * column_tiles() * splits); }

  // Enough blocks to keep a large GPU busy, but none with fewer than 256 terms a sum.
  void share_k() {
    constexpr int64_t kEnoughBlocks = 512, kFewestTerms = 256;
    const int64_t tiles = std::max<int64_t>(1, row_tiles() * column_tiles());
    const int64_t wanted = std::min(kEnoughBlocks / tiles, ceil_div(K, kFewestTerms));
    if (wanted <= 1) return;
    k_per_split = static_cast<int>(ceil_div(ceil_div(K, wanted), kDepth) * kDepth);
    splits = static_cast<int>(ceil_div(K, k_per_split));
  }
};

// output.row(split, m): where C_m0 is written, or its part.
template <class T, class A, class B, class Output>
__global__ void __launch_bounds__(kThreads)
    tile_product_kernel(A a, B b, Output output, ProductShape shape) {
  __shared__ OperandTile<T> a_tile, b_tile;
  const int64_t column_tiles = ceil_div(shape.N, kTile);
  const int64_t row_tiles = ceil_div(shape.M, kTile);
  const int n0 = static_cast<int>(blockIdx.x % column_tiles) * kTile;
  const int m0 = static_cast<int>(blockIdx.x / column_tiles % row_tiles) * kTile;
  const int split = static_cast<int>(blockIdx.x / column_tiles / row_tiles);
  const int k_begin = split * shape.k_per_split;
  const int k_end = split + 1 < shape.splits ? k_begin + shape.k_per_split : shape.K;

  const TileLoader<A, A::kInnerIsContiguous> a_loader(a, m0, shape.M);
  const TileLoader<B, B::kInnerIsContiguous> b_loader(b, n0, shape.N);
  const int m = threadIdx.x / (kTile / kPerThread) * kPerThread;  // this thread's part of the tile
  const int n = threadIdx.x % (kTile / kPerThread) * kPerThread;
  T sum[kPerThread][kPerThread] = {};
  for (int k = k_begin; k < k_end; k += kDepth) {
    a_loader.load(k, k_end, a_tile);
    b_loader.load(k, k_end, b_tile);
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
    if (m0 + m + i >= shape.M) return;
    T* const row = output.row(split, m0 + m + i);
    for (int j = 0; j < kPerThread; ++j)
      if (n0 + n + j < shape.N) row[n0 + n + j] = sum[i][j];
  }
}

template <class T>
__global__ void add_parts_kernel(int64_t n, int parts, const T* part, T* c) {
  const int64_t i = grid_index();
  if (i >= n) return;
  T sum = 0;
  for (int s = 0; s < parts; ++s) sum += part[s * n + i];
  c[i] = sum;
}

// c[m·N + n], or one such matrix for each split
template <class T>
struct MatrixOutput {
  T* c;
  int64_t M, N;
  __device__ T* row(int split, int m) const { return c + (split * M + m) * N; }
};

// c = a·b, written as a dense matrix
template <class T, class A, class B>
void tile_product(const A& a, const B& b, ProductShape shape, T* c) {
  shape.share_k();
  const auto run = [&](T* output) {
    launch(tile_product_kernel<T, A, B, MatrixOutput<T>>, shape.grid(), a, b,
           MatrixOutput<T>{output, shape.M, shape.N}, shape);
  };
  if (shape.splits == 1) return run(c);
  const int64_t n = int64_t{shape.M} * shape.N;
  const Scratch<T> parts(n * shape.splits);
  run(parts.data());
  launch(add_parts_kernel<T>, one_thread_each(n), n, shape.splits, parts.data(), c);
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
  __device__ T load(Outer i, Inner k) const { return data[i + k]; }
};

}  // namespace mocograd::MOCO_CUDA
