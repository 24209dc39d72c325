// The weight gradient of winograd.h.
//
//   V = Bᵀ x B       kElements² × [tiles, C]      transformed patches
//   Z = A dy Aᵀ      kElements² × [tiles, OC]     transformed tiles of dy
//   D = Vᵀ Z         36 × [C, OC]                 as many matrix products, added up for each weight
//   dw = Gᵀ D G
//
// The work is cut into tasks that share nothing: a block of C, a block of OC, and a part of the
// tiles. A task takes some tiles at a time, so many that V and Z stay near the cache; for a unit of
// weights after the other it computes D and adds Gᵀ D G to its sum of dw. Where several parts have
// sums of the same weights, these are added in the end in the order of the parts. All of that
// depends on the shapes only, so the result does not depend on the threads.
#include "cpu/parallel.h"
#include "cpu/winograd.h"
#include "cpu/winograd_tiles.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kBlockRows = 256, kBlockColumns = 128;  // of C and OC: a task's weights at most
constexpr int64_t kUnitRows = 64;                         // × a panel: a unit of weights
constexpr int64_t kMinTasks = 8;
constexpr int64_t kChunkBytes = 600 << 10;  // of V and Z, but not less than
template <class F>  // tiles, 64 with stride 1, or Gᵀ D G would take too much of the time
constexpr int64_t kChunkTiles = 2304 / kProducts<F>;

enum ScratchSlot { kSumSlot, kPatchSlot, kGradientSlot, kProductSlot, kZeroSlot };

template <class F, class Stored>  // Stored: of x and dy
struct WeightGradient {
  TileGrid<F> grid;
  const Stored *x, *dy;
  int64_t C, OC;

  MOCO_ALWAYS_INLINE int64_t numel() const { return 9 * C * OC; }
};

// A task's weights [c, c + rows) × [oc, oc + columns) and its tiles.
struct Share {
  int64_t c, rows, oc, columns, first_tile, tiles;
};

// ---- Z -----------------------------------------------------------------------------------------

// A dy Aᵀ of one tile and group of channels: pixel (i, j) at dy + i·row_stride + j·OC where it is
// among the `rows` and `columns` of the image; `whole`: all are. Element e to z + e·stride.
template <class F, bool whole, class Stored>
[[gnu::noinline]] void gradient_tile(const Stored* dy, int64_t row_stride, int64_t OC, int64_t rows,
                                     int64_t columns, float* z, int64_t stride) {
  constexpr int T = F::kTile, E = F::kElements;
  Vector half[E][T];
#pragma GCC unroll 4
  for (int j = 0; j < T; ++j) {
    Vector d[T], column[E];
#pragma GCC unroll 4
    for (int i = 0; i < T; ++i)
      d[i] = whole || (i < rows && j < columns) ? load(dy + i * row_stride + j * OC) : Vector{};
    F::gradient(d, column);
#pragma GCC unroll 9
    for (int i = 0; i < E; ++i) half[i][j] = column[i];
  }
#pragma GCC unroll 9
  for (int i = 0; i < E; ++i) {
    Vector row[E];
    F::gradient(half[i], row);
#pragma GCC unroll 9
    for (int j = 0; j < E; ++j) store(z + (i * E + j) * stride, row[j]);
  }
}

// Z of the tiles [begin, end) and the share's columns: [element][panel][tile][column of the panel].
template <class F, class Stored>
void transform_gradients(const WeightGradient<F, Stored>& job, const Share& share, int64_t begin,
                         int64_t end, float* z) {
  const TileGrid<F>& grid = job.grid;
  const int64_t tiles = end - begin, stride = element_stride(tiles * share.columns);
  const int64_t row_stride = grid.W * job.OC;
  for (int64_t tile = begin; tile < end; ++tile) {
    const typename TileGrid<F>::Place place = grid.place(tile);
    const Stored* dy = job.dy + grid.pixel(place) * job.OC + share.oc;
    for (int64_t j = 0; j < share.columns; j += kGroup) {
      const int64_t panel = j / kPanel * kPanel, width = smaller(kPanel, share.columns - panel);
      float* target = z + panel * tiles + (tile - begin) * width + j - panel;
      if (grid.whole(place)) {
        gradient_tile<F, true>(dy + j, row_stride, job.OC, F::kTile, F::kTile, target, stride);
      } else {
        gradient_tile<F, false>(dy + j, row_stride, job.OC, grid.H - place.h, grid.W - place.w,
                                target, stride);
      }
    }
  }
}

// ---- D -----------------------------------------------------------------------------------------

// d[r][·] (+)= Σ_t v[t][r] · z[t][·] for MR input channels and NV vectors of output channels.
// v: [tile][channel of a group]; z: [tile][NV vectors]; d: [r][NV vectors].
template <int MR, int NV>
[[gnu::noinline]] void outer_product_tile(const float* v, const float* z, int64_t tiles, float* d,
                                          bool first) {
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sum[r][j] = first ? Vector{} : load(d + (r * NV + j) * kGroup);
  }
#pragma GCC unroll 2
  for (int64_t t = 0; t < tiles; ++t, v += kGroup, z += NV * kGroup) {
    Vector b[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) b[j] = load(z + j * kGroup);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const Vector factor = broadcast(v[r]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sum[r][j] += factor * b[j];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) store(d + (r * NV + j) * kGroup, sum[r][j]);
  }
}

// D of `rows` input channels and a panel of NV vectors: [weight][row][NV vectors], the sum over the
// elements of each weight. v: [element][group][tile][channel] with v_stride between elements, z
// likewise.
template <class F, int NV>
void multiply(const float* v, int64_t v_stride, const float* z, int64_t z_stride, int64_t tiles,
              int64_t rows, float* d) {
  constexpr int MR = kLanes<float> < 16 / NV ? kLanes<float> : 16 / NV;
  const int64_t d_stride = element_stride(rows * NV * kGroup);
  for (int e = 0; e < kProducts<F>; ++e, v += v_stride, z += z_stride) {
    const int i = e / F::kElements, j = e % F::kElements;
    float* const sum = d + (F::weight_of(i) * kWeights + F::weight_of(j)) * d_stride;
    const bool first = F::weight_of(i) == i && F::weight_of(j) == j;
    for (int64_t r = 0; r < rows; r += MR)
      outer_product_tile<MR, NV>(v + r / kGroup * tiles * kGroup + r % kGroup, z, tiles,
                                 sum + r * NV * kGroup, first);
  }
}

// ---- dw ----------------------------------------------------------------------------------------

// Gᵀ d G of one vector of weights: number e at d + e·stride; overwrites or is added to the taps
// dw + t·tap_stride.
template <class F>
[[gnu::noinline]] void weight_tile(const float* d, int64_t stride, float* dw, int64_t tap_stride,
                                   bool overwrite) {
  Vector half[3][kWeights];
#pragma GCC unroll 6
  for (int j = 0; j < kWeights; ++j) {
    Vector e[kWeights], column[3];
#pragma GCC unroll 6
    for (int i = 0; i < kWeights; ++i) e[i] = load(d + (i * kWeights + j) * stride);
    F::weight_gradient(e, column);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) half[i][j] = column[i];
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    Vector row[3];
    F::weight_gradient(half[i], row);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      float* target = dw + (i * 3 + j) * tap_stride;
      store(target, overwrite ? row[j] : load(target) + row[j]);
    }
  }
}

// The tiles [begin, end) of a share: overwrites its weights in dw, or adds to them.
template <class F, class Stored>
void accumulate(const WeightGradient<F, Stored>& job, const Share& share, int64_t begin,
                int64_t end, float* dw, bool overwrite) {
  const int64_t tiles = end - begin;
  const int64_t v_stride = element_stride(tiles * share.rows);
  const int64_t z_stride = element_stride(tiles * share.columns);
  float* v = scratch_of<float>(kPatchSlot, kProducts<F> * v_stride);
  float* z = scratch_of<float>(kGradientSlot, kProducts<F> * z_stride);
  float* d =
      scratch_of<float>(kProductSlot, kWeights * kWeights * element_stride(kUnitRows * kPanel));
  transform_patches(job.grid, job.x + share.c, job.C, share.rows / kGroup, begin, end,
                    scratch_zeros<F, Stored>(kZeroSlot, job.C), v, v_stride);
  transform_gradients(job, share, begin, end, z);
  for (int64_t i = 0; i < share.rows; i += kUnitRows) {
    const int64_t rows = smaller(kUnitRows, share.rows - i);
    for (int64_t j = 0; j < share.columns; j += kPanel) {
      const int64_t width = smaller(kPanel, share.columns - j);
      if (width == kPanel) {
        multiply<F, 2>(v + i * tiles, v_stride, z + j * tiles, z_stride, tiles, rows, d);
      } else {
        multiply<F, 1>(v + i * tiles, v_stride, z + j * tiles, z_stride, tiles, rows, d);
      }
      for (int64_t r = 0; r < rows; ++r) {
        float* row = dw + (share.c + i + r) * job.OC + share.oc + j;
        for (int64_t k = 0; k < width; k += kGroup)
          weight_tile<F>(d + r * width + k, element_stride(rows * width), row + k, job.C * job.OC,
                         overwrite);
      }
    }
  }
}

// dw = Σ sums[part], in this order.
template <class F, class Stored>
void add_sums(const WeightGradient<F, Stored>& job, const float* sums, int64_t parts, float* dw) {
  parallel_tasks(9 * job.C, [&](int64_t row) {
    for (int64_t i = row * job.OC; i < (row + 1) * job.OC; i += kGroup) {
      Vector sum = load(sums + i);
      for (int64_t part = 1; part < parts; ++part) sum += load(sums + part * job.numel() + i);
      store(dw + i, sum);
    }
  });
}

template <class F, class Stored>
void backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw) {
  const WeightGradient<F, Stored> job{TileGrid<F>(x, dy), x.raw<Stored>(), dy.raw<Stored>(),
                                      dw.dim(2), dw.dim(3)};
  const int64_t oc_blocks = ceil_div(job.OC, kBlockColumns);
  const int64_t blocks = ceil_div(job.C, kBlockRows) * oc_blocks;
  const EvenParts parts{job.grid.count, smaller(job.grid.count, ceil_div(kMinTasks, blocks))};
  float* sums =
      parts.count == 1 ? dw.raw<float>() : scratch_of<float>(kSumSlot, parts.count * job.numel());
  parallel_tasks(parts.count * blocks, [&](int64_t task) {
    const int64_t part = task / blocks, block = task % blocks;
    const int64_t c = block / oc_blocks * kBlockRows, oc = block % oc_blocks * kBlockColumns;
    const int64_t first = parts.begin(part);
    const Share share{c,     smaller(kBlockRows, job.C - c),
                      oc,    smaller(kBlockColumns, job.OC - oc),
                      first, parts.size(part)};
    const int64_t tile_bytes =
        kProducts<F> * (share.rows + share.columns) * static_cast<int64_t>(sizeof(float));
    const EvenParts chunks{share.tiles,
                           ceil_div(share.tiles, larger(kChunkTiles<F>, kChunkBytes / tile_bytes))};
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk)
      accumulate(job, share, first + chunks.begin(chunk), first + chunks.begin(chunk + 1),
                 sums + part * job.numel(), chunk == 0);
  });
  if (parts.count > 1) add_sums(job, sums, parts.count, dw.raw<float>());
}

}  // namespace

void winograd_backward_weight(const Tensor& x, const Tensor& dy, int64_t stride, const Tensor& dw) {
  with_stored_type(x.dtype(), [&](auto zero) {
    using Stored = decltype(zero);
    if (stride == 1) return backward_weight<Stride1, Stored>(x, dy, dw);
    backward_weight<Stride2, Stored>(x, dy, dw);
  });
}

}  // namespace mocograd::MOCO_ISA
