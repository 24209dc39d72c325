// The weights of a 3×3 convolution in bf16 as its kernels (conv2d_windows.cu) have them in shared
// memory: what a step multiplies with lies there as it lies here, and one copy brings it.
//
//   [OC / rows][C / 64][tap] tiles of `rows` channels of y (64 or 128) along k, 64 channels of x
//
// The data gradient is a convolution of dy with the taps flipped; then y is dx and x is dy.
#pragma once

#include "cuda/staged_tile.h"

namespace mocograd::MOCO_CUDA {

constexpr int kPanel = kStep<BFloat16>;  // channels of x in a tile
constexpr int kGroup = 64, kTaps = 9;    // channels of y of a warpgroup
constexpr int kGroupBytes = tile_bytes(kGroup);

// Which channel of y is row m of a warpgroup's 64. A thread has the sums of rows m and m + 8, the one
// 4 lanes away those of m ^ 1: together four neighbouring channels (TransposedSums::four_channels).
__host__ __device__ constexpr int channel_of_row(int m) {
  return (m & ~15) | (m & 6) << 1 | (m & 8) >> 2 | (m & 1);
}

// A block's part: 64 channels of y, 64 of x and one tap.     w: [tap][C][OC], flipped: [tap][OC][C]
template <bool flipped>
__global__ void __launch_bounds__(kThreads)
    stage_window_weights_kernel(const float* w, int C, int OC, int groups, unsigned char* tiles) {
  constexpr int kPieces = kTileRowBytes / kPieceBytes;
  const int tap = blockIdx.x, panel = blockIdx.y, group = blockIdx.z;
  const int tile = (group / groups * gridDim.y + panel) * kTaps + tap;
  unsigned char* const to = tiles + (int64_t{tile} * groups + group % groups) * kGroupBytes;
  const float* const from = w + int64_t{flipped ? kTaps - 1 - tap : tap} * C * OC;
#pragma unroll
  for (int i = 0; i < kGroup * kPieces / kThreads; ++i) {
    const int n = threadIdx.x + i * kThreads;
    const int row = flipped ? n / kPieces : n % kGroup;
    const int k = (flipped ? n % kPieces : n / kGroup) * kPiece<BFloat16>;
    const int c = panel * kPanel + k, o = group * kGroup + channel_of_row(row);
    Piece<BFloat16> piece;
#pragma unroll
    for (int e = 0; e < kPiece<BFloat16>; ++e)
      piece.element[e] = BFloat16(flipped ? from[o * C + c + e] : from[(c + e) * OC + o]);
    *reinterpret_cast<Piece<BFloat16>*>(to + place_in_tile<BFloat16, true>(row, k)) = piece;
  }
}

// Of `rows` channels of y in a tile.
class WindowWeights {
 public:
  WindowWeights(const float* w, bool flipped, int C, int OC, int rows)
      : tiles_(int64_t{kTaps} * C * OC * static_cast<int64_t>(sizeof(BFloat16))) {
    launch(flipped ? stage_window_weights_kernel<true> : stage_window_weights_kernel<false>,
           Grid{dim3(kTaps, C / kPanel, OC / kGroup), kThreads}, w, C, OC, rows / kGroup,
           tiles_.data());
  }

  const unsigned char* tiles() const { return tiles_.data(); }

 private:
  const Scratch<unsigned char> tiles_;
};

}  // namespace mocograd::MOCO_CUDA
