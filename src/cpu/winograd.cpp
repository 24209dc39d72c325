#include "cpu/winograd.h"

#include "cpu/parallel.h"
#include "cpu/winograd_tiles.h"

namespace mocograd::MOCO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 14;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
constexpr int64_t kColumns = 2 * kGroup;
constexpr int64_t kBlockTiles = 28;
constexpr int64_t kDepthChunk = 128;

enum ScratchSlot { kWeightSlot, kPatchSlot, kProductSlot, kZeroSlot };

struct Shapes {
  TileGrid grid;
  const float* x;
  const float* w;
  float* y;
  int64_t C, OC;
  bool transposed;

  MOCO_ALWAYS_INLINE int64_t panels() const { return ceil_div(OC, kColumns); }
  MOCO_ALWAYS_INLINE int64_t width(int64_t panel) const {
    return smaller(kColumns, OC - panel * kColumns);
  }
};

MOCO_ALWAYS_INLINE float* floats(int slot, int64_t count) {
  return static_cast<float*>(scratch(slot, static_cast<size_t>(count) * sizeof(float)));
}
MOCO_ALWAYS_INLINE const float* zeros_of(int64_t C) {
  float* zeros = floats(kZeroSlot, kPatch * C);
  __builtin_memset(zeros, 0, static_cast<size_t>(kPatch * C) * sizeof(float));
  return zeros;
}

MOCO_ALWAYS_INLINE int64_t weight_stride(int64_t depth, int64_t width) {
  return depth * width + kGroup;
}

[[gnu::noinline]] void transposed_taps(const float* w, int64_t tap_stride, int64_t row_stride,
                                       float* out) {
  for (int t = 0; t < 9; ++t)
    for (int64_t j = 0; j < kGroup; ++j)
      for (int64_t i = 0; i < kGroup; ++i)
        out[(t * kGroup + i) * kGroup + j] = w[(8 - t) * tap_stride + j * row_stride + i];
}

void transform_weights(const Shapes& s, int64_t panel, int64_t begin, int64_t end, float* u) {
  const int64_t width = s.width(panel), stride = weight_stride(end - begin, width);
  alignas(64) float taps[9 * kGroup * kGroup];
  for (int64_t c0 = begin; c0 < end; c0 += kGroup) {
    for (int64_t j = 0; j < width; j += kGroup) {
      const int64_t oc = panel * kColumns + j;
      if (s.transposed) transposed_taps(s.w + oc * s.C + c0, s.C * s.OC, s.C, taps);
      for (int64_t c = 0; c < kGroup; ++c) {
        Vector rows[3][kPatch];
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) {
          Vector w[3];
          for (int k = 0; k < 3; ++k)
            w[k] = load(s.transposed ? taps + ((i * 3 + k) * kGroup + c) * kGroup
                                     : s.w + ((i * 3 + k) * s.C + c0 + c) * s.OC + oc);
          weight_transform(w, rows[i]);
        }
        float* target = u + (c0 - begin + c) * width + j;
#pragma GCC unroll 6
        for (int k = 0; k < kPatch; ++k) {
          const Vector column[3] = {rows[0][k], rows[1][k], rows[2][k]};
          Vector e[kPatch];
          weight_transform(column, e);
          for (int i = 0; i < kPatch; ++i) store(target + (i * kPatch + k) * stride, e[i]);
        }
      }
    }
  }
}

template <int MR, int NV>
[[gnu::noinline]] void product_tile(const float* v, int64_t group_stride, int64_t groups,
                                    const float* u, float* m, bool first) {
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sum[i][j] = first ? Vector{} : load(m + (i * NV + j) * kGroup);
  }
  for (int64_t group = 0; group < groups; ++group, v += group_stride) {
#pragma GCC unroll 2
    for (int k = 0; k < kGroup; ++k, u += NV * kGroup) {
      Vector b[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) b[j] = load(u + j * kGroup);
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

template <int MR, int NV>
MOCO_ALWAYS_INLINE void product_rows(int64_t rows, const float* v, int64_t group_stride,
                                     int64_t groups, const float* u, float* m, bool first) {
  if constexpr (MR > 0) {
    if (rows == MR) {
      product_tile<MR, NV>(v, group_stride, groups, u, m, first);
    } else {
      product_rows<MR - 1, NV>(rows, v, group_stride, groups, u, m, first);
    }
  }
}

template <int NV>
MOCO_ALWAYS_INLINE void product(int64_t tiles, const float* v, int64_t group_stride, int64_t groups,
                                const float* u, float* m, bool first) {
  const int64_t parts = ceil_div(tiles, kRows);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = tiles * part / parts, end = tiles * (part + 1) / parts;
    product_rows<kRows, NV>(end - begin, v + begin * kGroup, group_stride, groups, u,
                            m + begin * NV * kGroup, first);
  }
}

void products(const PatchLayout& layout, int64_t tiles, const float* v, int64_t first_group,
              int64_t groups, const float* u, int64_t width, float* m, int64_t m_stride) {
  const int64_t u_stride = weight_stride(groups * kGroup, width);
  v += first_group * layout.group_stride();
  for (int e = 0; e < kProducts; ++e, v += layout.element_stride(), u += u_stride, m += m_stride) {
    if (width == kColumns) {
      product<2>(tiles, v, layout.group_stride(), groups, u, m, first_group == 0);
    } else {
      product<1>(tiles, v, layout.group_stride(), groups, u, m, first_group == 0);
    }
  }
}

template <bool whole>
[[gnu::noinline]] void output_tile(const float* m, int64_t m_stride, float* y, int64_t row_stride,
                                   int64_t OC, int64_t rows, int64_t columns) {
  Vector half[kTile][kPatch];
#pragma GCC unroll 6
  for (int j = 0; j < kPatch; ++j) {
    Vector e[kPatch], r[kTile];
#pragma GCC unroll 6
    for (int i = 0; i < kPatch; ++i) e[i] = load(m + (i * kPatch + j) * m_stride);
    output_transform(e, r);
#pragma GCC unroll 4
    for (int i = 0; i < kTile; ++i) half[i][j] = r[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTile; ++i) {
    Vector r[kTile];
    output_transform(half[i], r);
#pragma GCC unroll 4
    for (int j = 0; j < kTile; ++j)
      if (whole || (i < rows && j < columns)) store(y + i * row_stride + j * OC, r[j]);
  }
}

void transform_outputs(const Shapes& s, int64_t begin, int64_t end, int64_t panel, const float* m,
                       int64_t m_stride) {
  const int64_t width = s.width(panel);
  for (int64_t tile = begin; tile < end; ++tile) {
    const TileGrid::Place place = s.grid.place(tile);
    float* y = s.y + s.grid.pixel(place) * s.OC + panel * kColumns;
    const int64_t rows = s.grid.H - place.h, columns = s.grid.W - place.w;
    for (int64_t j = 0; j < width; j += kGroup, m += kGroup) {
      if (rows >= kTile && columns >= kTile) {
        output_tile<true>(m, m_stride, y + j, s.grid.W * s.OC, s.OC, rows, columns);
      } else {
        output_tile<false>(m, m_stride, y + j, s.grid.W * s.OC, s.OC, rows, columns);
      }
    }
  }
}

void blocks_outer(const Shapes& s) {
  const int64_t panel_numel = kProducts * weight_stride(s.C, kColumns);
  float* u = floats(kWeightSlot, s.panels() * panel_numel);
  parallel_tasks(s.panels(), [&](int64_t panel) {
    transform_weights(s, panel, 0, s.C, u + panel * panel_numel);
  });
  const int64_t blocks = ceil_div(s.grid.count, kBlockTiles);
  parallel_tasks(blocks, [&](int64_t block) {
    const int64_t begin = s.grid.count * block / blocks, end = s.grid.count * (block + 1) / blocks;
    const PatchLayout layout{end - begin, s.C / kGroup};
    float* v = floats(kPatchSlot, layout.bytes() / 4);
    const int64_t m_stride = (end - begin) * kColumns + kGroup;
    float* m = floats(kProductSlot, kProducts * m_stride);
    transform_patches(s.grid, s.x, s.C, begin, end, layout, zeros_of(s.C), v);
    for (int64_t panel = 0; panel < s.panels(); ++panel) {
      products(layout, end - begin, v, 0, layout.groups, u + panel * panel_numel, s.width(panel), m,
               m_stride);
      transform_outputs(s, begin, end, panel, m, m_stride);
    }
  });
}

void panels_outer(const Shapes& s) {
  const PatchLayout layout{s.grid.count, s.C / kGroup};
  float* v = floats(kWeightSlot, layout.bytes() / 4);
  parallel_tasks(ceil_div(s.grid.count, 4), [&](int64_t index) {
    const int64_t begin = index * 4;
    transform_patches(s.grid, s.x, s.C, begin, smaller(s.grid.count, begin + 4), layout,
                      zeros_of(s.C), v + begin * kGroup);
  });
  parallel_tasks(s.panels(), [&](int64_t panel) {
    float* u = floats(kPatchSlot, kProducts * weight_stride(kDepthChunk, kColumns));
    const int64_t m_stride = s.grid.count * kColumns + kGroup;
    float* m = floats(kProductSlot, kProducts * m_stride);
    for (int64_t c = 0; c < s.C; c += kDepthChunk) {
      const int64_t end = smaller(s.C, c + kDepthChunk);
      transform_weights(s, panel, c, end, u);
      products(layout, s.grid.count, v, c / kGroup, (end - c) / kGroup, u, s.width(panel), m,
               m_stride);
    }
    transform_outputs(s, 0, s.grid.count, panel, m, m_stride);
  });
}

void convolve(const Shapes& s) {
  if (s.grid.count < s.OC) {
    panels_outer(s);
  } else {
    blocks_outer(s);
  }
}

}  // namespace

void winograd_forward(const Tensor& x, const Tensor& w, const Tensor& y) {
  convolve(
      {TileGrid(x), x.raw<float>(), w.raw<float>(), y.raw<float>(), w.dim(2), w.dim(3), false});
}

void winograd_backward_data(const Tensor& dy, const Tensor& w, const Tensor& dx) {
  convolve(
      {TileGrid(dx), dy.raw<float>(), w.raw<float>(), dx.raw<float>(), w.dim(3), w.dim(2), true});
}

}  // namespace mocograd::MOCO_ISA
