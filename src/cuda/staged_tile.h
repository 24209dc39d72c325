// Tiles of operands in shared memory as the tensor cores like to read them, and how they get there.
//
// A tile consists of rows of 128 bytes, that is of eight pieces of 16 bytes. Piece p of row r stands in
// place p xor (r mod 8): eight pieces below each other, which ldmatrix reads at once, are in different
// banks of shared memory, and so are the eight of a row. wgmma calls this the 128-byte swizzle.
//
//   along k     a row of the tile is a row of A (a column of B), and its pieces follow k
//   across k    a row is one k, and its pieces follow the rows of A (columns of B): one panel of kStep
//               such rows for every 128 bytes
//
// Pieces are copied by cp.async, which goes on while the block does something else: the padding's
// zeros are made on the way. So the elements of a piece must be neighbours in memory that begin at a
// multiple of 16 bytes, and be all inside or all not (whole_pieces.h sees to it).
//
// An operand is what it is in tile_loader.h, and also has
//
//   void advance(Inner&, int steps)     from k to k + steps
//   Source<T> at(Outer, Inner)          where the element is, or that it is zero
#pragma once

#include "cuda/async_copy.h"
#include "cuda/tile_loader.h"
#include "cuda/wgmma.h"

namespace mocograd::MOCO_CUDA {

constexpr int kTileRowBytes = 128, kPieceBytes = 16;
template <class T>
constexpr int kPiece = kPieceBytes / static_cast<int>(sizeof(T));  // elements
template <class T>
constexpr int kStep = kTileRowBytes / static_cast<int>(sizeof(T));  // of K, in one step

template <class T>
struct alignas(kPieceBytes) Piece {
  T element[kPiece<T>];
};

// Whether pieces can lie there.
template <class T>
__host__ __device__ bool begins_a_piece(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % kPieceBytes == 0;
}

// Of a tile of `size` rows of A (columns of B) and kStep of K, both ways.
__host__ __device__ constexpr int tile_bytes(int size) {
  return size * kTileRowBytes;
}

// Where the piece that begins with element (outer, k) of a tile is, in bytes.
template <class T, bool along_k>
__device__ inline uint32_t place_in_tile(int outer, int k) {
  const int row = along_k ? outer : k, element = along_k ? k : outer % kStep<T>;
  const uint32_t offset = row * kTileRowBytes + element * static_cast<int>(sizeof(T));
  const uint32_t panel = along_k ? 0 : outer / kStep<T> * tile_bytes(kStep<T>);
  return panel + swizzled<Swizzle::bytes128>(offset);
}

// Copies elements [first, first + size) × [k, k + kStep), step by step, each thread its pieces. From
// `end` of k on there are zeros; rows past the operand's end repeat its last one, and what comes of
// them is never written.
template <class T, class Operand, int size, int threads, bool along_k = Operand::kInnerIsContiguous>
class PieceLoader;

// A thread has one piece's place along k, in several rows.
template <class T, class Operand, int size, int threads>
class PieceLoader<T, Operand, size, threads, true> {
 public:
  __device__ PieceLoader(const Operand& operand, int first, int count, int k, int end)
      : operand_(operand), end_(end), k_(k + column()), inner_(operand.inner(k_)) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) outer_[r] = operand.outer(min(first + row(r), count - 1));
  }

  __device__ void begin_copy(unsigned char* tile) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Source<T> source = operand_.at(outer_[r], inner_);
      async_copy<kPieceBytes>(tile + place_in_tile<T, true>(row(r), column()), source.address,
                              source.inside && k_ < end_);
    }
    k_ += kStep<T>;
    operand_.advance(inner_, kStep<T>);
  }

 private:
  static constexpr int kPiecesInARow = kTileRowBytes / kPieceBytes;
  static constexpr int kRows = size * kPiecesInARow / threads;
  __device__ static int row(int r) {
    return threadIdx.x / kPiecesInARow + r * (threads / kPiecesInARow);
  }
  __device__ static int column() {
    return threadIdx.x % kPiecesInARow * kPiece<T>;
  }

  const Operand& operand_;
  const int end_;
  int k_;
  typename Operand::Inner inner_;
  typename Operand::Outer outer_[kRows];
};

// A thread has one piece's place across k, for several k.
template <class T, class Operand, int size, int threads>
class PieceLoader<T, Operand, size, threads, false> {
 public:
  __device__ PieceLoader(const Operand& operand, int first, int count, int k, int end)
      : operand_(operand),
        end_(end),
        k_(k + row(0)),
        inner_(operand.inner(k_)),
        outer_(operand.outer(min(first + column(), (count - 1) / kPiece<T> * kPiece<T>))) {}

  __device__ void begin_copy(unsigned char* tile) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Source<T> source = operand_.at(outer_, inner_);
      async_copy<kPieceBytes>(tile + place_in_tile<T, false>(column(), row(r)), source.address,
                              source.inside && k_ < end_);
      k_ += kRowStep;
      operand_.advance(inner_, kRowStep);
    }
  }

 private:
  static_assert(size % kStep<T> == 0, "whole panels");
  static constexpr int kPiecesInARow = size / kPiece<T>;
  static constexpr int kRowStep = threads / kPiecesInARow, kRows = kStep<T> / kRowStep;
  __device__ static int row(int r) {
    return threadIdx.x / kPiecesInARow + r * kRowStep;
  }
  __device__ static int column() {
    return threadIdx.x % kPiecesInARow * kPiece<T>;
  }

  const Operand& operand_;
  const int end_;
  int k_;
  typename Operand::Inner inner_;
  const typename Operand::Outer outer_;
};

}  // namespace mocograd::MOCO_CUDA
