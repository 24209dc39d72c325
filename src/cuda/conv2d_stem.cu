// The stem's convolution in bf16, forward and weight gradient, where a sum of y has at most 32 terms and
// y at most 64 channels: 3×3 of three colours are 27.
//   y[p][o]  = Σ_k x_pk w[k][o]            k = (kh, kw, c), x_pk: x at pixel p + (kh, kw), channel c
//   dw[k][o] = Σ_p x_pk dy[p][o]
//
// The image is a twentieth of y, and a term of it two bytes: too little for asynchronous copies, and no
// matter for the caches. So each lane loads just those numbers of x that mma wants of it (mma.h), into
// registers, and 32 terms are two steps of 16. An H200 then writes y at 40 % of what its memory can.
//
//   forward           A: pixels × terms of x    B: w, which a lane holds in registers from tile to tile
//   weight gradient   A: terms of x × pixels    B: dy
//
// Of dy a lane loads eight neighbouring channels of four pixels, 16 bytes each. Those of two pixels,
// paired, are a column's two rows of B for eight products. So the columns of B are not the channels in
// their order: column g of product j is channel 8g + j; and the rows are not the pixels in theirs: mma's
// pairs 2t and 2t + 8 are a lane's pixels 4t … 4t + 3, in A and in B.
//
// The warps of a block, and blocks, share the pixels of dw, each with sums of its own, which are added
// in order.
#include "cuda/conv2d_stem.h"

#include <algorithm>
#include <type_traits>

#include "cuda/capability.h"
#include "cuda/conv2d_operands.h"
#include "cuda/mma.h"
#include "cuda/pipelined_product.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kStemTerms = 32, kStemChannels = 64;  // the most
constexpr int kProductTerms = 16;                   // of one mma
constexpr int kPanels = kStemChannels / 8;          // products side by side

// ---- a lane's numbers of x -------------------------------------------------------------------------

using Image = Correlation<BFloat16>;

// Where term k is, seen from the first number that an output pixel reads.
struct Term {
  int kh, kw, offset;
};

// From `terms` on: below the image, so that all are zeros of the padding.
__device__ Term term_of(const Image& in, int k, int terms) {
  const Image::Tap tap = in.tap(k);
  return {k < terms ? tap.kh : in.H - in.top, tap.kw, (tap.kh * in.W + tap.kw) * in.C + tap.c};
}

__device__ BFloat16 number_at(const Image& in, const Image::Pixel& pixel, const Term& term) {
  const int h = pixel.row + term.kh, w = pixel.column + term.kw;
  if (h < 0 || h >= in.H || w < 0 || w >= in.W) return BFloat16(0.0f);
  return in.x[pixel.number * in.C + term.offset];
}

__device__ uint32_t packed(BFloat16 low, BFloat16 high) {
  return __builtin_bit_cast(uint32_t, Pair<BFloat16>{low, high});
}

// ---- forward ---------------------------------------------------------------------------------------

struct StemTile {
  static constexpr int kRows = 128, kColumns = kStemChannels, kThreads = 128;
  static constexpr int kBlocks = 3;  // that fit into a multiprocessor
};

// A lane's part of w, and of the terms, for all its pixels.
class StemProduct {
 public:
  __device__ StemProduct(const Image& in, const float* w, const ProductShape& shape)
      : in_(in), lane_(threadIdx.x % 32) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int k = 8 * i + lane_ % 4 * 2;
      for (int e = 0; e < 2; ++e) term_[i][e] = term_of(in, k + e, shape.K);
#pragma unroll
      for (int j = 0; j < kPanels; ++j) {
        const int o = 8 * j + lane_ / 4;
        const auto weight = [&](int k) {
          return k < shape.K && o < shape.N ? w[k * shape.N + o] : 0;
        };
        w_[i / 2][j][i % 2] = pack_bf16(weight(k), weight(k + 1));
      }
    }
  }

  // sum = y of 16 pixels from p on; beyond the last they are that one again.
  __device__ void multiply(int p, int last, float (&sum)[kPanels][4]) const {
    Image::Pixel pixel[2];
    for (int half = 0; half < 2; ++half)
      pixel[half] = in_.pixel(in_.position(min(p + lane_ / 4 + 8 * half, last)));
    uint32_t x[kPairs][2];
#pragma unroll
    for (int i = 0; i < kPairs; ++i)
      for (int half = 0; half < 2; ++half)
        x[i][half] = packed(number_at(in_, pixel[half], term_[i][0]),
                            number_at(in_, pixel[half], term_[i][1]));
#pragma unroll
    for (int j = 0; j < kPanels; ++j) {
      for (float& s : sum[j]) s = 0;
      for (int step = 0; step < kStemTerms / kProductTerms; ++step) {
        const auto& first = x[2 * step];
        const auto& second = x[2 * step + 1];
        mma_m16n8k16_bf16(sum[j], {first[0], first[1], second[0], second[1]}, w_[step][j]);
      }
    }
  }

 private:
  static constexpr int kPairs = kStemTerms / 8;  // of terms, of a lane
  const Image in_;
  const int lane_;
  Term term_[kPairs][2];
  uint32_t w_[kStemTerms / kProductTerms][kPanels][2];
};

// A block goes on from tile to tile.          w: [K, N]
template <class Wanted>
__global__ void __launch_bounds__(StemTile::kThreads, StemTile::kBlocks)
    stem_kernel(Image in, const float* w, PixelOutput<BFloat16> output, ProductShape shape,
                Wanted wanted) {
  using Output = OutputTile<BFloat16, StemTile>;
  constexpr int kWarpPixels = 32, kProducts = kWarpPixels / 16;
  __shared__ Piece<BFloat16> pieces[Output::kBytesOfChunk / kPieceBytes];
  const Output tile{pieces->element};
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const StemProduct product(in, w, shape);
  for (int64_t block = blockIdx.x; block < shape.row_tiles(); block += gridDim.x) {
    const ProductPlace at(shape, block);
    float sum[kProducts][kPanels][4];
#pragma unroll
    for (int i = 0; i < kProducts; ++i)
      product.multiply(at.m0 + warp * kWarpPixels + 16 * i, shape.M - 1, sum[i]);
#pragma unroll
    for (int i = 0; i < kProducts; ++i)
#pragma unroll
      for (int j = 0; j < kPanels; ++j)
        for (int half = 0; half < 2; ++half)
          tile.set(warp * kWarpPixels + 16 * i + lane / 4 + 8 * half, 8 * j + lane % 4 * 2,
                   sum[i][j][2 * half], sum[i][j][2 * half + 1]);
    __syncthreads();  // the tile is complete
    if constexpr (std::is_same_v<Wanted, NoSums>)
      tile.write(output, at, shape);
    else
      tile.write_chunk_of(output.y, at, shape, wanted);
    __syncthreads();  // and has been written: the next one takes its place
  }
}

// ---- weight gradient -------------------------------------------------------------------------------

constexpr int kWarps = kThreads / 32, kStepPixels = 16;  // of a warp

// What a lane loads of 16 pixels: of x its terms, of dy its channels, each of its pixels.
class StemStep {
 public:
  static constexpr int kPixels = kStepPixels / 4, kLaneTerms = kStemTerms / 8;
  static constexpr int kChannelsAtOnce = 8;

  // From pixel p on; zeros from `end` on.
  __device__ void read(const Image& in, const Term (&term)[kLaneTerms], const BFloat16* dy, int OC,
                       int p, int end) {
    const int lane = threadIdx.x % 32, first = p + lane % 4 * kPixels;
    const int channel = lane / 4 * kChannelsAtOnce;
    Image::Position at = in.position(first);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const bool exists = first + i < end;
      Image::Pixel pixel = in.pixel(at);
      if (!exists) pixel.row = in.H;
      for (int q = 0; q < kLaneTerms; ++q) x_[q][i] = number_at(in, pixel, term[q]);
      dy_[i] = exists && channel < OC
                   ? load<kChannelsAtOnce>(dy + int64_t{first + i} * OC + channel)
                   : Channels{};
      in.advance(at, 1);
    }
  }

  // sum[i][j] += what 16 terms from 16·i on and the j-th channels of all lanes make.
  __device__ void multiply(float (&sum)[kStemTerms / 16][kPanels][4]) const {
#pragma unroll
    for (int j = 0; j < kPanels; ++j) {
      const uint32_t b[2] = {packed(dy_[0][j], dy_[1][j]), packed(dy_[2][j], dy_[3][j])};
      for (int i = 0; i < kStemTerms / 16; ++i) {
        const auto& upper = x_[2 * i];
        const auto& lower = x_[2 * i + 1];
        mma_m16n8k16_bf16(sum[i][j],
                          {packed(upper[0], upper[1]), packed(lower[0], lower[1]),
                           packed(upper[2], upper[3]), packed(lower[2], lower[3])},
                          b);
      }
    }
  }

 private:
  using Channels = Vector<BFloat16, kChannelsAtOnce>;
  BFloat16 x_[kLaneTerms][kPixels];
  Channels dy_[kPixels];
};

// shape: of one tile, the blocks share K, the pixels.          dw: [M, N], or such a matrix for each block
__global__ void __launch_bounds__(kThreads, 1)
    stem_weight_gradient_kernel(Image in, const BFloat16* dy, MatrixOutput<float> dw,
                                ProductShape shape) {
  const ProductPlace at(shape);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Term term[StemStep::kLaneTerms];
  for (int q = 0; q < StemStep::kLaneTerms; ++q) term[q] = term_of(in, 8 * q + lane / 4, shape.M);
  float sum[kStemTerms / 16][kPanels][4] = {};
  const auto step_from = [&](int p) {
    StemStep step;
    step.read(in, term, dy, shape.N, p, at.k_end);
    return step;
  };
  int p = at.k_begin + warp * kStepPixels;
  StemStep next = step_from(p);
  for (; p < at.k_end; p += kWarps * kStepPixels) {
    const StemStep now = next;
    next = step_from(p + kWarps * kStepPixels);
    now.multiply(sum);
  }
  // Each warp's, [term][channel].
  float* const shared = shared_memory<float>();
#pragma unroll
  for (int i = 0; i < kStemTerms / 16; ++i)
#pragma unroll
    for (int j = 0; j < kPanels; ++j)
      for (int e = 0; e < 4; ++e) {
        const int k = 16 * i + lane / 4 + e / 2 * 8, o = (lane % 4 * 2 + e % 2) * 8 + j;
        shared[(warp * kStemTerms + k) * kStemChannels + o] = sum[i][j][e];
      }
  __syncthreads();
  for (int i = threadIdx.x; i < shape.M * kStemChannels; i += kThreads) {
    if (i % kStemChannels >= shape.N) continue;
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += shared[w * kStemTerms * kStemChannels + i];
    dw.row(at.split, i / kStemChannels)[i % kStemChannels] = total;
  }
}

}  // namespace

// ---- launching -------------------------------------------------------------------------------------

bool takes_stem(const Tensor& x, const Tensor& w) {
  return x.dtype() == DType::bf16 && x.numel() < int64_t{1} << 31 &&
         w.dim(2) % kPiece<BFloat16> != 0 && w.dim(0) * w.dim(1) * w.dim(2) <= kStemTerms &&
         w.dim(3) <= kStemChannels;
}

bool weight_gradient_takes_stem(const Tensor& x, const Tensor& dy, const Tensor& dw) {
  return takes_stem(x, dw) && dy.numel() / dw.dim(3) < int64_t{1} << 30 &&
         dw.dim(3) % StemStep::kChannelsAtOnce == 0 && begins_a_piece(dy.raw<BFloat16>());
}

bool stem_conv2d(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y,
                 const WantedSums& wanted) {
  const int64_t OC = w.dim(3), pixels = y.numel() / OC;
  const Image in = forward_correlation<BFloat16>(x, w.dim(1), config, y);
  const auto output = all_pixels<BFloat16>(y, y.raw<BFloat16>());
  const ProductShape shape(pixels, OC, w.numel() / OC, StemTile::kRows, StemTile::kColumns,
                           kStemTerms);
  const Grid grid =
      blocks_of(StemTile::kThreads,
                std::min<int64_t>(shape.blocks(), int64_t{multiprocessors()} * StemTile::kBlocks));
  return with_sums(wanted, output.y, pixels, OC, StemTile::kRows, [&](const auto& sums) {
    launch(stem_kernel<std::decay_t<decltype(sums)>>, grid, in, w.raw<float>(), output, shape,
           sums);
  });
}

void stem_weight_gradient(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                          const Tensor& dw) {
  const int64_t OC = dw.dim(3), terms = dw.numel() / OC;
  const Image in = forward_correlation<BFloat16>(x, dw.dim(1), config, dy);
  ProductShape shape(terms, OC, dy.numel() / OC, kStemTerms, kStemChannels, kWarps * kStepPixels);
  shape.share_k_on(kMultiprocessors, 1);
  Grid grid = blocks_of(kThreads, shape.blocks());
  grid.dynamic_shared_bytes = kWarps * kStemTerms * kStemChannels * sizeof(float);
  write_or_add_parts(shape, dw.raw<float>(), [&](const MatrixOutput<float>& output) {
    launch(stem_weight_gradient_kernel, grid, in, dy.raw<BFloat16>(), output, shape);
  });
}

}  // namespace mocograd::MOCO_CUDA
