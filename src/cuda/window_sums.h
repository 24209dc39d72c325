// What a warpgroup of a convolution by windows computes and how it leaves: yᵀ, 64 channels of a
// window, in registers (conv2d_windows.cu).
#pragma once

#include "cuda/image_window.h"
#include "cuda/mma.h"
#include "cuda/result_sums.h"
#include "cuda/wgmma.h"
#include "cuda/window_weights.h"

namespace mocograd::MOCO_CUDA {

template <int side>
struct WindowConvolution {
  const BFloat16* x;
  const unsigned char* w;  // window_weights.h
  BFloat16* y;
  Squares<side> in, out;  // x and y, of the same height and width
};

using FourChannels = Vector<BFloat16, 4>;
struct TwoPairs {
  uint32_t first, second;
};

// A warpgroup's 64 channels of a window of so many squares, in registers.
template <int side, int squares>
class TransposedSums {
  using Images = Squares<side>;
  using Convolution = WindowConvolution<side>;

 public:
  // A tap's products with one panel, after each of which between(0), … is called: as long as the
  // tensor cores have products waiting, what else a warp does costs no time. wgmma_fence before and
  // wgmma_commit after the last.
  template <class Between>
  __device__ void begin(const unsigned char* weights, const unsigned char* window, int tap,
                        const Between& between) {
    const unsigned char* const pixels = window + Images::tap_offset(squares, tap / 3, tap % 3);
#pragma unroll
    for (int part = 0; part < kTileRowBytes; part += 2 * kPieceBytes) {
      const uint64_t a = wgmma_operand(weights + part, Swizzle::bytes128, tile_bytes(8));
      const uint64_t b = wgmma_operand(pixels + part, Swizzle::bytes128, Images::kRunStride);
      if constexpr (kRuns == 16)
        wgmma_m64n128k16_bf16<true, true>(sum_, a, b);
      else
        wgmma_m64n256k16_bf16<true, true>(sum_, a, b);
      between(part / (2 * kPieceBytes));
    }
  }

  __device__ void clear() {
#pragma unroll
    for (float& sum : sum_) sum = 0;
  }

  // Where a thread's part of channels [o, o + 64) of each square goes; nullptr: nowhere.
  struct Places {
    BFloat16* square[squares];
  };
  __device__ static Places places(const Convolution& conv, int window, int o) {
    Places to;
#pragma unroll
    for (int s = 0; s < squares; ++s) {
      const typename Images::Pixel first =
          Images::at(conv.out.square(window * squares + s), 1, Images::kImages + own_pixel());
      to.square[s] =
          conv.out.exists(first) ? conv.y + conv.out.offset(first) + o + own_channel() : nullptr;
    }
    return to;
  }

  // What a square needs beside y is read while the one before is written.
  template <class Wanted>
  __device__ void write(const Convolution& conv, const Places& to, const Wanted& wanted, int window,
                        int o) const {
    using Of = ThreadSums<Wanted, 4>;
    Of sums(wanted, {window, conv.out.C, o + own_channel()}, [&] { return first_pixel(); });
    const int row = conv.out.W * conv.out.C;
    typename Of::Inputs in[2][side];
    const auto fetch = [&](int s) {
      if constexpr (Of::kAny) {  // then all squares exist
#pragma unroll
        for (int i = 0; i < side; ++i)
          in[s % 2][i] = sums.fetch(to.square[s] - conv.y + int64_t{row} * i);
      }
    };
    fetch(0);
#pragma unroll
    for (int s = 0; s < squares; ++s) {
      if (s + 1 < squares) fetch(s + 1);
#pragma unroll
      for (int i = 0; i < side; ++i) {
        const FourChannels four = sums.add(four_channels(i * squares + s), in[s % 2][i]);
        if (to.square[s] != nullptr) store(to.square[s] + int64_t{row} * i, four);
      }
    }
    if constexpr (Of::kAny) {
      sums.template add_lanes<1, 8>();  // of the pixels of a row
      if (own_pixel() == 0) sums.leave();
    }
  }

  // To a tile in shared memory, a pixel a row, for write_from_tile.
  __device__ void put(unsigned char* tile) const {
    unsigned char* const own = tile + place_in_tile<BFloat16, true>(own_pixel(), own_channel());
#pragma unroll
    for (int run = 0; run < kRuns; ++run)
      store(reinterpret_cast<BFloat16*>(own + tile_bytes(run * kRun)), four_channels(run));
  }

 private:
  // Of a run, a row of a square, a thread has two neighbours, of each of its channels. Lanes 4
  // apart exchange one for the other's channel, and then each has one, with four neighbouring channels.
  __device__ static int odd() {
    return threadIdx.x / 4 % 2;
  }
  __device__ static int own_pixel() {
    return threadIdx.x % 4 * 2 + odd();
  }
  __device__ static int own_channel() {
    return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 8 * 4;
  }
  __device__ FourChannels four_channels(int run) const {
    const unsigned own = odd() ? 0x7632 : 0x5410, others = odd() ? 0x5410 : 0x7632;  // bytes
    const float* const sum = sum_ + 4 * run;  // of both pixels of two channels
    const uint32_t a = pack_bf16(sum[0], sum[1]), b = pack_bf16(sum[2], sum[3]);
    const uint32_t mine = __byte_perm(a, b, own);
    const uint32_t other = __shfl_xor_sync(~0u, __byte_perm(a, b, others), 4);
    const TwoPairs pairs = {
        __byte_perm(mine, other, odd() ? 0x1054 : 0x5410),  // the even lane's first
        __byte_perm(mine, other, odd() ? 0x3276 : 0x7632)};
    return __builtin_bit_cast(FourChannels, pairs);
  }
  // Of the lane with own_pixel() 0 that has the same channels.
  __device__ FourChannels first_pixel() const {
    const auto own = __builtin_bit_cast(TwoPairs, four_channels(0));
    const int lane = threadIdx.x % 32 & ~7;
    const TwoPairs first = {__shfl_sync(kAllLanes, own.first, lane),
                            __shfl_sync(kAllLanes, own.second, lane)};
    return __builtin_bit_cast(FourChannels, first);
  }

  static constexpr int kRuns = squares * side;
  static_assert(kRuns == 16 || kRuns == 32);
  float sum_[kRuns * kRun / 2];
};

// Writes 64 channels of a window from where TransposedSums::put has put them: a pixel's 128 bytes at
// once. All threads of a warpgroup.
template <int side, int squares, class Wanted>
__device__ void write_from_tile(const WindowConvolution<side>& conv, int window,
                                unsigned char* tile, const Wanted& wanted) {
  constexpr int kPixels = squares * side * kRun, kPieces = kTileRowBytes / kPieceBytes;
  static_assert(Squares<side>::window_bytes(squares) - tile_bytes(kPixels) >=
                4 * 2 * kGroup * sizeof(float));
  const auto piece_of = [&](int row, int piece) {
    return reinterpret_cast<const BFloat16*>(
        tile + place_in_tile<BFloat16, true>(row, piece * kPiece<BFloat16>));
  };
  static_assert(128 / kPieces == squares * kRun, "a thread's pixels are of one square");
  const int number = threadIdx.x % 128 / kPieces / kRun;
  const auto square = conv.out.square(window * squares + number);
  const auto place_of = [&](int row) {
    const auto pixel =
        Squares<side>::at(square, row / (squares * kRun) + 1, row % kRun + Squares<side>::kImages);
    return conv.out.exists(pixel) ? conv.out.offset(pixel) : -1;
  };
  write_chunk<128, kPixels, kPieces>(wanted, {window, conv.out.C, 0}, piece_of, place_of, conv.y,
                                     reinterpret_cast<float*>(tile + tile_bytes(kPixels)),
                                     [] { warpgroup_barrier(); });
}

}  // namespace mocograd::MOCO_CUDA
