// The weight gradient of the 3×3 convolution of stride 1 and padding 1 in bf16, with wgmma, from
// windows of x and dy that lie in shared memory:
//   dw[kh][kw][c][o] = Σ_p dy[p][o] x[p + (kh - 1, kw - 1)][c]
//
// A block computes 64 channels of x by 64 of dy by all nine taps, over a share of the pixels, so that
// each pixel of x is read once instead of nine times. 128 pixels are a stage: in shared memory a
// pixel's 64 channels are a row of 128 bytes, and wgmma reads both operands across k, which are the
// pixels.
//
// A wgmma takes 16 pixels, two runs of 8 whose rows follow each other. For another tap the run of x
// begins some rows later, and that is all. So the three taps of a kernel's row are three panels of the
// same operand, one pixel apart: N = 3·64, and each of three warpgroups has a row of the kernel.
//
//   side 8    a run is a row of a square of 8×8 pixels; of x there are also the pixels around it, 10×10
//   side 4    of 4×4 pixels, which alternate with those of the next image: a b a b a b a b is a row of
//             both squares, and the neighbouring pixel is two rows away
//
// Two later stages are copied while one is multiplied, and a stage's products begin before those of the
// stage before have ended. A warp that begins a product waits until one of some four before it has
// ended, and copies begin slowly: so portions of them come between the products, while some wait in
// line. The blocks' parts of a sum are f32 and are added in order.
#include "cuda/conv2d_weight_windows.h"

#include "cuda/staged_tile.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

struct WindowGradient {
  const BFloat16 *x, *dy;
  int N, H, W, C, OC;
};

constexpr int kTaps = 9, kGroups = 3;    // warpgroups of a block
constexpr int kChannels = 64, kRun = 8;  // pixels
constexpr int kStagePixels = 128, kStages = 4, kAhead = kStages - 2;
constexpr int kWindowThreads = kGroups * 128;

// What a stage consists of. Squares of as many images as alternate are one square of the stage.
template <int side>
struct Window {
  static constexpr int kImages = kRun / side, kSquares = kStagePixels / (side * kRun);
  static constexpr int kPitch = (side + 2) * kImages;  // rows of shared memory, to the pixel below
  static constexpr int kSquareRows = (side + 2) * kPitch;
  static constexpr int kPixelBytes = kSquares * tile_bytes(kSquareRows);  // of x; then dy's
  static constexpr int kBytes = kPixelBytes + tile_bytes(kStagePixels);

  static int64_t stages(const WindowGradient& of) {
    return ceil_div(ceil_div(of.N, kImages) * (of.H / side) * (of.W / side), kSquares);
  }
};

// ---- how pixels come into shared memory ------------------------------------------------------------

// A thread's part of a stage of x or dy: one piece of one column of a square, of which each portion
// is a row. With `border` pixels around the square.
template <int side, int border>
class SquareLoader {
  using Shape = Window<side>;
  static constexpr int kRows = side + 2 * border, kPitch = kRows * Shape::kImages;
  static constexpr int kPiecesInARow = kTileRowBytes / kPieceBytes;
  static constexpr int kSquareThreads = kWindowThreads / Shape::kSquares;
  static constexpr int kRowsAtOnce = kSquareThreads / (kPitch * kPiecesInARow);
  static_assert(kRowsAtOnce > 0);

 public:
  static constexpr int kPortions = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  // image: with so many channels, from the first of the 64 on
  __device__ SquareLoader(const WindowGradient& of, const BFloat16* image, int channels, int stage)
      : height_(of.H), step_(kRowsAtOnce * of.W * channels) {
    const int across = of.W / side, down = of.H / side;
    const int number = stage * Shape::kSquares + square();  // there may be no such image
    const int n = number / across / down * Shape::kImages + column() % Shape::kImages;
    const int w = number % across * side + column() / Shape::kImages - border;
    h_ = number / across % down * side + row() - border;
    from_ = image + (int64_t{n * of.H + h_} * of.W + w) * channels + element();
    exists_ = n < of.N && 0 <= w && w < of.W;
  }

  // tile: the stage's pixels of x or dy
  __device__ void begin_copy(unsigned char* tile, int portion, bool wanted) const {
    const int down = portion * kRowsAtOnce, h = h_ + down;
    const int to = (square() * kRows + row() + down) * kPitch + column();
    async_copy_if(wanted && row() < kRowsAtOnce && row() + down < kRows,
                  tile + place_in_tile<BFloat16, false>(element(), to),
                  from_ + int64_t{portion} * step_, exists_ && 0 <= h && h < height_);
  }

 private:
  __device__ static int element() { return threadIdx.x % kPiecesInARow * kPiece<BFloat16>; }
  __device__ static int square() { return threadIdx.x / kSquareThreads; }
  __device__ static int column() { return threadIdx.x % kSquareThreads / kPiecesInARow % kPitch; }
  __device__ static int row() { return threadIdx.x % kSquareThreads / kPiecesInARow / kPitch; }

  const BFloat16* from_;
  const int height_, step_;  // of the image; from portion to portion
  int h_;
  bool exists_;
};

// Both.
template <int side>
class StageLoader {
  using PixelsOfX = SquareLoader<side, 1>;
  using PixelsOfDy = SquareLoader<side, 0>;

 public:
  static constexpr int kPortions = PixelsOfX::kPortions + PixelsOfDy::kPortions;

  __device__ StageLoader(const WindowGradient& of, int c, int o, int stage)
      : x_(of, of.x + c, of.C, stage), dy_(of, of.dy + o, of.OC, stage) {}

  __device__ void begin_copy(unsigned char* stage, int portion, bool wanted) const {
    if (portion < PixelsOfX::kPortions)
      x_.begin_copy(stage, portion, wanted);
    else
      dy_.begin_copy(stage + Window<side>::kPixelBytes, portion - PixelsOfX::kPortions, wanted);
  }

 private:
  const PixelsOfX x_;
  const PixelsOfDy dy_;
};

// ---- the sums --------------------------------------------------------------------------------------

// A warpgroup's 64 channels of dy by three taps of 64 channels of x, in registers.
template <int side>
class KernelRowSums {
 public:
  static constexpr int kProducts = kStagePixels / (2 * kRun), kGaps = kProducts - 1;

  // A stage's products, between which between(0), … are called. wgmma_fence before and wgmma_commit
  // after the last.
  template <class Between>
  __device__ void begin(const unsigned char* stage, int kh, const Between& between) {
    const unsigned char* const dy = stage + Shape::kPixelBytes;
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      const int run = 2 * i;
      const int row = run / side * Shape::kSquareRows + (run % side + kh) * Shape::kPitch;
      wgmma_m64n192k16_bf16<false, false>(
          sum_, wgmma_operand(dy + tile_bytes(run * kRun), Swizzle::bytes128, tile_bytes(kRun)),
          wgmma_operand(stage + tile_bytes(row), Swizzle::bytes128, tile_bytes(Shape::kPitch),
                        tile_bytes(Shape::kImages)));
      if (i < kGaps) between(i);
    }
  }

  // Calls f(kw, c, o, sum) for each of this thread's.
  template <class F>
  __device__ void for_each(const F& f) const {
    const int o = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const int n = 8 * (i / 4) + i % 2 + column;
      f(n / kChannels, n % kChannels, o + 8 * (i / 2 % 2), sum_[i]);
    }
  }

 private:
  using Shape = Window<side>;
  static constexpr int kSums = 3 * kChannels / 2;
  float sum_[kSums] = {};
};

// ---- the kernel ------------------------------------------------------------------------------------

// shape: of tiles of 9·64 rows and 64 columns, and K = all stages' pixels
template <int side>
__global__ void __launch_bounds__(kWindowThreads, 1)
    window_weight_gradient_kernel(WindowGradient of, MatrixOutput<float> dw, ProductShape shape) {
  using Loader = StageLoader<side>;
  using Sums = KernelRowSums<side>;
  const ProductPlace at(shape);
  const int c0 = at.m0 / kTaps, kh = threadIdx.x / 128;
  const int first = at.k_begin / kStagePixels, steps = at.k_end / kStagePixels - first;
  unsigned char* const shared = shared_memory<unsigned char>();
  const auto stage_of = [=](int step) { return shared + step % kStages * Window<side>::kBytes; };
  const auto loader_of = [&](int step) { return Loader(of, c0, at.n0, first + step); };
  for (int step = 0; step < kAhead; ++step) {
    const Loader loader = loader_of(step);
    for (int portion = 0; portion < Loader::kPortions; ++portion)
      loader.begin_copy(stage_of(step), portion, step < steps);
    async_copy_commit();
  }
  Sums sums;
  for (int step = 0; step < steps; ++step) {
    const int later = step + kAhead;
    const Loader loader = loader_of(later);
    async_copy_wait<kAhead - 1>();
    fence_before_wgmma();
    __syncthreads();  // all pieces are there, and all warps are done with the step before the last
    wgmma_fence();
    sums.begin(stage_of(step), kh, [&](int gap) {
      constexpr int kPortions = Loader::kPortions, kGaps = Sums::kGaps;
#pragma unroll
      for (int p = gap * kPortions / kGaps; p < (gap + 1) * kPortions / kGaps; ++p)
        loader.begin_copy(stage_of(later), p, later < steps);
    });
    wgmma_commit();
    async_copy_commit();
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  // Eight lanes write 32 bytes that follow each other.
  sums.for_each([&](int kw, int c, int o, float sum) {
    dw.row(at.split, (kh * 3 + kw) * of.C + c0 + c)[at.n0 + o] = sum;
  });
}

template <int side>
void gradient_by_squares_of(const WindowGradient& of, const MatrixOutput<float>& dw) {
  const int64_t K = Window<side>::stages(of) * kStagePixels;
  ProductShape shape(dw.M, dw.N, K, kTaps * kChannels, kChannels, kStagePixels);
  shape.share_k_on(kMultiprocessors, 1);
  Grid grid = blocks_of(kWindowThreads, shape.blocks());
  grid.dynamic_shared_bytes = kStages * Window<side>::kBytes;
  write_or_add_parts(shape, dw.c, [&](const MatrixOutput<float>& output) {
    launch(window_weight_gradient_kernel<side>, grid, of, output, shape);
  });
}

bool consists_of_squares(const Tensor& x, int64_t side) {
  return x.dim(1) % side == 0 && x.dim(2) % side == 0;
}

}  // namespace

bool weight_gradient_takes_windows(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                   const Tensor& dw) {
  return x.dtype() == DType::bf16 && dw.dim(0) == 3 && dw.dim(1) == 3 && config.stride == 1 &&
         config.padding == 1 && begins_a_piece(x.raw<BFloat16>()) &&
         begins_a_piece(dy.raw<BFloat16>()) && consists_of_squares(x, 4) &&
         dw.dim(2) % kChannels == 0 && dw.dim(3) % kChannels == 0;
}

void window_weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw) {
  const auto size = [](int64_t n) { return static_cast<int>(n); };
  const WindowGradient of{x.raw<BFloat16>(), dy.raw<BFloat16>(), size(x.dim(0)), size(x.dim(1)),
                          size(x.dim(2)),    size(x.dim(3)),     size(dy.dim(3))};
  const MatrixOutput<float> output{dw.raw<float>(), kTaps * x.dim(3), dy.dim(3)};
  if (consists_of_squares(x, 8)) return gradient_by_squares_of<8>(of, output);
  gradient_by_squares_of<4>(of, output);
}

}  // namespace mocograd::MOCO_CUDA
