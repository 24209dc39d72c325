// A window of an image in shared memory, from which wgmma reads the operands of all nine taps of a 3×3
// convolution of stride 1 and padding 1, in bf16: each pixel comes once from global memory, not nine
// times, and no tap has addresses to work out.
//
// A window is S squares of 8×8 pixels, one after the other in the batch, with what lies around them
// (10×10 each, zeros beyond the image) and 64 channels: 128 bytes, a row of shared memory. A square's
// row i lies beside row i of the others:
//
//   pixel (i, j) of square s's surroundings is row (S·i + s)·10 + j of the window
//
// so that an operand of 64·S pixels is 8·S groups of 8 neighbours, one group every 10 rows of the window:
// group S·i + s is row i of square s. For tap (kh, kw) it begins at row 10·S·kh + kw. wgmma's swizzle
// depends on where a byte is in shared memory alone, so an operand may begin at any row.
//
// Requires: height and width are multiples of 8, the channels one of 64; fewer than 2^31 pixels.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kSide = 8, kHaloSide = kSide + 2, kHaloPixels = kHaloSide * kHaloSide;
constexpr int kGroupStride = tile_bytes(kHaloSide);  // of an operand, from 8 pixels to the next 8

// Where the operand of tap (kh, kw) begins in the window, in bytes.
__device__ constexpr int tap_offset(int squares, int kh, int kw) {
  return tile_bytes(squares * kHaloSide * kh + kw);
}
__host__ __device__ constexpr int window_bytes(int squares) {
  return tile_bytes(squares * kHaloPixels);
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
  __host__ __device__ int windows(int squares) const {
    return (images * (H / kSide) * (W / kSide) + squares - 1) / squares;
  }
};

// Copies a window, of which each of `threads` threads has one piece of the pixels of one square.
template <int squares, int threads>
class WindowLoader {
  static constexpr int kPiecesInARow = kTileRowBytes / kPieceBytes;

 public:
  static constexpr int kAtOnce = threads / kPiecesInARow / squares;  // pixels of a square

  __device__ WindowLoader(const BFloat16* x, const Squares& image, int window)
      : square_(image.square(window * squares + number())),
        squares_(image),
        from_(x + image.offset(square_, 0, 0) + piece() * kPiece<BFloat16>) {}

  // Begins to copy channels [c, c + 64) of pixels [first, last) of the squares' surroundings.
  __device__ void begin_copy(unsigned char* window, int c, int first, int last) const {
    for (; first < last; first += kAtOnce) begin_portion(window, c, first);
  }

  // Of kAtOnce pixels from `first` on, a piece a thread, if wanted: without a branch.
  __device__ void begin_portion(unsigned char* window, int c, int first, bool wanted = true) const {
    const int pixel = first + threadIdx.x / kPiecesInARow / squares % kAtOnce;
    const int i = pixel / kHaloSide, j = pixel % kHaloSide;
    const int h = square_.row + i - 1, w = square_.column + j - 1;
    const bool inside =
        squares_.exists(square_) && 0 <= h && h < squares_.H && 0 <= w && w < squares_.W;
    const int row = (i * squares + number()) * kHaloSide + j;
    async_copy_if(wanted && pixel < kHaloPixels,
                  window + place_in_tile<BFloat16, true>(row, piece() * kPiece<BFloat16>),
                  from_ + int64_t{i * squares_.W + j} * squares_.C + c, inside);
  }

 private:
  static_assert(threads % (kPiecesInARow * squares) == 0, "as many threads for each square");
  __device__ static int piece() { return threadIdx.x % kPiecesInARow; }
  __device__ static int number() { return threadIdx.x / kPiecesInARow % squares; }

  const Squares::Square square_;
  const Squares& squares_;
  const BFloat16* const from_;
};

}  // namespace mocograd::MOCO_CUDA
