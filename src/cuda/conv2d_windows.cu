// The 3×3 convolution of stride 1 and padding 1 in bf16, with wgmma, from windows of the image that lie
// in shared memory (image_window.h):
//   y[p][o] = Σ_tap Σ_c w[tap][c][o] x[p + tap][c]               w: staged (window_weights.h)
//
// A warpgroup computes yᵀ: 64 channels of 256 or 128 pixels, so that each 16 numbers of k are one wgmma,
// which reads 2 KiB of weights and 8 or 4 KiB of pixels from shared memory in 128 or 64 cycles; with 64
// pixels of 64 channels shared memory would be what the tensor cores wait for. The block goes on from tile to tile, as
// many blocks as fit into the GPU at a time.
//
//   streamed    two warpgroups have the same window and 128 channels. A step is one tap of 64 channels of
//               x; one thread has the weights of the steps after it copied, and all copy the next window,
//               spread over seven. The next step's products begin before this one's have ended.
//   resident    C = OC = 64: the weights of all taps stay in shared memory. Three warpgroups go their own
//               ways, each with a window of its own: while one waits for pixels or writes, others multiply.
//               They begin one after the other, since the tensor cores serve in turns who has begun
//               together, and all would write together too.
//
// What a batch norm needs of y is summed window by window (result_sums.h).
#include "cuda/conv2d_windows.h"

#include <algorithm>

#include "cuda/bulk_copy.h"
#include "cuda/capability.h"
#include "cuda/image_window.h"
#include "cuda/mma.h"
#include "cuda/result_sums.h"
#include "cuda/window_weights.h"

namespace mocograd::MOCO_CUDA {
namespace {

template <int side>
struct WindowConvolution {
  const BFloat16* x;
  const unsigned char* w;  // window_weights.h
  BFloat16* y;
  Squares<side> in, out;  // x and y, of the same height and width
};

// ---- the sums --------------------------------------------------------------------------------------

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
  // A tap's products with one panel, after each of which between(0), … is called: as long as the tensor cores
  // have products waiting, what else a warp does costs no time. wgmma_fence before and wgmma_commit after
  // the last.
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

// ---- the kernels -----------------------------------------------------------------------------------

constexpr int kStreamedChannels = 128;

template <int side>
struct StreamedWeights {
  static constexpr int kSquares = 32 / side, kWindowBytes = Squares<side>::window_bytes(kSquares);
  static constexpr int kThreads = 256, kStages = side == 8 ? 6 : 5, kAhead = kStages - 2;
  static constexpr int kStageBytes = tile_bytes(kStreamedChannels);
  static constexpr int kWeights = 2 * kWindowBytes, kBarriers = kWeights + kStages * kStageBytes;
  static constexpr int kBytes = kBarriers + kStages * sizeof(BulkCopyBarrier);
  using Loader = WindowLoader<side, kSquares, kThreads>;
};

// What nine steps multiply.
struct WindowPanel {
  int window, o, c;  // the first channels of y and x
};

template <int side, class Wanted>
__global__ void __launch_bounds__(StreamedWeights<side>::kThreads, 1)
    streamed_window_kernel(WindowConvolution<side> conv, Wanted wanted) {
  using Shape = StreamedWeights<side>;
  using Loader = typename Shape::Loader;
  // Of each square's surroundings in a step, in portions: the first come while the last tap's products,
  // which read from the third row on, may not have ended.
  constexpr int kPortions = side == 8 ? 2 : 3, kStepPlaces = kPortions * Loader::kAtOnce;
  static_assert(kStepPlaces <= 2 * Squares<side>::kPitch &&
                (kTaps - 1) * kStepPlaces >= Squares<side>::kPlaces);
  const int columns = conv.out.C / kStreamedChannels,
            tiles = conv.in.windows(Shape::kSquares) * columns;
  const auto begin_of = [&](int tile) -> WindowPanel {
    return {tile / columns, tile % columns * kStreamedChannels, 0};
  };
  unsigned char* const shared = shared_memory<unsigned char>();
  auto* const arrivals = reinterpret_cast<BulkCopyBarrier*>(shared + Shape::kBarriers);
  const auto window_of = [=](int round) { return shared + round % 2 * Shape::kWindowBytes; };
  const auto weights_of = [=](int step) {
    return shared + Shape::kWeights + step % Shape::kStages * Shape::kStageBytes;
  };
  const auto copy_weights = [&](const WindowPanel& from, int tap, int step) {
    const int panel = from.o / kStreamedChannels * (conv.in.C / kPanel) + from.c / kPanel;
    if (threadIdx.x == 0)
      bulk_copy(weights_of(step), conv.w + (int64_t{panel} * kTaps + tap) * Shape::kStageBytes,
                Shape::kStageBytes, arrivals[step % Shape::kStages]);
  };
  if (threadIdx.x == 0) begin_barriers(arrivals, Shape::kStages);
  __syncthreads();
  int step = 0, round = 0;
  const WindowPanel first = begin_of(blockIdx.x);
  for (int tap = 0; tap < Shape::kAhead; ++tap) copy_weights(first, tap, tap);
  Loader(conv.x, conv.in, first.window).begin_copy(window_of(0), 0);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int next_tile = tile + gridDim.x;
    WindowPanel now = begin_of(tile);
    TransposedSums<side, Shape::kSquares> sums;
    sums.clear();
    for (; now.c < conv.in.C; now.c += kPanel, ++round) {
      const bool ends = now.c + kPanel == conv.in.C, last = ends && next_tile >= tiles;
      const WindowPanel next =
          ends ? begin_of(next_tile) : WindowPanel{now.window, now.o, now.c + kPanel};
      const Loader loader(conv.x, conv.in, next.window);
      async_copy_commit();
      async_copy_wait<0>();
      fence_before_wgmma();
      for (int tap = 0; tap < kTaps; ++tap, ++step) {
        wait_for_bulk_copy(arrivals[step % Shape::kStages], step / Shape::kStages);
        __syncthreads();  // all pieces are there, and all warps are done with the step before the last
        wgmma_fence();
        sums.begin(weights_of(step) + threadIdx.x / 128 * kGroupBytes, window_of(round), tap,
                   [&](int part) {
                     if (part < kPortions)
                       loader.begin_portion(window_of(round + 1), next.c,
                                            tap * kStepPlaces + part * Loader::kAtOnce, !last);
                   });
        wgmma_commit();
        const int ahead = tap + Shape::kAhead;
        if (ahead < kTaps || !last)
          copy_weights(ahead < kTaps ? now : next, ahead % kTaps, step + Shape::kAhead);
        wgmma_wait<1>();
      }
    }
    const int o = now.o + threadIdx.x / 128 * kGroup;
    const auto places = sums.places(conv, now.window, o);
    wgmma_wait<0>();
    sums.write(conv, places, wanted, now.window, o);
  }
}

struct ResidentWeights {
  static constexpr int kSide = 8, kSquares = 2;
  static constexpr int kWindowBytes = Squares<kSide>::window_bytes(kSquares);
  static constexpr int kGroups = 3, kThreads = kGroups * 128;
  static constexpr unsigned kTurn = 1300;  // nanoseconds, about as long as a window's products take
  static constexpr int kWeightBytes = kTaps * kGroupBytes;
  static constexpr int kBarrier = kWeightBytes + 2 * kGroups * kWindowBytes;
  static constexpr int kBytes = kBarrier + sizeof(BulkCopyBarrier);
};

template <class Wanted>
__global__ void __launch_bounds__(ResidentWeights::kThreads, 1)
    resident_window_kernel(WindowConvolution<ResidentWeights::kSide> conv, Wanted wanted) {
  using Shape = ResidentWeights;
  using Loader = WindowLoader<Shape::kSide, Shape::kSquares, 128>;
  constexpr int kPlaces = Squares<Shape::kSide>::kPlaces;
  constexpr int kPortions = (kPlaces + Loader::kAtOnce - 1) / Loader::kAtOnce;
  const int group = threadIdx.x / 128;
  unsigned char* const weights = shared_memory<unsigned char>();
  const auto window_of = [=](int round) {
    return weights + Shape::kWeightBytes + (2 * group + round % 2) * Shape::kWindowBytes;
  };
  auto& arrival = *reinterpret_cast<BulkCopyBarrier*>(weights + Shape::kBarrier);
  if (threadIdx.x == 0) {
    begin_barriers(&arrival, 1);
    bulk_copy(weights, conv.w, Shape::kWeightBytes, arrival);
  }
  const int windows = conv.in.windows(Shape::kSquares), stride = Shape::kGroups * gridDim.x;
  int number = blockIdx.x + group * gridDim.x;
  if (number < windows) Loader(conv.x, conv.in, number).begin_copy(window_of(0), 0);
  async_copy_commit();
  __syncthreads();  // the barrier is there
  wait_for_bulk_copy(arrival, 0);
  __nanosleep(group * Shape::kTurn);
  TransposedSums<Shape::kSide, Shape::kSquares> sums;
  for (int round = 0; number < windows; number += stride, ++round) {
    const Loader loader(conv.x, conv.in, number + stride);
    const auto copy_some_of_the_next = [&](int gap) {  // between two products
      constexpr int kGaps = kTaps * 4 - 1;
#pragma unroll
      for (int p = gap * kPortions / kGaps; p < (gap + 1) * kPortions / kGaps; ++p)
        loader.begin_portion(window_of(round + 1), 0, p * Loader::kAtOnce,
                             number + stride < windows);
    };
    async_copy_wait<0>();
    fence_before_wgmma();
    warpgroup_barrier();  // the window is there, and all warps are done with the one before
    sums.clear();
    wgmma_fence();
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap)
      sums.begin(weights + tap * kGroupBytes, window_of(round), tap,
                 [&](int part) { copy_some_of_the_next(4 * tap + part); });
    wgmma_commit();
    async_copy_commit();
    wgmma_wait<0>();
    warpgroup_barrier();  // the products of all warps have read the window: y takes its place
    sums.put(window_of(round));
    warpgroup_barrier();  // y is there
    write_from_tile<Shape::kSide, Shape::kSquares>(conv, number, window_of(round), wanted);
  }
}

// ---- launching -------------------------------------------------------------------------------------

bool is_resident(int64_t C, int64_t OC) {
  return C == kPanel && OC == kGroup;
}

template <int side, bool resident>
bool convolve(const Tensor& image, const Tensor& w, bool flipped, const Tensor& result,
              const WantedSums& wanted) {
  using Shape = std::conditional_t<resident, ResidentWeights, StreamedWeights<side>>;
  const auto images_of = [](const Tensor& x) -> Squares<side> {
    return {static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)),
            static_cast<int>(x.dim(3))};
  };
  const Squares<side> in = images_of(image), out = images_of(result);
  const int channels = resident ? kGroup : kStreamedChannels;
  const WindowWeights weights(w.raw<float>(), flipped, in.C, out.C, channels);
  const WindowConvolution<side> conv{image.raw<BFloat16>(), weights.tiles(), result.raw<BFloat16>(),
                                     in, out};
  const int64_t tiles = int64_t{in.windows(Shape::kSquares)} * (out.C / channels);
  Grid grid = blocks_of(Shape::kThreads, std::min<int64_t>(tiles, multiprocessors()));
  grid.dynamic_shared_bytes = Shape::kBytes;
  const auto run = [&](const auto& sums) {
    using Wanted = std::decay_t<decltype(sums)>;
    if constexpr (resident)
      launch(resident_window_kernel<Wanted>, grid, conv, sums);
    else
      launch(streamed_window_kernel<side, Wanted>, grid, conv, sums);
  };
  return with_sums(wanted, conv.y, result.numel() / out.C, out.C, Shape::kSquares * side * kRun,
                   run);
}

}  // namespace

// Of squares of 4×4, two images each, a whole image is one, so that a window that lies within a group of a
// batch norm has no image of the next.
bool takes_windows(const Tensor& image, const Tensor& w, Conv2dConfig config,
                   const Tensor& result) {
  const int64_t H = image.dim(1), W = image.dim(2), C = image.dim(3), OC = result.dim(3);
  const bool by_8 = H % 8 == 0 && W % 8 == 0, by_4 = H == 4 && W == 4;
  return image.dtype() == DType::bf16 && image.dim(0) * H * W < int64_t{1} << 31 && w.dim(0) == 3 &&
         w.dim(1) == 3 && config.stride == 1 && config.padding == 1 && (by_8 || by_4) &&
         C % kPanel == 0 && C > 0 && OC > 0 && begins_a_piece(image.raw<BFloat16>()) &&
         begins_a_piece(result.raw<BFloat16>()) &&
         (OC % kStreamedChannels == 0 || (by_8 && is_resident(C, OC)));
}

bool window_conv2d(const Tensor& image, const Tensor& w, bool flipped, const Tensor& result,
                   const WantedSums& wanted) {
  const auto convolve_by = image.dim(1) % 8 != 0                      ? convolve<4, false>
                           : is_resident(image.dim(3), result.dim(3)) ? convolve<8, true>
                                                                      : convolve<8, false>;
  return convolve_by(image, w, flipped, result, wanted);
}

}  // namespace mocograd::MOCO_CUDA
