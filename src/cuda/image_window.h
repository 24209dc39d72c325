// A window of an image in shared memory, from which wgmma reads the operands of all nine taps of a 3×3
// convolution of stride 1 and padding 1, in bf16: each pixel comes once from global memory, not nine
// times, and no tap has addresses to work out.
//
// A window is S squares, one after the other in the batch, with the pixels around them (zeros beyond
// the image) and 64 channels: 128 bytes, a row of shared memory. wgmma takes runs of 8 rows that
// follow each other, of which a square's rows consist:
//
//   side 8    8×8 pixels of one image: a run is a row of it
//   side 4    4×4 of two images, which alternate: a b a b a b a b is a row of both, and the neighbouring
//             pixel is two places away
//
// With a border of a pixel a square has side + 2 rows of P = (side + 2)·8/side places. Its row i lies
// beside row i of the others:
//
//   place j of row i of square s is row (S·i + s)·P + j of the window
//
// so that an operand is S·side runs, one every P rows of the window: run S·i + s is row i of square
// s. For tap (kh, kw) it begins at row S·P·kh + kw·8/side. wgmma's swizzle depends on where a byte is
// in shared memory alone, so an operand may begin at any row.
//
// Requires: height and width are multiples of the side, the channels of 64; fewer than 2^31 pixels.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kRun = 8;

// A batch of images, cut into squares.
template <int side>
struct Squares {
  static constexpr int kImages = kRun / side;  // of a square
  static constexpr int kPitch = (side + 2) * kImages;
  static constexpr int kPlaces = (side + 2) * kPitch;  // of a square with its border
  static constexpr int kRunStride = tile_bytes(kPitch);

  // Of a window, in bytes: its size, and where the operand of tap (kh, kw) begins.
  __host__ __device__ static constexpr int window_bytes(int squares) {
    return tile_bytes(squares * kPlaces);
  }
  __device__ static constexpr int tap_offset(int squares, int kh, int kw) {
    return tile_bytes(squares * kPitch * kh + kImages * kw);
  }

  int images, H, W, C;

  struct Pixel {
    int image, row, column;
  };
  // A square's first, which may be of an image that there is not.
  __device__ Pixel square(int number) const {
    const int across = W / side, down = H / side;
    return {number / across / down * kImages, number / across % down * side,
            number % across * side};
  }
  // At place j of row i of a square with its border, in which place kImages of row 1 is the square's
  // first.
  __device__ static Pixel at(const Pixel& square, int i, int j) {
    return {square.image + j % kImages, square.row + i - 1, square.column + j / kImages - 1};
  }
  __device__ bool exists(const Pixel& pixel) const {
    return pixel.image < images && 0 <= pixel.row && pixel.row < H && 0 <= pixel.column &&
           pixel.column < W;
  }
  // In elements.
  __device__ int64_t offset(const Pixel& pixel) const {
    return (int64_t{pixel.image * H + pixel.row} * W + pixel.column) * C;
  }
  __host__ __device__ int windows(int squares) const {
    const int all = (images + kImages - 1) / kImages * (H / side) * (W / side);
    return (all + squares - 1) / squares;
  }
};

// Copies a window, of which each of `threads` threads has one piece of the pixels of one square.
template <int side, int squares, int threads>
class WindowLoader {
  static constexpr int kPiecesInARow = kTileRowBytes / kPieceBytes;
  using Images = Squares<side>;

 public:
  static constexpr int kAtOnce = threads / kPiecesInARow / squares;  // places of a square

  __device__ WindowLoader(const BFloat16* x, const Images& images, int window)
      : square_(images.square(window * squares + number())),
        images_(images),
        from_(x + images.offset(Images::at(square_, 0, 0)) + piece() * kPiece<BFloat16>) {}

  // Begins to copy channels [c, c + 64) of all places.
  __device__ void begin_copy(unsigned char* window, int c) const {
    for (int first = 0; first < Images::kPlaces; first += kAtOnce) begin_portion(window, c, first);
  }

  // Of kAtOnce places from `first` on, a piece a thread, if wanted: without a branch.
  __device__ void begin_portion(unsigned char* window, int c, int first, bool wanted = true) const {
    const int place = first + threadIdx.x / kPiecesInARow / squares % kAtOnce;
    const int i = place / Images::kPitch, j = place % Images::kPitch;
    const int row = (i * squares + number()) * Images::kPitch + j;
    const int image = j % Images::kImages, column = j / Images::kImages;
    const int pixels = (image * images_.H + i) * images_.W + column;  // from the first on
    async_copy_if(wanted && place < Images::kPlaces,
                  window + place_in_tile<BFloat16, true>(row, piece() * kPiece<BFloat16>),
                  from_ + int64_t{pixels} * images_.C + c,
                  images_.exists(Images::at(square_, i, j)));
  }

 private:
  static_assert(threads % (kPiecesInARow * squares) == 0, "as many threads for each square");
  __device__ static int piece() { return threadIdx.x % kPiecesInARow; }
  __device__ static int number() { return threadIdx.x / kPiecesInARow % squares; }

  const typename Images::Pixel square_;
  const Images& images_;
  const BFloat16* const from_;
};

}  // namespace mocograd::MOCO_CUDA
