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

// kOuterRows: of dw in a tile, by two vectors of columns.
// kImageTile: whether registers hold a vector of all 27 rows of a 3×3 stem's weights.
#if defined(__AVX512F__)
constexpr int kOuterRows = 12;
constexpr bool kImageTile = true;
#elif defined(__AVX2__)
constexpr int kOuterRows = 6;
constexpr bool kImageTile = false;
#else
constexpr int kOuterRows = 4;
constexpr bool kImageTile = false;
#endif
constexpr int64_t kBlockRows = 576, kBlockColumns = 128;  // a task's weights at most
constexpr int64_t kChunkPixels = 128;  // so that a panel of dy stays in L1, the patches in L2
constexpr int64_t kMinTasks = 12;
constexpr int64_t kInPlaceColumns = 64;  // of dy, so few that they are read where they lie
constexpr int kImageChannels = 3, kImageKernel = 3, kImageRun = kImageKernel * kImageChannels;

enum ScratchSlot { kSumSlot, kPatchSlot, kGradientSlot };

// Rows [begin, end) of y, counted over all images; where x is images, of one.
struct Chunk {
  int64_t begin, end;
};

template <class Stored>
struct WeightGradient {
  const Stored *x, *end_of_x, *dy;
  int64_t H, W, C, KH, KW, stride, padding;
  int64_t rows_of_y, OH, OW, OC;

  MOCO_ALWAYS_INLINE int64_t rows() const { return KH * KW * C; }
  MOCO_ALWAYS_INLINE int64_t columns() const { return (OW - 1) * stride + KW; }  // that a row reads
  MOCO_ALWAYS_INLINE int64_t chunk_rows() const { return larger(1, kChunkPixels / larger(1, OW)); }
  // The first of the rows [begin, end).
  MOCO_ALWAYS_INLINE Chunk chunk(int64_t begin, int64_t end) const {
    const int64_t last = smaller(begin + chunk_rows(), end);
    return {begin, of_images() && last > begin ? smaller(last, (begin / OH + 1) * OH) : last};
  }
  MOCO_ALWAYS_INLINE bool of_images() const { return C == kImageChannels && rows() <= kBlockRows; }
};

// A task's weights: [row, row + rows) × [column, column + columns).
struct Share {
  int64_t row, rows, column, columns;
};

// ---- the pixels of a chunk ---------------------------------------------------------------------

// Where the patches are: that of pixel j of row i begins at i·row_stride + j·step. It is `pieces` times
// `piece` numbers, piece_stride apart.
//
// A share's rows are one piece, an odd number of vectors from the next pixel's, so that a tile's
// numbers of all pixels spread over the sets of the cache.
//
// Where x is images, whose channels are few, what lies there is the rows of x that a chunk needs,
// with their border: a patch is KW·C numbers of each of KH rows, and patches overlap as their pixels
// do.
template <class T>
struct PatchLayout {
  int64_t row_stride, step, pieces, piece, piece_stride;

  template <class Stored>
  MOCO_ALWAYS_INLINE PatchLayout(const WeightGradient<Stored>& job, int64_t rows) {
    constexpr int64_t L = kLanes<T>;
    if (job.of_images()) {
      step = job.stride * job.C;
      pieces = job.KH;
      piece = job.KW * job.C;
      piece_stride = job.columns() * job.C;
      row_stride = job.stride * piece_stride;
    } else {
      step = (ceil_div(rows + L, L) | 1) * L;
      pieces = 1;
      piece = piece_stride = rows;
      row_stride = job.OW * step;
    }
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

// The patches of a chunk, in this thread's scratch memory.
template <class Stored, class T = Arithmetic<Stored>>
const T* copy_patches(const WeightGradient<Stored>& job, const PatchLayout<T>& layout,
                      const Share& share, const Chunk& chunk) {
  const int64_t rows_of_y = chunk.end - chunk.begin, run = job.KW * job.C;
  const auto row_of_x = [&](int64_t row, int64_t kh) -> const Stored* {
    const int64_t h = row % job.OH * job.stride - job.padding + kh;
    return h >= 0 && h < job.H ? job.x + (row / job.OH * job.H + h) * job.W * job.C : nullptr;
  };
  if (job.of_images()) {
    const int64_t rows = rows_of_y > 0 ? (rows_of_y - 1) * job.stride + job.KH : 0;
    T* const copy = scratch_of<T>(kPatchSlot, rows * layout.piece_stride);
    for (int64_t r = 0; r < rows; ++r)
      copy_with_border(row_of_x(chunk.begin, r), job.W, job.C, -job.padding, job.columns(),
                       copy + r * layout.piece_stride);
    return copy;
  }
  T* const patches = scratch_of<T>(kPatchSlot, rows_of_y * layout.row_stride + kLanes<T>);
  T* target = patches;
  for (int64_t row = chunk.begin; row < chunk.end; ++row, target += layout.row_stride) {
    for (int64_t kh = share.row / run; kh * run < share.row + share.rows; ++kh) {
      const int64_t first = larger(share.row, kh * run);
      const Stored* const x = row_of_x(row, kh);
      copy_runs(job, x ? x : job.x, x ? job.W * job.C : 0, first - kh * run - job.padding * job.C,
                smaller(share.row + share.rows, (kh + 1) * run) - first, target + first - share.row,
                layout.step);
    }
  }
  return patches;
}

// dy of the pixels: a panel's numbers of pixel p at data + panel·panel_stride + p·stride.
// to_next: from there to what the next chunk has in its place, 0 where they are copies.
template <class T>
struct Gradients {
  const T* data;
  int64_t stride, panel_stride, to_next;
};

// The columns of `shape` in panels, padded with zeros; where they are few and whole vectors, dy
// itself.
template <class Stored, class T = Arithmetic<Stored>>
Gradients<T> gradients_of(const Stored* dy, int64_t OC, int64_t pixels,
                          const PackedPanels<T>& shape) {
  if constexpr (sizeof(Stored) == sizeof(T)) {
    if (OC <= kInPlaceColumns && shape.columns % kLanes<T> == 0)
      return {dy, OC, kTileColumns<T>, pixels * OC};
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
  return {packed, kTileColumns<T>, panel_stride, 0};
}

// ---- tiles of weights --------------------------------------------------------------------------

// What a tile sums over: a patch and dy for each pixel, run_stride between the patches of two runs of
// pixels, piece_stride between the pieces of a patch.
template <class T>
struct TilePixels {
  const T *x, *dy;
  int64_t runs, run_length, run_stride, step, dy_stride, to_next_dy, piece_stride;
};

// dw[i][j] (+)= Σ_pixels x_pixel[i] · dy_pixel[j], i < P·MR in P pieces, j < NV vectors; ldw between
// rows of dw. With all rows in one tile dy is read only once, so what the next chunk has of it is
// fetched into L2; otherwise the loop waits for memory.
template <class T, int P, int MR, int NV, Store mode>
[[gnu::noinline]] void outer_tile(const TilePixels<T>& of, T* dw, int64_t ldw) {
  Accumulators<T, P * MR, NV> sum;
  const T* dy = of.dy;
  for (int64_t run = 0; run < of.runs; ++run) {
    const T* x = of.x + run * of.run_stride;
#pragma GCC unroll 2
    for (int64_t k = 0; k < of.run_length; ++k, x += of.step, dy += of.dy_stride) {
      const T* piece[P];
#pragma GCC unroll 3
      for (int p = 0; p < P; ++p) piece[p] = x + p * of.piece_stride;
      if constexpr (P > 1) __builtin_prefetch(dy + of.to_next_dy, 0, 2);
      sum.add_outer_product([&](int i) { return piece[i / MR][i % MR]; }, dy);
    }
  }
  sum.template store_to<mode>([=](int i) { return dw + i * ldw; });
}

// The same, of which only the first `columns` numbers belong to dw.
template <class T, int P, int MR, int NV, Store mode>
MOCO_ALWAYS_INLINE void outer_edge_tile(const TilePixels<T>& of, T* dw, int64_t ldw,
                                        int64_t columns) {
  if (columns == NV * kLanes<T>) return outer_tile<T, P, MR, NV, mode>(of, dw, ldw);
  on_whole_tile<T, P * MR, NV>(
      [=](int i) { return dw + i * ldw; }, P * MR, columns,
      [&](T* copy, int64_t stride) { outer_tile<T, P, MR, NV, mode>(of, copy, stride); });
}

// Of one piece so many rows as are known only now, 1 <= rows <= MR.
template <class T, int MR, int NV, Store mode>
MOCO_ALWAYS_INLINE void outer_any_tile(const TilePixels<T>& of, T* dw, int64_t ldw, int64_t rows,
                                       int64_t columns) {
  if constexpr (MR > 1) {
    if (rows < MR) return outer_any_tile<T, MR - 1, NV, mode>(of, dw, ldw, rows, columns);
  }
  outer_edge_tile<T, 1, MR, NV, mode>(of, dw, ldw, columns);
}

// All tiles of the rows of a piece: as even as can be.
template <class T, int NV, Store mode>
void outer_rows(TilePixels<T> of, int64_t rows, T* dw, int64_t ldw, int64_t columns) {
  const EvenParts tiles{rows, ceil_div(rows, kOuterRows)};
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    const int64_t height = tiles.size(tile);
    outer_any_tile<T, kOuterRows, NV, mode>(of, dw, ldw, height, columns);
    of.x += height;
    dw += height * ldw;
  }
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
                   gradients.stride,
                   gradients.to_next,
                   layout.piece_stride};
  if (of.run_stride == of.run_length * of.step) {
    of.runs = 1;
    of.run_length = pixels;
  }
  T* target = dw + share.row * job.OC + share.column;
  for (int64_t panel = 0; panel < shape.panels(); ++panel, target += kTileColumns<T>) {
    of.dy = gradients.data + panel * gradients.panel_stride;
    const int64_t columns = shape.columns_of(panel);
    if (kImageTile && layout.pieces == kImageKernel && layout.piece == kImageRun) {
      for (int64_t j = 0; j < columns; j += kLanes<T>, of.dy += kLanes<T>) {
        outer_edge_tile<T, kImageKernel, kImageRun, 1, mode>(of, target + j, job.OC,
                                                             smaller(kLanes<T>, columns - j));
      }
      continue;
    }
    const bool wide = shape.width_of(panel) == kTileColumns<T>;
    const auto add = wide ? outer_rows<T, 2, mode> : outer_rows<T, 1, mode>;
    TilePixels<T> of_piece = of;
    for (int64_t p = 0; p < layout.pieces; ++p, of_piece.x += layout.piece_stride)
      add(of_piece, layout.piece, target + p * layout.piece * job.OC, job.OC, columns);
  }
}

// ---- dw ----------------------------------------------------------------------------------------

// dw = Σ sums[part], in this order.
template <class T>
void add_sums(const T* sums, int64_t parts, int64_t numel, T* dw) {
  for_each_element(numel, [=](int64_t i) {
    T sum = sums[i];
    for (int64_t part = 1; part < parts; ++part) sum += sums[part * numel + i];
    dw[i] = sum;
  });
}

template <class Stored, class T = Arithmetic<Stored>>
void backward_weight(const WeightGradient<Stored>& job, T* dw) {
  const int64_t numel = job.rows() * job.OC;
  const int64_t even_rows = ceil_div(job.rows(), ceil_div(job.rows(), kBlockRows));
  const int64_t block_rows = ceil_div(even_rows, kOuterRows) * kOuterRows;
  const int64_t column_blocks = ceil_div(job.OC, kBlockColumns);
  const int64_t blocks = ceil_div(job.rows(), block_rows) * column_blocks;
  const EvenParts parts{job.rows_of_y, larger(1, smaller(ceil_div(job.rows_of_y, job.chunk_rows()),
                                                         ceil_div(kMinTasks, blocks)))};
  T* const sums = parts.count == 1 ? dw : scratch_of<T>(kSumSlot, parts.count * numel);
  parallel_tasks(parts.count * blocks, [&](int64_t task) {
    const int64_t part = task / blocks, column = task % column_blocks * kBlockColumns;
    const int64_t row = task % blocks / column_blocks * block_rows;
    const Share share{row, smaller(block_rows, job.rows() - row), column,
                      smaller(kBlockColumns, job.OC - column)};
    const int64_t begin = parts.begin(part), end = parts.begin(part + 1);
    T* const sum = sums + part * numel;
    Chunk chunk = job.chunk(begin, end);
    add_chunk<Store::overwrite>(job, share, chunk, sum);
    while (chunk.end < end) {
      chunk = job.chunk(chunk.end, end);
      add_chunk<Store::accumulate>(job, share, chunk, sum);
    }
  });
  if (parts.count > 1) add_sums(sums, parts.count, numel, dw);
}

}  // namespace

void CpuBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  if (dw.numel() == 0) return;
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
