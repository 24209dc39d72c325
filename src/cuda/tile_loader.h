// What the products by tiles (tile_product.h) have in common: how C and K are cut up, and how a tile
// of an operand comes into shared memory.
//
// The operands A and B of C_mn = Σ_k A_mk B_kn need not be matrices in memory. An operand is a type
// with
//
//   Outer outer(int i)          what has to be known of row i of A (column i of B), worked out once
//   Inner inner(int k)          what has to be known of column k of A (row k of B)
//   T load(Outer, Inner)        the element; not called outside of the matrix
//   kInnerIsContiguous          which of the two neighbouring threads should follow
#pragma once

#include <algorithm>

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

// Where an element of an operand is. Not `inside`: it is zero, and at the address may be anything.
template <class T>
struct Source {
  const T* address;
  bool inside;

  __device__ T load() const { return inside ? *address : T(0); }
};

constexpr int kDepth = 16;  // of K, in one step

// A tile of an operand in shared memory. The 8 columns of padding send the numbers that a warp reads
// at once to different banks.
template <class T, int size>
using OperandTile = T[kDepth][size + 8];

// Copies elements [first, first + size) × [k0, k0 + 16) of an operand, zero from `count` and `end` on;
// each thread its part. `convert` is applied to each element.
template <class Operand, int size, bool inner_is_contiguous = Operand::kInnerIsContiguous>
class TileLoader;

// Threads follow each other along k: each has one k and every 16th row.
template <class Operand, int size>
class TileLoader<Operand, size, true> {
 public:
  __device__ TileLoader(const Operand& operand, int first, int count)
      : operand_(operand), first_(first), count_(count) {
    for (int r = 0; r < kRows; ++r)
      if (first_ + place(r) < count_) outer_[r] = operand_.outer(first_ + place(r));
  }

  template <class T, class Convert>
  __device__ void load(int k0, int end, OperandTile<T, size>& tile, const Convert& convert) const {
    const int depth = threadIdx.x % kDepth, k = k0 + depth;
    if (k < end) {
      const auto inner = operand_.inner(k);
      for (int r = 0; r < kRows; ++r)
        tile[depth][place(r)] =
            first_ + place(r) < count_ ? convert(operand_.load(outer_[r], inner)) : T{0};
    } else {
      for (int r = 0; r < kRows; ++r) tile[depth][place(r)] = 0;
    }
  }

 private:
  static constexpr int kRows = size * kDepth / kThreads;
  __device__ static int place(int r) { return threadIdx.x / kDepth + r * (kThreads / kDepth); }

  const Operand& operand_;
  const int first_, count_;
  typename Operand::Outer outer_[kRows] = {};
};

// Threads follow each other along the rows: each has one row and several k.
template <class Operand, int size>
class TileLoader<Operand, size, false> {
 public:
  __device__ TileLoader(const Operand& operand, int first, int count)
      : operand_(operand), inside_(first + static_cast<int>(threadIdx.x % size) < count) {
    if (inside_) outer_ = operand_.outer(first + threadIdx.x % size);
  }

  template <class T, class Convert>
  __device__ void load(int k0, int end, OperandTile<T, size>& tile, const Convert& convert) const {
    for (int depth = threadIdx.x / size; depth < kDepth; depth += kThreads / size) {
      const int k = k0 + depth;
      tile[depth][threadIdx.x % size] =
          inside_ && k < end ? convert(operand_.load(outer_, operand_.inner(k))) : T{0};
    }
  }

 private:
  const Operand& operand_;
  const bool inside_;
  typename Operand::Outer outer_ = {};
};

constexpr int kMultiprocessors = 132;  // of the GPU that grids are cut for, an H100

// The extent of a product, and how it is shared by blocks: each takes one tile of C and one part of K.
struct ProductShape {
  int M = 0, N = 0, K = 0;
  int tile_rows = 1, tile_columns = 1;  // of C
  int step = 1;                         // of K
  int splits = 1, k_per_split = 0;

  ProductShape() = default;
  ProductShape(int64_t m, int64_t n, int64_t k, int rows, int columns, int depth)
      : tile_rows(rows), tile_columns(columns), step(depth) {
    MOCO_CHECK(std::max({m, n, k}) < int64_t{1} << 31, "cuda: a product of [", m, ", ", k,
               "] and [", k, ", ", n, "]: no side may reach 2^31");
    M = static_cast<int>(m), N = static_cast<int>(n), K = static_cast<int>(k);
    k_per_split = K;
  }

  __host__ __device__ int64_t row_tiles() const { return ceil_div(M, tile_rows); }
  __host__ __device__ int64_t column_tiles() const { return ceil_div(N, tile_columns); }
  int64_t blocks() const { return row_tiles() * column_tiles() * splits; }

  // Blocks that share K, but none with fewer than kFewestTerms a sum. The shape alone decides, so that
  // results are the same on every GPU.
  //
  // Enough blocks to keep a large GPU busy.
  void share_k() {
    constexpr int64_t kEnoughBlocks = 512;
    share_k_by(std::min(kEnoughBlocks / tiles(), most_splits()));
  }

  // As many as take the shortest time on so many multiprocessors with room for so many blocks each.
  void share_k_on(int64_t multiprocessors, int64_t room) {
    constexpr int64_t kWaves = 4;  // beyond them there is little to gain
    const int64_t most = std::min(kWaves * multiprocessors * room / tiles(), most_splits());
    ProductShape best = *this;
    for (int64_t wanted = 2; wanted <= most; ++wanted) {
      ProductShape other = *this;
      other.share_k_by(wanted);
      if (other.time_on(multiprocessors, room) < best.time_on(multiprocessors, room)) best = other;
    }
    *this = best;
  }

 private:
  static constexpr int64_t kFewestTerms = 256;
  int64_t tiles() const { return std::max<int64_t>(1, row_tiles() * column_tiles()); }
  int64_t most_splits() const { return ceil_div(K, kFewestTerms); }
  void share_k_by(int64_t wanted) {
    if (wanted <= 1) return;
    k_per_split = static_cast<int>(ceil_div(ceil_div(K, wanted), step) * step);
    splits = static_cast<int>(ceil_div(K, k_per_split));
  }

  // In no particular unit. b blocks that share a multiprocessor take as long as b + 1 that need never
  // wait; to begin, and to write a part, costs a block as much as some hundred terms.
  int64_t time_on(int64_t multiprocessors, int64_t room) const {
    constexpr int64_t kTermsToBegin = 512;
    const int64_t slots = multiprocessors * room, rest = blocks() % slots;
    const int64_t last = rest == 0 ? 0 : ceil_div(rest, multiprocessors) + 1;
    return (blocks() / slots * (room + 1) + last) * (k_per_split + kTermsToBegin);
  }
};

// What a block computes: rows from m0, columns from n0, terms [k_begin, k_end).
struct ProductPlace {
  int m0, n0, split, k_begin, k_end;

  __device__ explicit ProductPlace(const ProductShape& shape, int64_t block = blockIdx.x) {
    const int64_t columns = shape.column_tiles(), rows = shape.row_tiles();
    n0 = static_cast<int>(block % columns) * shape.tile_columns;
    m0 = static_cast<int>(block / columns % rows) * shape.tile_rows;
    split = static_cast<int>(block / columns / rows);
    k_begin = split * shape.k_per_split;
    k_end = split + 1 < shape.splits ? k_begin + shape.k_per_split : shape.K;
  }
};

}  // namespace mocograd::MOCO_CUDA
