// conv2d: forward, data gradient and weight gradient, all as tiles of the micro-kernel
//
// Correlation (forward and data gradient). Seen from one output pixel, the input that it reads is
// KH runs of KW·C consecutive numbers, one image row apart: exactly the row of A that
// micro_kernel.h wants, so nothing is gathered into a matrix. Only the zeros of the padding must be
// there: a block of the input, some images or a band of rows of one, is copied with its border into
// scratch memory that stays in the L2 cache. Where there is no border (1×1 kernels) it is read
// where it lies.
//
// Data gradient. dx is a correlation of dy with the flipped taps: one of stride 1 for each of the s²
// classes into which the pixels of dx fall with stride s (tensor/parity_class.h).
//
// Weight gradient. dw[kh][(kw,c)][oc] = Σ_pixels x[pixel's run kh][(kw,c)] · dy[pixel][oc]: an
// outer product for each pixel, summed in registers over a block of pixels. Threads share the tiles
// of dw, not the pixels, so that no sums of threads have to be added.
//
// Where it pays (winograd.h), 3×3 convolutions are computed by Winograd's algorithm instead.
#include "cpu/cpu_backend.h"
#include "cpu/integers.h"
#include "cpu/micro_kernel.h"
#include "cpu/winograd.h"
#include "tensor/parity_class.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kBlockBytes = 192 << 10;  // input with its border; leaves L2 room for the panel
enum ScratchSlot { kPanelSlot, kInputSlot = 2, kPointerSlot, kOutputPointerSlot, kGradientSlot };

// Output pixel (i, j) of an image reads KH rows of x from top + i·stride on, and KW columns from
// left + j·stride on.
template <class Stored>
struct Correlation {
  const Stored* x;
  int64_t N, H, W, C;
  int64_t KH, KW, stride, top, left;
  int64_t OH, OW;

  MOCO_ALWAYS_INLINE bool needs_border() const {
    return top < 0 || left < 0 || (OH - 1) * stride + top + KH > H ||
           (OW - 1) * stride + left + KW > W;
  }
  // Rows and columns that `rows` rows of output read.
  MOCO_ALWAYS_INLINE int64_t input_rows(int64_t rows) const { return (rows - 1) * stride + KH; }
  MOCO_ALWAYS_INLINE int64_t input_columns() const { return (OW - 1) * stride + KW; }
};

// Output rows [row, row + rows) of images [image, image + images).
struct Block {
  int64_t image, images, row, rows;
};

// How the output is cut up: whole images, as many as the block size allows, or bands of one.
struct Blocks {
  int64_t images, bands, rows;  // a block: `images` images, or `rows` rows of one
  int64_t N, OH, count;

  template <class Stored>
  MOCO_ALWAYS_INLINE explicit Blocks(const Correlation<Stored>& in) : N(in.N), OH(in.OH) {
    const int64_t row_bytes =
        larger(1, in.input_columns() * in.C) * static_cast<int64_t>(sizeof(Arithmetic<Stored>));
    const int64_t image_bytes = larger(1, in.input_rows(in.OH)) * row_bytes;
    images = larger(1, smaller(N, kBlockBytes / image_bytes));
    bands = images > 1 ? 1 : smaller(OH, ceil_div(image_bytes, kBlockBytes));
    rows = ceil_div(OH, bands);
    bands = ceil_div(OH, rows);
    count = ceil_div(N, images) * bands;
  }

  MOCO_ALWAYS_INLINE Block at(int64_t index) const {
    const int64_t image = index / bands * images, row = index % bands * rows;
    return {image, smaller(images, N - image), row, smaller(rows, OH - row)};
  }
};

// A block's input: what its output pixel (m, i, j) reads begins at
// origin + m·image_stride + i·stride·row_stride + j·stride·C.
template <class T>
struct BlockInput {
  const T* origin;
  int64_t image_stride, row_stride;
};

// y = x, n numbers
template <class Stored, class T>
MOCO_ALWAYS_INLINE void copy_numbers(const Stored* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i];
}
template <class T>
MOCO_ALWAYS_INLINE void copy_numbers(const T* x, int64_t n, T* y) {
  __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
}

// Copies the block's input with its border of zeros into this thread's scratch memory.
template <class Stored, class T = Arithmetic<Stored>>
BlockInput<T> copy_with_border(const Correlation<Stored>& in, const Block& block) {
  const int64_t rows = in.input_rows(block.rows), columns = in.input_columns();
  const int64_t row_numel = columns * in.C;
  T* copy = static_cast<T*>(
      scratch(kInputSlot, static_cast<size_t>(block.images * rows * row_numel) * sizeof(T)));
  const int64_t before = smaller(columns, larger(0, -in.left));  // columns of zeros
  const int64_t inside = larger(0, smaller(columns, in.W - in.left) - before);
  T* target = copy;
  for (int64_t m = 0; m < block.images; ++m) {
    for (int64_t r = 0; r < rows; ++r, target += row_numel) {
      const int64_t h = block.row * in.stride + in.top + r;
      if (h < 0 || h >= in.H || inside == 0) {
        __builtin_memset(target, 0, static_cast<size_t>(row_numel) * sizeof(T));
        continue;
      }
      const Stored* source =
          in.x + (((block.image + m) * in.H + h) * in.W + in.left + before) * in.C;
      const int64_t end = before + inside;
      __builtin_memset(target, 0, static_cast<size_t>(before * in.C) * sizeof(T));
      copy_numbers(source, inside * in.C, target + before * in.C);
      __builtin_memset(target + end * in.C, 0,
                       static_cast<size_t>((columns - end) * in.C) * sizeof(T));
    }
  }
  return {copy, rows * row_numel, row_numel};
}

template <class Stored, class T = Arithmetic<Stored>>
MOCO_ALWAYS_INLINE BlockInput<T> input_of(const Correlation<Stored>& in, const Block& block) {
  if (in.KH == 0 || in.KW == 0) return {nullptr, 0, 0};  // nothing is read
  if constexpr (sizeof(Stored) == sizeof(T)) {
    if (!in.needs_border()) {
      const int64_t row = block.row * in.stride + in.top;
      return {in.x + ((block.image * in.H + row) * in.W + in.left) * in.C, in.H * in.W * in.C,
              in.W * in.C};
    }
  }
  return copy_with_border(in, block);
}

// Where output pixel (n, i, j) is written: y + n·image_stride + i·row_stride + j·column_stride.
template <class Stored>
struct OutputGrid {
  Stored* y;
  int64_t image_stride, row_stride, column_stride;
};

// y = correlation of `in` with the packed taps, b: [KH·KW·C, OC].
template <class Stored, class T = Arithmetic<Stored>>
void correlate(const Correlation<Stored>& in, const PackedPanels<T>& b,
               const OutputGrid<Stored>& out) {
  if (in.OH <= 0 || in.OW <= 0) return;
  const Blocks blocks(in);
  parallel_tasks(blocks.count, [&](int64_t index) {
    const Block block = blocks.at(index);
    const BlockInput<T> input = input_of(in, block);
    const int64_t pixels = block.images * block.rows * in.OW;
    const size_t bytes = static_cast<size_t>(pixels) * sizeof(T*);
    const T** a = static_cast<const T**>(scratch(kPointerSlot, bytes));
    Stored** c = static_cast<Stored**>(scratch(kOutputPointerSlot, bytes));
    int64_t pixel = 0;
    for (int64_t m = 0; m < block.images; ++m) {
      for (int64_t i = 0; i < block.rows; ++i) {
        const T* a_row = input.origin + m * input.image_stride + i * in.stride * input.row_stride;
        Stored* c_row =
            out.y + (block.image + m) * out.image_stride + (block.row + i) * out.row_stride;
        for (int64_t j = 0; j < in.OW; ++j, ++pixel) {
          a[pixel] = a_row + j * in.stride * in.C;
          c[pixel] = c_row + j * out.column_stride;
        }
      }
    }
    for (int64_t panel = 0; panel < b.panels(); ++panel)
      multiply_panel(TileRows<T, Stored>{a, c, in.KH, in.KW * in.C, input.row_stride}, pixels, b,
                     panel);
  });
}

template <class Stored>
Correlation<Stored> forward_correlation(const Tensor& x, int64_t KH, int64_t KW,
                                        Conv2dConfig config, const Tensor& y) {
  return {x.raw<Stored>(), x.dim(0),        x.dim(1),        x.dim(2), x.dim(3), KH, KW,
          config.stride,   -config.padding, -config.padding, y.dim(1), y.dim(2)};
}

template <class Stored>
void forward(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y) {
  using T = Arithmetic<Stored>;
  const int64_t OC = w.dim(3), depth = w.dim(0) * w.dim(1) * w.dim(2);
  const T* taps = w.raw<T>();
  const PackedPanels<T> panels = pack_panels<T>(
      kPanelSlot, depth, OC, [&](int64_t first, int64_t count, T* target, int64_t width) {
        copy_rows(taps + first, OC, depth, count, target, width);
      });
  correlate<Stored>(forward_correlation<Stored>(x, w.dim(0), w.dim(1), config, y), panels,
                    {y.raw<Stored>(), y.dim(1) * y.dim(2) * OC, y.dim(2) * OC, OC});
}

template <class Stored>
void backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config, const Tensor& dx) {
  using T = Arithmetic<Stored>;
  const int64_t s = config.stride, KW = w.dim(1), C = w.dim(2), OC = w.dim(3);
  const int64_t H = dx.dim(1), W = dx.dim(2);
  const T* taps = w.raw<T>();
  for (int64_t index = 0; index < s * s; ++index) {
    const ParityClass vertical(index / s, H, w.dim(0), config);
    const ParityClass horizontal(index % s, W, KW, config);
    // The class's taps, flipped: row (th, tw, oc) of B holds w[kh][kw][·][oc].
    const PackedPanels<T> panels =
        pack_panels<T>(kPanelSlot, vertical.taps * horizontal.taps * OC, C,
                       [&](int64_t first, int64_t count, T* target, int64_t width) {
                         for (int64_t th = 0; th < vertical.taps; ++th) {
                           const int64_t kh = vertical.residue + (vertical.taps - 1 - th) * s;
                           for (int64_t tw = 0; tw < horizontal.taps; ++tw, target += OC * width) {
                             const int64_t kw = horizontal.residue + (horizontal.taps - 1 - tw) * s;
                             copy_transposed(taps + ((kh * KW + kw) * C + first) * OC, OC, count,
                                             OC, target, width);
                           }
                         }
                       });
    const Correlation<Stored> in{
        dy.raw<Stored>(), dy.dim(0),       dy.dim(1), dy.dim(2),       OC,
        vertical.taps,    horizontal.taps, 1,         vertical.offset, horizontal.offset,
        vertical.count,   horizontal.count};
    correlate<Stored>(in, panels,
                      {dx.raw<Stored>() + (vertical.first * W + horizontal.first) * C, H * W * C,
                       s * W * C, s * C});
  }
}

// The pixels of a block for the weight gradient: a run of x for each, and their dy, packed.
template <class T>
struct PixelBlock {
  const T* x;  // of pixel (0, 0, 0), at the tile's first number
  int64_t images, rows, columns;
  int64_t image_stride, row_stride, column_stride;
  const T* dy;  // [pixels, one panel]
};

// A tile of dw: target[i][j] (+)= Σ_pixels x_pixel[i] · dy_pixel[j], i < MR, j < NV vectors; ldw
// between rows of dw.
template <class T, int MR, int NV, Store mode>
[[gnu::noinline]] void outer_tile(const PixelBlock<T>& block, T* target, int64_t ldw) {
  Accumulators<T, MR, NV> dw;
  const T* dy = block.dy;
  for (int64_t m = 0; m < block.images; ++m) {
    for (int64_t i = 0; i < block.rows; ++i) {
      const T* x = block.x + m * block.image_stride + i * block.row_stride;
      for (int64_t j = 0; j < block.columns; ++j, x += block.column_stride, dy += NV * kLanes<T>)
        dw.add_outer_product([&](int r) { return x[r]; }, dy);
    }
  }
  dw.template store_to<mode>([=](int r) { return target + r * ldw; });
}

// The same, of which only the first `columns` numbers of a row belong to dw.
template <class T, int MR, int NV, Store mode>
MOCO_ALWAYS_INLINE void outer_any_tile(const PixelBlock<T>& block, T* target, int64_t ldw,
                                       int64_t columns) {
  if (columns == NV * kLanes<T>) return outer_tile<T, MR, NV, mode>(block, target, ldw);
  on_whole_rows<T, MR, NV>(
      [=](int r) { return target + r * ldw; }, columns,
      [&](T* copy, int64_t stride) { outer_tile<T, MR, NV, mode>(block, copy, stride); });
}

template <class T, int NV, Store mode>
void outer_rows(PixelBlock<T> block, int64_t count, T* target, int64_t ldw, int64_t columns) {
  if (count == kTileRows)
    return outer_any_tile<T, kTileRows, NV, mode>(block, target, ldw, columns);
  for (; count >= kTailRows; count -= kTailRows, block.x += kTailRows, target += kTailRows * ldw)
    outer_any_tile<T, kTailRows, NV, mode>(block, target, ldw, columns);
  for (; count > 0; --count, ++block.x, target += ldw)
    outer_any_tile<T, 1, NV, mode>(block, target, ldw, columns);
}

// Columns [first, first + columns) of dy's pixels, `width` apart, padded with zeros.
template <class Stored, class T = Arithmetic<Stored>>
const T* pack_gradient(const Stored* dy, int64_t pixels, int64_t OC, int64_t columns,
                       int64_t width) {
  T* packed =
      static_cast<T*>(scratch(kGradientSlot, static_cast<size_t>(pixels * width) * sizeof(T)));
  for (int64_t p = 0; p < pixels; ++p) {
    copy_numbers(dy + p * OC, columns, packed + p * width);
    for (int64_t j = columns; j < width; ++j) packed[p * width + j] = 0;
  }
  return packed;
}

template <class Stored>
void backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config, const Tensor& dw) {
  using T = Arithmetic<Stored>;
  const int64_t OC = dw.dim(3), KH = dw.dim(0), M = dw.dim(1) * dw.dim(2);
  const Correlation<Stored> in = forward_correlation<Stored>(x, KH, dw.dim(1), config, dy);
  const Blocks blocks(in);
  const PackedPanels<T> shape{nullptr, 0, OC};  // only for the panels' widths
  const int64_t row_tiles = ceil_div(M, kTileRows);
  const int64_t tiles = shape.panels() * KH * row_tiles;  // of dw
  const int64_t parts = smaller(tiles, num_threads());
  parallel_tasks(parts, [&](int64_t part) {
    const int64_t begin = tiles * part / parts, end = tiles * (part + 1) / parts;
    for (int64_t index = 0; index < blocks.count; ++index) {
      const Block block = blocks.at(index);
      const BlockInput<T> input = input_of(in, block);
      const int64_t pixels = block.images * block.rows * in.OW;
      const Stored* block_dy = dy.raw<Stored>() + (block.image * in.OH + block.row) * in.OW * OC;
      const T* packed = nullptr;
      int64_t packed_panel = -1;
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t panel = tile / (KH * row_tiles), kh = tile / row_tiles % KH;
        const int64_t row = tile % row_tiles * kTileRows, rows = smaller(kTileRows, M - row);
        const int64_t column = panel * kTileColumns<T>, columns = shape.columns_of(panel);
        if (panel != packed_panel) {
          packed = pack_gradient(block_dy + column, pixels, OC, columns, shape.width_of(panel));
          packed_panel = panel;
        }
        const PixelBlock<T> pixel_block{input.origin + kh * input.row_stride + row,
                                        block.images,
                                        block.rows,
                                        in.OW,
                                        input.image_stride,
                                        in.stride * input.row_stride,
                                        in.stride * in.C,
                                        packed};
        T* target = dw.raw<T>() + (kh * M + row) * OC + column;
        const bool wide = shape.width_of(panel) == kTileColumns<T>;
        const auto add =
            index == 0
                ? (wide ? outer_rows<T, 2, Store::overwrite> : outer_rows<T, 1, Store::overwrite>)
                : (wide ? outer_rows<T, 2, Store::accumulate>
                        : outer_rows<T, 1, Store::accumulate>);
        add(pixel_block, rows, target, OC, columns);
      }
    }
  });
}

}  // namespace

void CpuBackend::conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y) {
  if (winograd_pays(x, w, config)) return winograd_forward(x, w, y);
  with_activation_type(x.dtype(), [&](auto zero) { forward<decltype(zero)>(x, w, config, y); });
}

void CpuBackend::conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx) {
  if (winograd_pays(dx, w, config)) return winograd_backward_data(dy, w, dx);
  with_activation_type(dy.dtype(),
                       [&](auto zero) { backward_data<decltype(zero)>(dy, w, config, dx); });
}

void CpuBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  if (winograd_pays(x, dw, config)) return winograd_backward_weight(x, dy, dw);
  with_activation_type(x.dtype(),
                       [&](auto zero) { backward_weight<decltype(zero)>(x, dy, config, dw); });
}

}  // namespace mocograd::MOCO_ISA
