// Rows of numbers, made of whole pieces of 16 bytes (staged_tile.h) by zeros at their ends: an image's
// pixels of, say, three channels in tf32, or a matrix's rows.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

template <class T>
__host__ __device__ constexpr int64_t in_whole_pieces(int64_t numbers) {
  return (numbers + kPiece<T> - 1) / kPiece<T> * kPiece<T>;
}

// y[row][k] = x[row][k], zero from `numbers` on.    x: [rows, numbers]; y: [rows, whole], a thread a piece
template <class T>
__global__ void fill_pieces_kernel(int64_t rows, int numbers, int whole, const T* x, T* y) {
  const int64_t i = grid_index();
  const int pieces = whole / kPiece<T>;
  if (i >= rows * pieces) return;
  const int k = static_cast<int>(i % pieces) * kPiece<T>;
  const T* const row = x + i / pieces * numbers;
  Piece<T> piece;
#pragma unroll
  for (int j = 0; j < kPiece<T>; ++j) piece.element[j] = k + j < numbers ? row[k + j] : T(0);
  *reinterpret_cast<Piece<T>*>(y + i * kPiece<T>) = piece;
}

// x itself where its rows are whole pieces, else a copy that lives as long as this.
template <class T>
class WholePieces {
 public:
  // x: [rows, numbers]
  WholePieces(const T* x, int64_t rows, int64_t numbers)
      : size_(in_whole_pieces<T>(numbers)),
        copy_(size_ == numbers && begins_a_piece(x) ? 0 : rows * size_),
        data_(size_ == numbers && begins_a_piece(x) ? x : copy_.data()) {
    if (data_ == x) return;
    launch(fill_pieces_kernel<T>, one_thread_each(rows * size_ / kPiece<T>), rows,
           static_cast<int>(numbers), static_cast<int>(size_), x, copy_.data());
  }

  const T* data() const { return data_; }
  int64_t size() const { return size_; }  // numbers in a row

 private:
  const int64_t size_;
  const Scratch<T> copy_;
  const T* const data_;
};

}  // namespace mocograd::MOCO_CUDA
