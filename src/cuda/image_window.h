// A window of an image in shared memory, from which wgmma reads the operands of all nine taps of a 3×3
// convolution of stride 1 and padding 1, in bf16: each pixel comes once from global memory, not nine
// times, and no tap has addresses to work out.
//
// A window is four squares of 8×8 pixels, one after the other in the batch, with what lies around them
// (10×10 each, zeros beyond the image) and 64 channels: 128 bytes, a row of shared memory. A square's
// row i lies beside row i of the other three:
//
//   pixel (i, j) of square s's surroundings is row (4i + s)·10 + j of the window
//
// so that an operand of 256 pixels is 32 groups of 8 neighbours, one group every 10 rows of the window:
// group 4i + s is row i of square s. For tap (kh, kw) it begins at row 4·10·kh + kw. wgmma's swizzle
// depends on where a byte is in shared memory alone, so an operand may begin at any row.
//
// Requires: height and width are multiples of 8, the channels one of 64; fewer than 2^31 pixels.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kSide = 8, kHaloSide = kSide + 2, kSquares = 4;
constexpr int kHaloPixels = kHaloSide * kHaloSide, kWindowPixels = kSquares * kSide * kSide;
constexpr int kWindowBytes = tile_bytes(kSquares * kHaloPixels);
constexpr int kGroupStride = tile_bytes(kHaloSide);  // of an operand, from 8 pixels to the next 8

// Where the operand of tap (kh, kw) begins in the window, in bytes.
__device__ constexpr int tap_offset(int kh, int kw) {
  return tile_bytes(kSquares * kHaloSide * kh + kw);
}

// A batch of images, cut into squares.
struct Squares {
  int images, H, W, C;

  struct Square {  // its first pixel
    int image, row, column;
  };
  // Beyond the last square: of an image that there is not.
  __device__ Square square(int number) const {
    const int across = W / kSide, down = H / kSide;
    return {number / across / down, number / across % down * kSide, number % across * kSide};
  }
  __device__ bool exists(const Square& square) const { return square.image < images; }
  // Of pixel (i, j) of a square's surroundings, in elements. (1, 1) is the square's first pixel.
  __device__ int64_t offset(const Square& at, int i, int j) const {
    return (int64_t{at.image * H + at.row + i - 1} * W + at.column + j - 1) * C;
  }
  __host__ __device__ int windows() const {
    return (images * (H / kSide) * (W / kSide) + kSquares - 1) / kSquares;
  }
};

// Copies a window, of which each of `threads` threads has one piece of the pixels of one square.
template <int threads>
class WindowLoader {
 public:
  __device__ WindowLoader(const BFloat16* x, const Squares& squares, int window)
      : square_(squares.square(window * kSquares + threadIdx.x / kPiecesInARow % kSquares)),
        squares_(squares),
        from_(x + squares.offset(square_, 0, 0) + piece() * kPiece<BFloat16>) {}

  // Begins to copy channels [c, c + 64) of pixels [first, last) of the squares' surroundings.
  __device__ void begin_copy(unsigned char* window, int c, int first, int last) const {
    const int square = threadIdx.x / kPiecesInARow % kSquares;
    for (int pixel = first + threadIdx.x % threads / 32; pixel < min(last, kHaloPixels);
         pixel += threads / 32) {
      const int i = pixel / kHaloSide, j = pixel % kHaloSide;
      const int h = square_.row + i - 1, w = square_.column + j - 1;
      const bool inside =
          squares_.exists(square_) && 0 <= h && h < squares_.H && 0 <= w && w < squares_.W;
      const int row = (i * kSquares + square) * kHaloSide + j;
      async_copy<kPieceBytes>(
          window + place_in_tile<BFloat16, true>(row, piece() * kPiece<BFloat16>),
          from_ + int64_t{i * squares_.W + j} * squares_.C + c, inside);
    }
  }

 private:
  static constexpr int kPiecesInARow = kTileRowBytes / kPieceBytes;
  static_assert(kPiecesInARow * kSquares == 32, "a warp copies one pixel of each square");
  __device__ static int piece() { return threadIdx.x % kPiecesInARow; }

  const Squares::Square square_;
  const Squares& squares_;
  const BFloat16* const from_;
};

}  // namespace mocograd::MOCO_CUDA
