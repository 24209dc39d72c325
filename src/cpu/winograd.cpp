// Forward and data gradient of winograd.h.
//
//   V = Bᵀ x B    kElements² × [tiles, C]      transformed patches
//   U = G w Gᵀ    36 × [C, OC]                 transformed weights
//   M = V U       kElements² × [tiles, OC]     as many matrix products
//   y = Aᵀ M A    tile by tile
//
// Blocks of tiles outermost, where there are many tiles: U is made once; then for each block of
// some 28 tiles, 14 with stride 2, V of all channels, which stays in the L2 cache, and for one panel
// of output channels after the other M and y. Panels outermost, where there are more channels than
// tiles: V of all tiles is made once, and for each panel U, in pieces of 128 channels that stay in
// the cache, M and y. In both, one task writes only its own pixels or channels of y, and each number
// of M is summed over c in order, so the result does not depend on the order chosen or the threads.
#include "cpu/winograd.h"

#include "cpu/packed_panels.h"
#include "cpu/winograd_outputs.h"

namespace mocograd::MOCO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 14;  // tiles × two vectors: the products' accumulators, 28 of 32 registers
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
// So many that V of 128 channels is some 512 KiB, in whole strips.
template <class F>
constexpr int64_t kBlockTiles = 1134 / kProducts<F> / kRows* kRows;
constexpr int64_t kPieceChannels = 128;
constexpr int64_t kRowsAhead = 8;      // of weights that are prefetched, to be transformed
constexpr int64_t kFactorsAhead = 16;  // and transformed, to be multiplied

enum ScratchSlot { kSharedSlot, kPatchSlot, kWeightSlot, kProductSlot, kZeroSlot, kSumsSlot };

template <class F, class Stored>  // Stored: of x and y
struct Convolution {
  TileGrid<F> grid;
  const Stored* x;
  int64_t C;
  const float* w;
  bool flipped;  // w is [3, 3, OC, C] and its taps are in reverse order: the data gradient's
  Stored* y;
  int64_t OC;

  MOCO_ALWAYS_INLINE int64_t panels() const { return ceil_div(OC, kPanel); }
  MOCO_ALWAYS_INLINE int64_t width(int64_t panel) const {
    return smaller(kPanel, OC - panel * kPanel);
  }
};

// ---- U -----------------------------------------------------------------------------------------

// The nine taps of a square of channels in reverse order, each transposed.
[[gnu::noinline]] void flip_taps(const float* w, int64_t tap_stride, int64_t row_stride,
                                 float* flipped) {
  for (int t = 8; t >= 0; --t, flipped += kGroup * kGroup) {
    const float* tap = w + t * tap_stride;
    Vector row[kGroup];
#pragma GCC unroll 16
    for (int i = 0; i < kGroup; ++i) {
      row[i] = load(tap + i * row_stride);
      __builtin_prefetch(tap + i * row_stride + kGroup);
    }
    transpose<float>(row);
#pragma GCC unroll 16
    for (int i = 0; i < kGroup; ++i) store(flipped + i * kGroup, row[i]);
  }
}

// G w Gᵀ of one vector of output channels: tap t at w + t·tap_stride, element e to u + e·stride.
template <class F>
MOCO_ALWAYS_INLINE void transform_taps(const float* w, int64_t tap_stride, float* u,
                                       int64_t stride) {
  Vector half[3][kWeights];
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    Vector row[3];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) row[j] = load(w + (i * 3 + j) * tap_stride);
    F::weight(row, half[i]);
  }
#pragma GCC unroll 6
  for (int j = 0; j < kWeights; ++j) {
    const Vector column[3] = {half[0][j], half[1][j], half[2][j]};
    Vector e[kWeights];
    F::weight(column, e);
#pragma GCC unroll 6
    for (int i = 0; i < kWeights; ++i) store(u + (i * kWeights + j) * stride, e[i]);
  }
}

// U of input channels [begin, end) and one panel: [element][c][width].
template <class F, class Stored>
void transform_weights(const Convolution<F, Stored>& conv, int64_t panel, int64_t begin,
                       int64_t end, float* u) {
  const int64_t width = conv.width(panel), stride = element_stride((end - begin) * width);
  const int64_t tap_stride = conv.C * conv.OC;
  alignas(64) float flipped[9 * kGroup * kGroup];
  for (int64_t c0 = begin; c0 < end; c0 += kGroup) {
    for (int64_t j = 0; j < width; j += kGroup) {
      const int64_t oc = panel * kPanel + j;
      float* target = u + (c0 - begin) * width + j;
      if (conv.flipped) {
        flip_taps(conv.w + oc * conv.C + c0, tap_stride, conv.C, flipped);
        for (int c = 0; c < kGroup; ++c)
          transform_taps<F>(flipped + c * kGroup, kGroup * kGroup, target + c * width, stride);
        continue;
      }
      const float* w = conv.w + c0 * conv.OC + oc;
      for (int c = 0; c < kGroup; ++c, w += conv.OC) {
        // Into L2 only: the rows of all taps may belong to the same few sets of L1.
        for (int t = 0; t < 9; ++t)
          __builtin_prefetch(w + t * tap_stride + kRowsAhead * conv.OC, 0, 2);
        transform_taps<F>(w, tap_stride, target + c * width, stride);
      }
    }
  }
}

// ---- M -----------------------------------------------------------------------------------------

// m[i][·] (+)= Σ_c v[c][i] · u[c][·] for MR tiles, NV vectors and `groups` groups of channels.
// v: [group][tile][channel]; u: [c][NV vectors]; m: [tile][NV vectors]. Both factors come from the L2
// cache: left to the processor's own prefetching the products took up to a fifth longer.
template <int MR, int NV>
[[gnu::noinline]] void product_tile(const float* v, int64_t groups, const float* u, float* m,
                                    bool first) {
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sum[i][j] = first ? Vector{} : load(m + (i * NV + j) * kGroup);
  }
  for (int64_t group = 0; group < groups; ++group, v += MR * kGroup) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) __builtin_prefetch(v + (MR + i) * kGroup);
#pragma GCC unroll 2
    for (int k = 0; k < kGroup; ++k, u += NV * kGroup) {
      Vector b[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) {
        __builtin_prefetch(u + (kFactorsAhead * NV + j) * kGroup);
        b[j] = load(u + j * kGroup);
      }
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Vector factor = broadcast(v[i * kGroup + k]);
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) sum[i][j] += factor * b[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) store(m + (i * NV + j) * kGroup, sum[i][j]);
  }
}

// product_tile for a number of tiles that is known only now. Requires: 1 <= tiles <= MR.
template <int MR, int NV>
MOCO_ALWAYS_INLINE void product_of(int64_t tiles, const float* v, int64_t groups, const float* u,
                                   float* m, bool first) {
  if constexpr (MR > 1) {
    if (tiles < MR) return product_of<MR - 1, NV>(tiles, v, groups, u, m, first);
  }
  product_tile<MR, NV>(v, groups, u, m, first);
}

// V of a block of tiles, cut into strips as even as can be, of at most kRows, for product_tile:
// [element][strip][group of C channels][tile][channel].
template <class F>
struct StripedPatches {
  int64_t tiles, C, strips, stride;
  float* v;

  MOCO_ALWAYS_INLINE StripedPatches(int slot, int64_t tiles, int64_t C)
      : tiles(tiles),
        C(C),
        strips(ceil_div(tiles, kRows)),
        stride(element_stride(tiles * C)),
        v(scratch_of<float>(slot, kProducts<F> * stride)) {}

  MOCO_ALWAYS_INLINE int64_t begin(int64_t strip) const { return tiles * strip / strips; }
  MOCO_ALWAYS_INLINE float* at(int64_t strip) const { return v + begin(strip) * C; }

  // Makes one strip of a block that begins with tile `first`.
  template <class Stored>
  MOCO_ALWAYS_INLINE void transform(const Convolution<F, Stored>& conv, int64_t first,
                                    int64_t strip) const {
    transform_patches(conv.grid, conv.x, C, C / kGroup, first + begin(strip),
                      first + begin(strip + 1), scratch_zeros<F, Stored>(kZeroSlot, C), at(strip),
                      stride);
  }
};

// Fetches a panel of y into the cache during the products, a few lines with each step: writing
// alone would wait for it. As tiles are numbered along the rows, tiles [begin, end) are, but for
// the ends of the rows, the pixels [kTile²·begin, kTile²·end).
template <class F, class Stored>
class Prefetch {
 public:
  MOCO_ALWAYS_INLINE Prefetch() = default;  // of nothing
  // Of each pixel's OC channels the first `width` from y on, which is in pixel 0, in `steps` steps.
  MOCO_ALWAYS_INLINE Prefetch(const Stored* y, int64_t OC, int64_t width, int64_t begin,
                              int64_t end, int64_t steps)
      : y_(y + F::kTile * F::kTile * begin * OC),
        OC_(OC),
        width_(width),
        pixels_(F::kTile * F::kTile * (end - begin)),
        per_step_(ceil_div(pixels_, steps)) {}

  MOCO_ALWAYS_INLINE void step() {
    for (int64_t i = smaller(per_step_, pixels_); i > 0; --i, --pixels_, y_ += OC_) {
      for (int64_t j = 0; j < width_; j += kLine) __builtin_prefetch(y_ + j);
    }
  }

 private:
  static constexpr int64_t kLine = 64 / sizeof(Stored);  // numbers in a cache line

  const Stored* y_ = nullptr;
  int64_t OC_ = 0, width_ = 0, pixels_ = 0, per_step_ = 0;
};

// M of all tiles of `patches` and one panel of NV vectors, summed over the channels [c, c + depth);
// added to what it was unless c is 0. u: [weight][c][NV vectors]; m: [element][tile][NV vectors].
// y is fetched meanwhile.
template <int NV, class F, class Stored>
void multiply(const StripedPatches<F>& patches, int64_t c, int64_t depth, const float* u, float* m,
              Prefetch<F, Stored> y) {
  const int64_t u_stride = element_stride(depth * NV * kGroup);
  const int64_t m_stride = element_stride(patches.tiles * NV * kGroup);
  for (int e = 0; e < kProducts<F>; ++e, m += m_stride) {
    const int weight = F::weight_of(e / F::kElements) * kWeights + F::weight_of(e % F::kElements);
    for (int64_t strip = 0; strip < patches.strips; ++strip) {
      const int64_t begin = patches.begin(strip), tiles = patches.begin(strip + 1) - begin;
      y.step();
      product_of<kRows, NV>(tiles, patches.at(strip) + e * patches.stride + c * tiles,
                            depth / kGroup, u + weight * u_stride, m + begin * NV * kGroup, c == 0);
    }
  }
}

template <class F, class Stored>
MOCO_ALWAYS_INLINE void multiply(const StripedPatches<F>& patches, int64_t c, int64_t depth,
                                 const float* u, int64_t width, float* m, Prefetch<F, Stored> y) {
  if (width == kPanel) {
    multiply<2>(patches, c, depth, u, m, y);
  } else {
    multiply<1>(patches, c, depth, u, m, y);
  }
}

// ---- the two orders ----------------------------------------------------------------------------

template <class F, class Stored, class Epilogue>
void blocks_outermost(const Convolution<F, Stored>& conv, const TileChunks<F>& chunks,
                      const Epilogue& epilogue) {
  const int64_t panel_numel = kWeights * kWeights * element_stride(conv.C * kPanel);
  float* u = scratch_of<float>(kSharedSlot, conv.panels() * panel_numel);
  parallel_tasks(conv.panels(), [&](int64_t panel) {
    transform_weights(conv, panel, 0, conv.C, u + panel * panel_numel);
  });
  parallel_tasks(chunks.blocks.count, [&](int64_t block) {
    const int64_t begin = chunks.blocks.begin(block), end = chunks.blocks.begin(block + 1);
    const StripedPatches<F> patches(kPatchSlot, end - begin, conv.C);
    for (int64_t strip = 0; strip < patches.strips; ++strip) patches.transform(conv, begin, strip);
    float* m =
        scratch_of<float>(kProductSlot, kProducts<F> * element_stride(patches.tiles * kPanel));
    for (int64_t panel = 0; panel < conv.panels(); ++panel) {
      const int64_t width = conv.width(panel);
      const Prefetch<F, Stored> y(conv.y + panel * kPanel, conv.OC, width, begin, end,
                                  kProducts<F> * patches.strips);
      multiply(patches, 0, conv.C, u + panel * panel_numel, width, m, y);
      transform_outputs(chunks, block, epilogue, conv.OC, panel * kPanel, width, m,
                        element_stride(patches.tiles * width));
    }
  });
}

template <class F, class Stored, class Epilogue>
void panels_outermost(const Convolution<F, Stored>& conv, const TileChunks<F>& chunks,
                      const Epilogue& epilogue) {
  const int64_t tiles = conv.grid.count;
  const StripedPatches<F> patches(kSharedSlot, tiles, conv.C);
  parallel_tasks(patches.strips, [&](int64_t strip) { patches.transform(conv, 0, strip); });
  parallel_tasks(conv.panels(), [&](int64_t panel) {
    const int64_t width = conv.width(panel);
    float* u = scratch_of<float>(kWeightSlot,
                                 kWeights * kWeights * element_stride(kPieceChannels * kPanel));
    float* m = scratch_of<float>(kProductSlot, kProducts<F> * element_stride(tiles * kPanel));
    for (int64_t c = 0; c < conv.C; c += kPieceChannels) {
      const int64_t end = smaller(conv.C, c + kPieceChannels);
      transform_weights(conv, panel, c, end, u);
      multiply(patches, c, end - c, u, width, m, Prefetch<F, Stored>());
    }
    for (int64_t block = 0; block < chunks.blocks.count; ++block) {
      transform_outputs(chunks, block, epilogue, conv.OC, panel * kPanel, width,
                        m + chunks.blocks.begin(block) * width, element_stride(tiles * width));
    }
  });
}

template <class F, class Stored, class Epilogue>
void convolve(const Convolution<F, Stored>& conv, const TileChunks<F>& chunks,
              const Epilogue& epilogue) {
  if (conv.grid.count < conv.OC) {
    panels_outermost(conv, chunks, epilogue);
  } else {
    blocks_outermost(conv, chunks, epilogue);
  }
}

// The convolution of x, C channels, with w: [3, 3, C, OC], or flipped.
template <class F, class Stored>
Convolution<F, Stored> convolution(const Tensor& x, const Tensor& w, bool flipped,
                                   const Tensor& y) {
  return {TileGrid<F>(x, y), x.raw<Stored>(), x.dim(3), w.raw<float>(),
          flipped,           y.raw<Stored>(), y.dim(3)};
}

template <class F, class Stored>
MOCO_ALWAYS_INLINE TileChunks<F> chunks_of(const Convolution<F, Stored>& conv, int64_t groups) {
  return {conv.grid, EvenParts{conv.grid.count, ceil_div(conv.grid.count, kBlockTiles<F>)}, groups};
}

template <class F, class Stored>
void store_alone(const Convolution<F, Stored>& conv) {
  convolve(conv, chunks_of(conv, 1), StoreOnly<Stored>{conv.y});
}

template <class F, class Stored>
void store_with_statistics(const Convolution<F, Stored>& conv, const Tensor& mean,
                           const Tensor& var) {
  const TileChunks<F> chunks = chunks_of(conv, mean.dim(0));
  const int64_t C = conv.OC, partial = kStatisticsSums * C;
  float* const partials = scratch_of<float>(kSumsSlot, chunks.count() * partial);
  convolve(conv, chunks, StoreWithStatistics<Stored>{conv.y, partials, C});
  chunks.for_each_group([&](int64_t g, int64_t first, int64_t count, const auto& pixels_of) {
    combine_statistics(partials + first * partial, count, C, pixels_of, mean.raw<float>() + g * C,
                       var.raw<float>() + g * C);
  });
}

template <class F, class Stored>
void store_with_sums(const Convolution<F, Stored>& conv, const Tensor& h, const Tensor& x,
                     const Tensor& mean, const Tensor& sums) {
  const TileChunks<F> chunks = chunks_of(conv, mean.dim(0));
  const int64_t C = conv.OC, partial = kGradientSums * C;
  float* const partials = scratch_of<float>(kSumsSlot, chunks.count() * partial);
  convolve(conv, chunks,
           StoreWithGradientSums<Stored>{conv.y, partials, C, h.raw<Stored>(), x.raw<Stored>(),
                                         mean.raw<float>()});
  chunks.for_each_group([&](int64_t g, int64_t first, int64_t count, const auto&) {
    combine_gradient_sums(partials + first * partial, count, C, sums.raw<float>() + g * partial);
  });
}

// f(convolution) by Stride1 or Strided, as the stride asks.
template <class Strided, class Function>
void with_convolution(const Tensor& x, const Tensor& w, bool flipped, int64_t stride,
                      const Tensor& y, const Function& f) {
  with_stored_type(x.dtype(), [&](auto zero) {
    using Stored = decltype(zero);
    if (stride == 1) return f(convolution<Stride1, Stored>(x, w, flipped, y));
    f(convolution<Strided, Stored>(x, w, flipped, y));
  });
}

}  // namespace

void winograd_forward(const Tensor& x, const Tensor& w, int64_t stride, const Tensor& y) {
  with_convolution<Stride2>(x, w, false, stride, y, [](const auto& conv) { store_alone(conv); });
}

void winograd_backward_data(const Tensor& dy, const Tensor& w, int64_t stride, const Tensor& dx) {
  with_convolution<Stride2Data>(dy, w, true, stride, dx,
                                [](const auto& conv) { store_alone(conv); });
}

void winograd_forward_statistics(const Tensor& x, const Tensor& w, int64_t stride, const Tensor& y,
                                 const Tensor& mean, const Tensor& var) {
  with_convolution<Stride2>(x, w, false, stride, y,
                            [&](const auto& conv) { store_with_statistics(conv, mean, var); });
}

void winograd_backward_data_sums(const Tensor& dy, const Tensor& w, int64_t stride, const Tensor& h,
                                 const Tensor& x, const Tensor& mean, const Tensor& dz,
                                 const Tensor& sums) {
  with_convolution<Stride2Data>(dy, w, true, stride, dz,
                                [&](const auto& conv) { store_with_sums(conv, h, x, mean, sums); });
}

}  // namespace mocograd::MOCO_ISA
