// The weight gradient of winograd.h:
//   dw = Gᵀ [ Σ_tiles V ⊙ Z ] G        V = Bᵀ x B: 36 × [tiles, C];  Z = A dy Aᵀ: 36 × [tiles, OC]
//
// The sums are 36 products Vᵀ Z. They are cut into tasks that share nothing: a block of C, a block
// of OC, and a part of the tiles. A task takes some tiles at a time, as many as keep V and Z near
// the cache, then for 32 × 32 weights after the other all 36 products, and Gᵀ(·)G of them is added
// to its sum of dw. Where there are several parts each has its own sum and they are added at the
// end in their order, so the result depends on the shapes only.
#include "cpu/parallel.h"
#include "cpu/winograd.h"
#include "cpu/winograd_tiles.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kColumns = 2 * kGroup;
constexpr int64_t kUnitRows =
    64;  // input channels of the weights whose 36 products are held at a time
constexpr int64_t kBlockChannels = 256;  // C of a task
constexpr int64_t kBlockColumns = 128;   // OC of a task
constexpr int64_t kPatchBytes = 1200 << 10;
constexpr int64_t kMinTasks = 8;

enum ScratchSlot { kSumSlot, kPatchSlot, kGradientSlot, kProductSlot, kZeroSlot };

MOCO_ALWAYS_INLINE float* floats(int slot, int64_t count) {
  return static_cast<float*>(scratch(slot, static_cast<size_t>(count) * sizeof(float)));
}

// Z of one tile: element (i, j) of 36 at z + (6i + j)·stride.
template <bool whole>
[[gnu::noinline]] void gradient_tile(const float* dy, int64_t row_stride, int64_t OC, int64_t rows,
                                     int64_t columns, float* z, int64_t stride) {
  Vector half[kPatch][kTile];
#pragma GCC unroll 4
  for (int j = 0; j < kTile; ++j) {
    Vector d[kTile], e[kPatch];
#pragma GCC unroll 4
    for (int i = 0; i < kTile; ++i)
      d[i] = whole || (i < rows && j < columns) ? load(dy + i * row_stride + j * OC) : Vector{};
    gradient_transform(d, e);
#pragma GCC unroll 6
    for (int i = 0; i < kPatch; ++i) half[i][j] = e[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kPatch; ++i) {
    Vector e[kPatch];
    gradient_transform(half[i], e);
#pragma GCC unroll 6
    for (int j = 0; j < kPatch; ++j) store(z + (i * kPatch + j) * stride, e[j]);
  }
}

struct Shapes {
  TileGrid grid;
  const float *x, *dy;
  float* dw;
  int64_t C, OC;
};

// A task's share: channels [c, c + channels), [oc, oc + columns) and tiles [begin, end).
struct Share {
  int64_t c, channels, oc, columns, begin, end;
};

// [element][panel][tile][column of the panel]
struct GradientLayout {
  int64_t tiles, columns;

  MOCO_ALWAYS_INLINE int64_t width(int64_t j) const { return smaller(kColumns, columns - j); }
  MOCO_ALWAYS_INLINE int64_t element_stride() const { return tiles * columns + kGroup; }
};

void transform_gradients(const Shapes& s, const Share& share, int64_t begin, int64_t end,
                         const GradientLayout& layout, float* z) {
  for (int64_t tile = begin; tile < end; ++tile) {
    const TileGrid::Place place = s.grid.place(tile);
    const float* dy = s.dy + s.grid.pixel(place) * s.OC + share.oc;
    const int64_t rows = s.grid.H - place.h, columns = s.grid.W - place.w;
    for (int64_t j = 0; j < share.columns; j += kGroup) {
      const int64_t panel = j / kColumns * kColumns, width = layout.width(panel);
      float* target = z + panel * layout.tiles + (tile - begin) * width + j - panel;
      if (rows >= kTile && columns >= kTile) {
        gradient_tile<true>(dy + j, s.grid.W * s.OC, s.OC, rows, columns, target,
                            layout.element_stride());
      } else {
        gradient_tile<false>(dy + j, s.grid.W * s.OC, s.OC, rows, columns, target,
                             layout.element_stride());
      }
    }
  }
}

// d[r][·] = Σ_t v[t][r] · z[t][·], r < MR, NV vectors.
template <int MR, int NV>
[[gnu::noinline]] void product_tile(const float* v, const float* z, int64_t tiles, float* d) {
  Vector sum[MR][NV] = {};
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

// All 36 products of `rows` channels with one panel: d[element][row][column].
template <int NV>
void products(const PatchLayout& layout, const float* v, int64_t rows, const float* z,
              int64_t z_stride, float* d, int64_t d_stride) {
  constexpr int kRows = static_cast<int>(kGroup < 16 / NV ? kGroup : 16 / NV);
  for (int e = 0; e < kProducts; ++e, v += layout.element_stride(), z += z_stride, d += d_stride) {
    for (int64_t r = 0; r < rows; r += kRows)
      product_tile<kRows, NV>(v + r / kGroup * layout.group_stride() + r % kGroup, z, layout.tiles,
                              d + r * NV * kGroup);
  }
}

// dw (+)= Gᵀ d G for one vector of weights.
[[gnu::noinline]] void weight_tile(const float* d, int64_t d_stride, float* dw, int64_t tap_stride,
                                   bool first) {
  Vector half[3][kPatch];
#pragma GCC unroll 6
  for (int j = 0; j < kPatch; ++j) {
    Vector e[kPatch], r[3];
#pragma GCC unroll 6
    for (int i = 0; i < kPatch; ++i) e[i] = load(d + (i * kPatch + j) * d_stride);
    weight_gradient_transform(e, r);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) half[i][j] = r[i];
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    Vector r[3];
    weight_gradient_transform(half[i], r);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      float* target = dw + (i * 3 + j) * tap_stride;
      store(target, first ? r[j] : load(target) + r[j]);
    }
  }
}

void accumulate(const Shapes& s, const Share& share, float* dw) {
  const int64_t per_tile = kProducts * (share.channels + share.columns) * 4;
  const int64_t chunk = larger(32, kPatchBytes / per_tile);
  const int64_t chunks = ceil_div(share.end - share.begin, chunk);
  const int64_t d_stride = kUnitRows * kColumns + kGroup;
  float* d = floats(kProductSlot, kProducts * d_stride);
  float* zeros = floats(kZeroSlot, kPatch * s.C);
  __builtin_memset(zeros, 0, static_cast<size_t>(kPatch * s.C) * sizeof(float));
  for (int64_t index = 0; index < chunks; ++index) {
    const int64_t tiles = share.end - share.begin;
    const int64_t begin = share.begin + tiles * index / chunks;
    const int64_t end = share.begin + tiles * (index + 1) / chunks;
    const PatchLayout layout{end - begin, share.channels / kGroup};
    const GradientLayout z_layout{end - begin, share.columns};
    float* v = floats(kPatchSlot, layout.bytes() / 4);
    float* z = floats(kGradientSlot, kProducts * z_layout.element_stride());
    transform_patches(s.grid, s.x + share.c, s.C, begin, end, layout, zeros, v);
    transform_gradients(s, share, begin, end, z_layout, z);
    for (int64_t c = 0; c < share.channels; c += kUnitRows) {
      const int64_t rows = smaller(kUnitRows, share.channels - c);
      const float* unit_v = v + c / kGroup * layout.group_stride();
      for (int64_t j = 0; j < share.columns; j += kColumns) {
        const int64_t width = z_layout.width(j);
        const float* unit_z = z + j * layout.tiles;
        if (width == kColumns) {
          products<2>(layout, unit_v, rows, unit_z, z_layout.element_stride(), d, d_stride);
        } else {
          products<1>(layout, unit_v, rows, unit_z, z_layout.element_stride(), d, d_stride);
        }
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < width; k += kGroup)
            weight_tile(d + r * width + k, d_stride,
                        dw + (share.c + c + r) * s.OC + share.oc + j + k, s.C * s.OC, index == 0);
        }
      }
    }
  }
}

}  // namespace

void winograd_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw) {
  const Shapes s{TileGrid(x),     x.raw<float>(), dy.raw<float>(),
                 dw.raw<float>(), dw.dim(2),      dw.dim(3)};
  const int64_t c_blocks = ceil_div(s.C, kBlockChannels), oc_blocks = ceil_div(s.OC, kBlockColumns);
  const int64_t blocks = c_blocks * oc_blocks;
  const int64_t parts = smaller(s.grid.count, ceil_div(kMinTasks, blocks));
  const int64_t numel = 9 * s.C * s.OC;
  float* sums = parts == 1 ? s.dw : floats(kSumSlot, parts * numel);
  parallel_tasks(parts * blocks, [&](int64_t task) {
    const int64_t part = task / blocks, block = task % blocks;
    const int64_t c = block / oc_blocks * kBlockChannels, oc = block % oc_blocks * kBlockColumns;
    accumulate(s,
               {c, smaller(kBlockChannels, s.C - c), oc, smaller(kBlockColumns, s.OC - oc),
                s.grid.count * part / parts, s.grid.count * (part + 1) / parts},
               sums + part * numel);
  });
  if (parts == 1) return;
  parallel_tasks(9 * s.C, [&](int64_t row) {
    for (int64_t j = 0; j < s.OC; j += kGroup) {
      Vector sum = load(sums + row * s.OC + j);
      for (int64_t part = 1; part < parts; ++part)
        sum += load(sums + part * numel + row * s.OC + j);
      store(s.dw + row * s.OC + j, sum);
    }
  });
}

}  // namespace mocograd::MOCO_ISA
