// conv2d: forward and data gradient, as tiles of the micro-kernel; conv2d_weight.cpp has the weight
// gradient
//
// Correlation. Seen from one output pixel, the input that it reads is
// KH runs of KW·C consecutive numbers, one image row apart: exactly the row of A that
// micro_kernel.h wants, so nothing is gathered into a matrix. Only the zeros of the padding must be
// there: a block of the input, some images or a band of rows of one, is copied with its border into
// scratch memory that stays in the L2 cache. Where there is no border (1×1 kernels) it is read
// where it lies; but bf16 is always copied, into the f32 that it is computed in.
//
// Data gradient. dx is a correlation of dy with the flipped taps: one of stride 1 for each of the s²
// classes into which the pixels of dx fall with stride s (tensor/parity_class.h).
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
constexpr int64_t kBlockPixels = 64;        // or so much output that a panel serves several tiles
constexpr int64_t kBlocks = 8;  // images make a multiple of so many blocks, for threads to share
enum ScratchSlot { kPanelSlot, kInputSlot, kPointerSlot, kOutputPointerSlot };

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
    const int64_t wanted =
        larger(kBlockBytes / image_bytes, kBlockPixels / larger(1, in.OH * in.OW));
    const int64_t parts = ceil_div(larger(1, ceil_div(N, larger(1, wanted))), kBlocks) * kBlocks;
    images = larger(1, ceil_div(N, parts));
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

// Copies the block's input with its border of zeros into this thread's scratch memory.
template <class Stored, class T = Arithmetic<Stored>>
BlockInput<T> copy_with_border(const Correlation<Stored>& in, const Block& block) {
  const int64_t rows = in.input_rows(block.rows), columns = in.input_columns();
  const int64_t row_numel = columns * in.C;
  T* copy = scratch_of<T>(kInputSlot, block.images * rows * row_numel);
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
    const T** a = scratch_of<const T*>(kPointerSlot, pixels);
    Stored** c = scratch_of<Stored*>(kOutputPointerSlot, pixels);
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

}  // namespace

void CpuBackend::conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y) {
  if (winograd_pays(x, w, config)) return winograd_forward(x, w, config.stride, y);
  with_activation_type(x.dtype(), [&](auto zero) { forward<decltype(zero)>(x, w, config, y); });
}

void CpuBackend::conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx) {
  if (winograd_pays(dx, w, config)) return winograd_backward_data(dy, w, config.stride, dx);
  with_activation_type(dy.dtype(),
                       [&](auto zero) { backward_data<decltype(zero)>(dy, w, config, dx); });
}

bool CpuBackend::conv2d_forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                           const Tensor& y, const Tensor& mean, const Tensor& var) {
  if (!winograd_pays(x, w, config)) return conv2d_forward(x, w, config, y), false;
  winograd_forward_statistics(x, w, config.stride, y, mean, var);
  return true;
}

bool CpuBackend::conv2d_backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                           const Tensor& h, const Tensor& x, const Tensor& mean,
                                           const Tensor& dz, const Tensor& sums) {
  if (!winograd_pays(dz, w, config)) return conv2d_backward_data(dy, w, config, dz), false;
  winograd_backward_data_sums(dy, w, config.stride, h, x, mean, dz, sums);
  return true;
}

}  // namespace mocograd::MOCO_ISA
