// The weight gradient of conv2d, computed directly.
//
//   dw[r][oc] = Σ_pixels patch_pixel[r] · dy_pixel[oc],   r = (kh, kw, c), KH·KW·C rows
//
// A pixel of y adds the outer product of its patch, the numbers of x that it was computed from, and
// its dy. For some rows of pixels at a time what the patches need is copied, with its border of
// zeros, and dy is put into panels. Both stay in the caches while every tile of weights sums over
// these pixels in registers. Numbers that are stored as bf16 become f32 as they are copied.
//
// The work is cut into tasks that share nothing: a block of weights and a part of the pixels. Where
// several parts have sums of the same weights, these are added in the end in the order of the
// parts. All of that depends on the shapes only, so the result does not depend on the threads.
//
// Where it pays (winograd.h), 3×3 convolutions are computed by Winograd's algorithm instead.
#include "cpu/cpu_backend.h"
#include "cpu/integers.h"
#include "cpu/loops.h"
#include "cpu/micro_kernel.h"
#include "cpu/winograd.h"

namespace mocograd::MOCO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kOuterRows = 12;  // of dw in a tile, by two vectors of columns
#elif defined(__AVX2__)
constexpr int kOuterRows = 6;
#else
constexpr int kOuterRows = 4;
#endif
constexpr int kTailRows = 4;  // what is left of the rows goes in tiles of four
constexpr int64_t kBlockRows = 576, kBlockColumns = 128;  // a task's weights at most
constexpr int64_t kChunkPixels = 128;  // so that a panel of dy stays in L1, the patches in L2
constexpr int64_t kMinTasks = 12;
constexpr int64_t kInPlaceColumns = 64;  // of dy, so few that they are read where they lie
constexpr int64_t kImageChannels = 3;

enum ScratchSlot { kSumSlot, kPatchSlot, kGradientSlot };

template <class Stored>
struct WeightGradient {
  const Stored *x, *end_of_x, *dy;
  int64_t H, W, C, KH, KW, stride, padding;
  int64_t rows_of_y, OH, OW, OC;

  MOCO_ALWAYS_INLINE int64_t rows() const { return KH * KW * C; }
  MOCO_ALWAYS_INLINE bool by_columns() const { return C == kImageChannels && rows() <= kBlockRows; }
};

// A task's weights: [row, row + rows) × [column, column + columns).
struct Share {
  int64_t row, rows, column, columns;
};

// Rows [begin, end) of y, counted over all images.
struct Chunk {
  int64_t begin, end;
};

// ---- the pixels of a chunk ---------------------------------------------------------------------

// Where the patches are: that of pixel j of row i begins at i·row_stride + j·step.
//
// By runs: a patch is its KH runs of KW·C numbers, those of a share's rows. Patches are an odd
// number of vectors apart, so that a tile's numbers of all pixels spread over the sets of the
// cache.
//
// By columns, where x is images: a row of y is the columns of x that it needs, KH·C numbers each, so
// that patches overlap as their pixels do, and nothing is copied KW times. The rows of dw then come
// in the order (kw, kh, c).
template <class T>
struct PatchLayout {
  bool by_columns;
  int64_t row_stride, step;

  template <class Stored>
  MOCO_ALWAYS_INLINE PatchLayout(const WeightGradient<Stored>& job, int64_t rows) {
    constexpr int64_t L = kLanes<T>, beyond = L > kTailRows ? L : kTailRows;
    by_columns = job.by_columns();
    step = by_columns ? job.stride * job.KH * job.C : (ceil_div(rows + beyond, L) | 1) * L;
    row_stride = by_columns ? ((job.OW - 1) * job.stride + job.KW) * job.KH * job.C : job.OW * step;
  }
};

// Copies `count` numbers of one row of an image for each pixel of a row of y: pixel j's from
// row[offset + j·distance] on, zeros where that is outside of [0, row_numel). Those inside of the
// image are copied by whole vectors, which may write beyond them.
template <class Stored, class T>
void copy_runs(const WeightGradient<Stored>& job, const Stored* row, int64_t row_numel,
               int64_t offset, int64_t count, T* target, int64_t step) {
  constexpr int64_t L = kLanes<T>;
  const int64_t distance = job.stride * job.C, rounded = ceil_div(count, L) * L;
  const int64_t last = smaller(row_numel - count, job.end_of_x - row - rounded);
  const int64_t inside = smaller(job.OW, ceil_div(larger(0, -offset), distance));
  const int64_t end =
      last < offset ? inside : larger(inside, smaller(job.OW, (last - offset) / distance + 1));
  const auto clipped = [&](int64_t j, int64_t stop) {
    for (; j < stop; ++j) {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t at = offset + j * distance + k;
        target[j * step + k] = at >= 0 && at < row_numel ? static_cast<T>(row[at]) : 0;
      }
    }
  };
  clipped(0, inside);
  for (int64_t j = inside; j < end; ++j) {
    for (int64_t k = 0; k < rounded; k += L)
      store(target + j * step + k, load(row + offset + j * distance + k));
  }
  clipped(end, job.OW);
}

// The columns of x that row i of an image of y needs.
template <class Stored, class T>
void copy_columns(const WeightGradient<Stored>& job, const Stored* image, int64_t i, T* target) {
  constexpr int64_t C = kImageChannels;
  const int64_t columns = (job.OW - 1) * job.stride + job.KW, apart = job.KH * C;
  for (int64_t kh = 0; kh < job.KH; ++kh, target += C) {
    const int64_t h = i * job.stride - job.padding + kh;
    const int64_t before = h >= 0 && h < job.H ? smaller(columns, job.padding) : columns;
    const int64_t end = larger(before, smaller(columns, job.padding + job.W));
    const auto clear = [&](int64_t column, int64_t stop) {
      for (; column < stop; ++column) {
        for (int64_t c = 0; c < C; ++c) target[column * apart + c] = 0;
      }
    };
    clear(0, before);
    const Stored* source = image + h * job.W * C;
    T* column = target + before * apart;
    for (int64_t q = before; q < end; ++q, source += C, column += apart) {
      for (int64_t c = 0; c < C; ++c) column[c] = source[c];
    }
    clear(end, columns);
  }
}

// The patches of a chunk, in this thread's scratch memory.
template <class Stored, class T = Arithmetic<Stored>>
const T* copy_patches(const WeightGradient<Stored>& job, const PatchLayout<T>& layout,
                      const Share& share, const Chunk& chunk) {
  const int64_t numel = (chunk.end - chunk.begin) * layout.row_stride + 2 * kOuterRows;
  T* const patches = scratch_of<T>(kPatchSlot, numel);
  T* target = patches;
  for (int64_t row = chunk.begin; row < chunk.end; ++row, target += layout.row_stride) {
    const Stored* const image = job.x + row / job.OH * job.H * job.W * job.C;
    const int64_t i = row % job.OH, run = job.KW * job.C;
    if (layout.by_columns) {
      copy_columns(job, image, i, target);
      continue;
    }
    for (int64_t kh = share.row / run; kh * run < share.row + share.rows; ++kh) {
      const int64_t first = larger(share.row, kh * run);
      const int64_t h = i * job.stride - job.padding + kh;
      const bool exists = h >= 0 && h < job.H;
      copy_runs(job, exists ? image + h * job.W * job.C : image, exists ? job.W * job.C : 0,
                first - kh * run - job.padding * job.C,
                smaller(share.row + share.rows, (kh + 1) * run) - first, target + first - share.row,
                layout.step);
    }
  }
  return patches;
}

// dy of the pixels: a panel's numbers of pixel p at data + panel·panel_stride + p·stride.
template <class T>
struct Gradients {
  const T* data;
  int64_t stride, panel_stride;
};

// The columns of `shape` in panels, padded with zeros; where they are few and whole vectors, dy
// itself.
template <class Stored, class T = Arithmetic<Stored>>
Gradients<T> gradients_of(const Stored* dy, int64_t OC, int64_t pixels,
                          const PackedPanels<T>& shape) {
  if constexpr (sizeof(Stored) == sizeof(T)) {
    if (OC <= kInPlaceColumns && shape.columns % kLanes<T> == 0) return {dy, OC, kTileColumns<T>};
  }
  T* const packed = scratch_of<T>(kGradientSlot, pixels * shape.panels() * kTileColumns<T>);
  const int64_t panel_stride = kTileColumns<T> * pixels;
  for (int64_t panel = 0; panel < shape.panels(); ++panel) {
    const int64_t columns = shape.columns_of(panel);
    T* const target = packed + panel * panel_stride;
    if (columns < kTileColumns<T>)
      __builtin_memset(target, 0, static_cast<size_t>(panel_stride) * sizeof(T));
    copy_rows(dy + panel * kTileColumns<T>, OC, pixels, columns, target, kTileColumns<T>);
  }
  return {packed, kTileColumns<T>, panel_stride};
}

// ---- tiles of weights --------------------------------------------------------------------------

// What a tile sums over: a patch and dy for each pixel, run_stride between the patches of two runs of
// pixels.
template <class T>
struct TilePixels {
  const T *x, *dy;
  int64_t runs, run_length, run_stride, step, dy_stride;
};

// dw[i][j] (+)= Σ_pixels x_pixel[i] · dy_pixel[j], i < MR, j < NV vectors; ldw between rows of dw.
template <class T, int MR, int NV, Store mode>
[[gnu::noinline]] void outer_tile(const TilePixels<T>& of, T* dw, int64_t ldw) {
  Accumulators<T, MR, NV> sum;
  const T* dy = of.dy;
  for (int64_t run = 0; run < of.runs; ++run) {
    const T* x = of.x + run * of.run_stride;
#pragma GCC unroll 2
    for (int64_t k = 0; k < of.run_length; ++k, x += of.step, dy += of.dy_stride)
      sum.add_outer_product([&](int i) { return x[i]; }, dy);
  }
  sum.template store_to<mode>([=](int i) { return dw + i * ldw; });
}

// The same, of which only the first `rows` rows and `columns` numbers belong to dw.
template <class T, int MR, int NV, Store mode>
MOCO_ALWAYS_INLINE void outer_any_tile(const TilePixels<T>& of, T* dw, int64_t ldw, int64_t rows,
                                       int64_t columns) {
  if (rows == MR && columns == NV * kLanes<T>) return outer_tile<T, MR, NV, mode>(of, dw, ldw);
  on_whole_tile<T, MR, NV>(
      [=](int i) { return dw + i * ldw; }, rows, columns,
      [&](T* copy, int64_t stride) { outer_tile<T, MR, NV, mode>(of, copy, stride); });
}

template <class T, int NV, Store mode>
void outer_rows(TilePixels<T> of, int64_t rows, T* dw, int64_t ldw, int64_t columns) {
  for (; rows >= kOuterRows; rows -= kOuterRows, of.x += kOuterRows, dw += kOuterRows * ldw)
    outer_any_tile<T, kOuterRows, NV, mode>(of, dw, ldw, kOuterRows, columns);
  for (; rows > 0; rows -= kTailRows, of.x += kTailRows, dw += kTailRows * ldw)
    outer_any_tile<T, kTailRows, NV, mode>(of, dw, ldw, smaller(kTailRows, rows), columns);
}

// Overwrites the share's weights in dw with the sum over the chunk, or adds it to them.
template <Store mode, class Stored, class T>
void add_chunk(const WeightGradient<Stored>& job, const Share& share, const Chunk& chunk, T* dw) {
  const PatchLayout<T> layout(job, share.rows);
  const int64_t rows_of_y = chunk.end - chunk.begin, pixels = rows_of_y * job.OW;
  const PackedPanels<T> shape{nullptr, 0, share.columns};  // only for the panels' widths
  const Gradients<T> gradients =
      gradients_of(job.dy + chunk.begin * job.OW * job.OC + share.column, job.OC, pixels, shape);
  TilePixels<T> of{copy_patches(job, layout, share, chunk),
                   gradients.data,
                   rows_of_y,
                   job.OW,
                   layout.row_stride,
                   layout.step,
                   gradients.stride};
  if (of.run_stride == of.run_length * of.step) {
    of.runs = 1;
    of.run_length = pixels;
  }
  T* target = dw + share.row * job.OC + share.column;
  for (int64_t panel = 0; panel < shape.panels(); ++panel) {
    const bool wide = shape.width_of(panel) == kTileColumns<T>;
    const auto add = wide ? outer_rows<T, 2, mode> : outer_rows<T, 1, mode>;
    add(of, share.rows, target, job.OC, shape.columns_of(panel));
    of.dy += gradients.panel_stride;
    target += kTileColumns<T>;
  }
}

// ---- dw ----------------------------------------------------------------------------------------

// dw = Σ sums[part], in this order; rows of dw that came by columns are put into theirs.
template <class Stored, class T>
void add_sums(const WeightGradient<Stored>& job, const T* sums, int64_t parts, T* dw) {
  const int64_t numel = job.rows() * job.OC;
  for_each_row(job.rows(), job.OC, [=](int64_t row) {
    const int64_t kw = row / (job.KH * job.C), kh = row / job.C % job.KH;
    T* const target =
        dw + (job.by_columns() ? (kh * job.KW + kw) * job.C + row % job.C : row) * job.OC;
    for (int64_t i = 0; i < job.OC; ++i) {
      T sum = sums[row * job.OC + i];
      for (int64_t part = 1; part < parts; ++part) sum += sums[part * numel + row * job.OC + i];
      target[i] = sum;
    }
  });
}

template <class Stored, class T = Arithmetic<Stored>>
void backward_weight(const WeightGradient<Stored>& job, T* dw) {
  const int64_t numel = job.rows() * job.OC;
  const int64_t even_rows = ceil_div(job.rows(), ceil_div(job.rows(), kBlockRows));
  const int64_t block_rows = ceil_div(even_rows, kOuterRows) * kOuterRows;
  const int64_t column_blocks = ceil_div(job.OC, kBlockColumns);
  const int64_t blocks = ceil_div(job.rows(), block_rows) * column_blocks;
  const int64_t chunk_rows = larger(1, kChunkPixels / larger(1, job.OW));
  const int64_t parts =
      larger(1, smaller(ceil_div(job.rows_of_y, chunk_rows), ceil_div(kMinTasks, blocks)));
  const bool in_place = parts == 1 && !job.by_columns();
  T* const sums = in_place ? dw : scratch_of<T>(kSumSlot, parts * numel);
  parallel_tasks(parts * blocks, [&](int64_t task) {
    const int64_t part = task / blocks, column = task % column_blocks * kBlockColumns;
    const int64_t row = task % blocks / column_blocks * block_rows;
    const Share share{row, smaller(block_rows, job.rows() - row), column,
                      smaller(kBlockColumns, job.OC - column)};
    const int64_t begin = job.rows_of_y * part / parts, end = job.rows_of_y * (part + 1) / parts;
    T* const sum = sums + part * numel;
    add_chunk<Store::overwrite>(job, share, {begin, smaller(begin + chunk_rows, end)}, sum);
    for (int64_t y_row = begin + chunk_rows; y_row < end; y_row += chunk_rows)
      add_chunk<Store::accumulate>(job, share, {y_row, smaller(y_row + chunk_rows, end)}, sum);
  });
  if (!in_place) add_sums(job, sums, parts, dw);
}

}  // namespace

void CpuBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  if (winograd_pays(x, dw, config)) return winograd_backward_weight(x, dy, config.stride, dw);
  with_activation_type(x.dtype(), [&](auto zero) {
    using Stored = decltype(zero);
    const WeightGradient<Stored> job{x.raw<Stored>(),
                                     x.raw<Stored>() + x.numel(),
                                     dy.raw<Stored>(),
                                     x.dim(1),
                                     x.dim(2),
                                     x.dim(3),
                                     dw.dim(0),
                                     dw.dim(1),
                                     config.stride,
                                     config.padding,
                                     dy.dim(0) * dy.dim(1),
                                     dy.dim(1),
                                     dy.dim(2),
                                     dy.dim(3)};
    if (dw.numel() > 0) backward_weight(job, dw.raw<Arithmetic<Stored>>());
  });
}

}  // namespace mocograd::MOCO_ISA
