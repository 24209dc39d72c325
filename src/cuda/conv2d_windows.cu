// The 3×3 convolution of stride 1 and padding 1 in bf16, with wgmma, from windows of the image that lie
// in shared memory (image_window.h):
//   y[p][o] = Σ_tap Σ_c w[tap][c][o] x[p + tap][c]               w: staged (window_weights.h)
//
// A warpgroup computes yᵀ: 64 channels of 256 or 128 pixels, so that each 16 numbers of k are one
// wgmma, which reads 2 KiB of weights and 8 or 4 KiB of pixels from shared memory in 128 or 64
// cycles; with 64 pixels of 64 channels shared memory would be what the tensor cores wait for. The
// block goes on from tile to tile, as many blocks as fit into the GPU at a time.
//
//   streamed    two warpgroups have the same window and 128 channels. A step is one tap of 64 channels of
//               x; one thread has the weights of the steps after it copied, and all copy the next window,
//               spread over the first of them. The next step's products begin before this one's have ended.
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
#include "cuda/window_sums.h"

namespace mocograd::MOCO_CUDA {
namespace {

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

// Squares of 4×4 only for images of that size: then a window is whole images, one after the other in
// the batch, as a chunk of a batch norm's sums must be.
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
