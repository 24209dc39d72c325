// The weight gradient of conv2d, computed directly.
//
//   dw[r][oc] = Σ_pixels patch_pixel[r] · dy_pixel[oc],   r = (kh, kw, c), KH·KW·C rows
//
// A pixel of y adds the outer product of its patch, the numbers of x that it was computed from, and
// its dy. Some pixels at a time are copied: their patches to rows of one matrix, which is where the
// zeros of the border come in and where few input channels become one run of KH·KW·C numbers; their
// dy to panels. Both stay in the caches while every tile of weights sums over these pixels in
// registers.
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

constexpr int64_t kBlockRows = 576, kBlockColumns = 128;  // a task's weights at most
constexpr int64_t kChunkPixels = 128;  // so that a panel of dy stays in L1, the patches in L2
constexpr int64_t kMinTasks = 12;

constexpr int64_t kInPlaceColumns = 64;

enum ScratchSlot { kSumSlot, kPatchSlot, kGradientSlot };

template <class T>
struct WeightGradient {
  const T *x, *dy;
  int64_t H, W, C, KH, KW, stride, padding, OH, OW, OC;
  int64_t pixels;  // of y
  const T* end_of_x;

  MOCO_ALWAYS_INLINE int64_t run() const { return KW * C; }  // of x, in one row of an image
  MOCO_ALWAYS_INLINE int64_t rows() const { return KH * run(); }
};

// A task's weights [row, row + rows) × [column, column + columns) and its pixels.
struct Share {
  int64_t row, rows, column, columns, pixel, pixels;
};

// ---- the pixels of a chunk ---------------------------------------------------------------------

// Patches: pixel p's rows of a share at data + p·stride. Beyond them there is room for what is
// written with the last vector and read with the last tile.
template <class T>
struct Patches {
  T* data;
  int64_t stride;
};

template <class T>
Patches<T> room_for_patches(int64_t pixels, int64_t rows) {
  constexpr int64_t L = kLanes<T>, beyond = L > kTailRows ? L : kTailRows;
  const int64_t stride = (ceil_div(rows + beyond, L) | 1) * L;  // odd: spread over the cache's sets
  return {static_cast<T*>(scratch(kPatchSlot, static_cast<size_t>(pixels * stride) * sizeof(T))),
          stride};
}

// Of `pixels` patches, `count` numbers that lie in one row of an image: patch q's at row + offset +
// q·step, of which those outside [0, row_numel) are zeros. Those of pixels inside of the image are
// copied by whole vectors, which may write beyond `count`.
template <class T>
void copy_runs(const WeightGradient<T>& job, const T* row, int64_t row_numel, int64_t offset,
               int64_t count, int64_t pixels, T* target, int64_t target_stride) {
  constexpr int64_t L = kLanes<T>;
  const int64_t step = job.stride * job.C, rounded = ceil_div(count, L) * L;
  const int64_t last = smaller(row_numel - count, job.end_of_x - row - rounded);
  const int64_t inside = smaller(pixels, ceil_div(larger(0, -offset), step));
  const int64_t end =
      last < offset ? inside : larger(inside, smaller(pixels, (last - offset) / step + 1));
  const auto clipped = [&](int64_t q, int64_t stop) {
    for (; q < stop; ++q) {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t at = offset + q * step + k;
        target[q * target_stride + k] = at >= 0 && at < row_numel ? row[at] : 0;
      }
    }
  };
  clipped(0, inside);
  for (int64_t q = inside; q < end; ++q) {
    for (int64_t k = 0; k < rounded; k += L)
      store(target + q * target_stride + k, load(row + offset + q * step + k));
  }
  clipped(end, pixels);
}

// The share's rows of the patches of the pixels [begin, begin + pixels).
template <class T>
void copy_patches(const WeightGradient<T>& job, const Share& share, int64_t begin, int64_t pixels,
                  const Patches<T>& patches) {
  const int64_t run = job.run(), row_numel = job.W * job.C;
  for (int64_t p = 0; p < pixels;) {
    const int64_t pixel = begin + p, image = pixel / (job.OH * job.OW);
    const int64_t i = pixel / job.OW % job.OH, j = pixel % job.OW;
    const int64_t columns = smaller(job.OW - j, pixels - p);  // of one row of y
    for (int64_t kh = share.row / run; kh * run < share.row + share.rows; ++kh) {
      const int64_t first = larger(share.row, kh * run);
      const int64_t count = smaller(share.row + share.rows, (kh + 1) * run) - first;
      const int64_t h = i * job.stride - job.padding + kh;
      const bool exists = h >= 0 && h < job.H;
      copy_runs(job, exists ? job.x + (image * job.H + h) * row_numel : job.x,
                exists ? row_numel : 0, (j * job.stride - job.padding) * job.C + first - kh * run,
                count, columns, patches.data + p * patches.stride + first - share.row,
                patches.stride);
    }
    p += columns;
  }
}

// dy of the pixels: a panel's numbers of pixel p at data + panel·panel_stride + p·stride.
template <class T>
struct Gradients {
  const T* data;
  int64_t stride, panel_stride;
};

// The columns of `shape` in panels, padded with zeros; where they are few and whole vectors, dy
// itself.
template <class T>
Gradients<T> gradients_of(const T* dy, int64_t OC, int64_t pixels, const PackedPanels<T>& shape) {
  if (OC <= kInPlaceColumns && shape.columns % kLanes<T> == 0) return {dy, OC, kTileColumns<T>};
  T* const packed = static_cast<T*>(scratch(
      kGradientSlot, static_cast<size_t>(pixels * shape.panels() * kTileColumns<T>) * sizeof(T)));
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

// What a tile sums over.
template <class T>
struct TilePixels {
  const T *x, *dy;
  int64_t pixels, x_stride, dy_stride;
};

// dw[i][j] (+)= Σ_pixels x_pixel[i] · dy_pixel[j], i < MR, j < NV vectors; ldw between rows of dw.
template <class T, int MR, int NV, Store mode>
[[gnu::noinline]] void outer_tile(const TilePixels<T>& of, T* dw, int64_t ldw) {
  Accumulators<T, MR, NV> sum;
  const T *x = of.x, *dy = of.dy;
#pragma GCC unroll 2
  for (int64_t p = 0; p < of.pixels; ++p, x += of.x_stride, dy += of.dy_stride)
    sum.add_outer_product([&](int r) { return x[r]; }, dy);
  sum.template store_to<mode>([=](int r) { return dw + r * ldw; });
}

// The same, of which only the first `rows` rows and `columns` numbers belong to dw.
template <class T, int MR, int NV, Store mode>
MOCO_ALWAYS_INLINE void outer_any_tile(const TilePixels<T>& of, T* dw, int64_t ldw, int64_t rows,
                                       int64_t columns) {
  if (rows == MR && columns == NV * kLanes<T>) return outer_tile<T, MR, NV, mode>(of, dw, ldw);
  on_whole_tile<T, MR, NV>(
      [=](int r) { return dw + r * ldw; }, rows, columns,
      [&](T* copy, int64_t stride) { outer_tile<T, MR, NV, mode>(of, copy, stride); });
}

template <class T, int NV, Store mode>
void outer_rows(TilePixels<T> of, int64_t rows, T* dw, int64_t ldw, int64_t columns) {
  for (; rows >= kTileRows; rows -= kTileRows, of.x += kTileRows, dw += kTileRows * ldw)
    outer_any_tile<T, kTileRows, NV, mode>(of, dw, ldw, kTileRows, columns);
  for (; rows > 0; rows -= kTailRows, of.x += kTailRows, dw += kTailRows * ldw)
    outer_any_tile<T, kTailRows, NV, mode>(of, dw, ldw, smaller(kTailRows, rows), columns);
}

// The pixels [begin, begin + pixels): overwrites the share's weights in dw, or adds to them.
template <class T, Store mode>
void add_pixels(const WeightGradient<T>& job, const Share& share, int64_t begin, int64_t pixels,
                T* dw) {
  const PackedPanels<T> shape{nullptr, 0, share.columns};  // only for the panels' widths
  const Patches<T> patches = room_for_patches<T>(pixels, share.rows);
  copy_patches(job, share, begin, pixels, patches);
  const Gradients<T> gradients =
      gradients_of(job.dy + begin * job.OC + share.column, job.OC, pixels, shape);
  TilePixels<T> of{patches.data, gradients.data, pixels, patches.stride, gradients.stride};
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

// dw = Σ sums[part], in this order.
template <class T>
void add_sums(const T* sums, int64_t parts, int64_t numel, T* dw) {
  for_each_element(numel, [=](int64_t i) {
    T sum = sums[i];
    for (int64_t part = 1; part < parts; ++part) sum += sums[part * numel + i];
    dw[i] = sum;
  });
}

template <class T>
void backward_weight(const WeightGradient<T>& job, T* dw) {
  const int64_t numel = job.rows() * job.OC;
  const int64_t row_blocks = ceil_div(job.rows(), kBlockRows);
  const int64_t block_rows = ceil_div(ceil_div(job.rows(), row_blocks), kTileRows) * kTileRows;
  const int64_t column_blocks = ceil_div(job.OC, kBlockColumns),
                blocks = row_blocks * column_blocks;
  const int64_t parts =
      larger(1, smaller(ceil_div(job.pixels, kChunkPixels), ceil_div(kMinTasks, blocks)));
  T* const sums =
      parts == 1
          ? dw
          : static_cast<T*>(scratch(kSumSlot, static_cast<size_t>(parts * numel) * sizeof(T)));
  parallel_tasks(parts * blocks, [&](int64_t task) {
    const int64_t part = task / blocks;
    const int64_t row = task % blocks / column_blocks * block_rows;
    const int64_t column = task % column_blocks * kBlockColumns;
    const int64_t begin = job.pixels * part / parts, end = job.pixels * (part + 1) / parts;
    const Share share{row,    smaller(block_rows, job.rows() - row),
                      column, smaller(kBlockColumns, job.OC - column),
                      begin,  end - begin};
    T* const sum = sums + part * numel;
    add_pixels<T, Store::overwrite>(job, share, begin, smaller(kChunkPixels, share.pixels), sum);
    for (int64_t pixel = begin + kChunkPixels; pixel < end; pixel += kChunkPixels)
      add_pixels<T, Store::accumulate>(job, share, pixel, smaller(kChunkPixels, end - pixel), sum);
  });
  if (parts > 1) add_sums(sums, parts, numel, dw);
}

}  // namespace

void CpuBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  if (winograd_pays(x, dw, config)) return winograd_backward_weight(x, dy, dw);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const WeightGradient<T> job{x.raw<T>(),
                                dy.raw<T>(),
                                x.dim(1),
                                x.dim(2),
                                x.dim(3),
                                dw.dim(0),
                                dw.dim(1),
                                config.stride,
                                config.padding,
                                dy.dim(1),
                                dy.dim(2),
                                dy.dim(3),
                                dy.dim(0) * dy.dim(1) * dy.dim(2),
                                x.raw<T>() + x.numel()};
    if (dw.numel() > 0) backward_weight(job, dw.raw<T>());
  });
}

}  // namespace mocograd::MOCO_ISA
