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
// Sums for a batch norm. Of each panel of channels a strip of pixels is multiplied and at once
// summed over (conv2d_outputs.h), while it lies in the L1 cache. A block's strips make one chunk of
// batch_sums.h; no block reaches into two groups.
//
// Where it pays (winograd.h), 3×3 convolutions are computed by Winograd's algorithm instead.
#include "cpu/conv2d_outputs.h"
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
enum ScratchSlot { kPanelSlot, kInputSlot, kPointerSlot, kOutputPointerSlot, kSumsSlot };

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

// Output rows [row, row + rows) of images [image, image + images), which are of one group.
struct Block {
  int64_t image, images, row, rows, group;
};

// How the output is cut up: whole images, as many as the block size and their group allow, or bands of
// one.
struct Blocks {
  int64_t images, bands, rows;  // a block: `images` images, or `rows` rows of one
  int64_t OH, OW, group_images, per_group, count;

  template <class Stored>
  MOCO_ALWAYS_INLINE Blocks(const Correlation<Stored>& in, int64_t groups)
      : OH(in.OH), OW(in.OW), group_images(in.N / groups) {
    const int64_t row_bytes =
        larger(1, in.input_columns() * in.C) * static_cast<int64_t>(sizeof(Arithmetic<Stored>));
    const int64_t image_bytes = larger(1, in.input_rows(in.OH)) * row_bytes;
    const int64_t wanted =
        larger(kBlockBytes / image_bytes, kBlockPixels / larger(1, in.OH * in.OW));
    const int64_t parts = ceil_div(larger(1, ceil_div(in.N, larger(1, wanted))), kBlocks) * kBlocks;
    images = larger(1, ceil_div(in.N, parts));
    bands = images > 1 ? 1 : smaller(OH, ceil_div(image_bytes, kBlockBytes));
    rows = ceil_div(OH, bands);
    bands = ceil_div(OH, rows);
    per_group = ceil_div(group_images, images) * bands;
    count = groups * per_group;
  }

  MOCO_ALWAYS_INLINE Block at(int64_t index) const {
    const int64_t group = index / per_group, of_group = index % per_group;
    const int64_t image = of_group / bands * images, row = of_group % bands * rows;
    return {group * group_images + image, smaller(images, group_images - image), row,
            smaller(rows, OH - row), group};
  }
  MOCO_ALWAYS_INLINE int64_t pixels(const Block& block) const {
    return block.images * block.rows * OW;
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
BlockInput<T> copy_block(const Correlation<Stored>& in, const Block& block) {
  const int64_t rows = in.input_rows(block.rows), columns = in.input_columns();
  const int64_t row_numel = columns * in.C;
  T* copy = scratch_of<T>(kInputSlot, block.images * rows * row_numel);
  T* target = copy;
  for (int64_t m = 0; m < block.images; ++m) {
    const Stored* const image = in.x + (block.image + m) * in.H * in.W * in.C;
    for (int64_t r = 0; r < rows; ++r, target += row_numel) {
      const int64_t h = block.row * in.stride + in.top + r;
      copy_with_border(h >= 0 && h < in.H ? image + h * in.W * in.C : nullptr, in.W, in.C, in.left,
                       columns, target);
    }
  }
  return {copy, rows * row_numel, row_numel};
}

template <class Stored, class T = Arithmetic<Stored>>
MOCO_ALWAYS_INLINE BlockInput<T> input_of(const Correlation<Stored>& in, const Block& block) {
  if (in.KH == 0 || in.KW == 0 || in.C == 0) return {nullptr, 0, 0};  // nothing is read
  if constexpr (sizeof(Stored) == sizeof(T)) {
    if (!in.needs_border()) {
      const int64_t row = block.row * in.stride + in.top;
      return {in.x + ((block.image * in.H + row) * in.W + in.left) * in.C, in.H * in.W * in.C,
              in.W * in.C};
    }
  }
  return copy_block(in, block);
}

// Where output pixel (n, i, j) is written: y + n·image_stride + i·row_stride + j·column_stride.
template <class Stored>
struct OutputGrid {
  Stored* y;
  int64_t image_stride, row_stride, column_stride;
};

// y = correlation of `in` with the packed taps, b: [KH·KW·C, OC]; sums.add(strip) of every strip.
template <class Stored, class Sums, class T = Arithmetic<Stored>>
void correlate(const Correlation<Stored>& in, const PackedPanels<T>& b,
               const OutputGrid<Stored>& out, const Blocks& blocks, const Sums& sums) {
  parallel_tasks(blocks.count, [&](int64_t index) {
    const Block block = blocks.at(index);
    const BlockInput<T> input = input_of(in, block);
    const int64_t pixels = blocks.pixels(block);
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
    for (int64_t panel = 0; panel < b.panels(); ++panel) {
      for (int64_t begin = 0; begin < pixels; begin += Sums::kPixels) {
        const int64_t count = smaller(Sums::kPixels, pixels - begin);
        multiply_panel(
            TileRows<T, Stored>{a + begin, c + begin, in.KH, in.KW * in.C, input.row_stride}, count,
            b, panel);
        sums.add(Strip<Stored>{c + begin, count, panel * kTileColumns<T>, b.columns_of(panel),
                               block.group, index, begin == 0});
      }
    }
  });
}

// ---- forward -----------------------------------------------------------------------------------

template <class Stored>
Correlation<Stored> forward_correlation(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                        const Tensor& y) {
  return {x.raw<Stored>(), x.dim(0),      x.dim(1),        x.dim(2),        x.dim(3), w.dim(0),
          w.dim(1),        config.stride, -config.padding, -config.padding, y.dim(1), y.dim(2)};
}

template <class Stored, class Sums>
void forward(const Correlation<Stored>& in, const Tensor& w, const Tensor& y, const Blocks& blocks,
             const Sums& sums) {
  using T = Arithmetic<Stored>;
  const int64_t OC = w.dim(3), depth = w.dim(0) * w.dim(1) * w.dim(2);
  const T* taps = w.raw<T>();
  const PackedPanels<T> panels = pack_panels<T>(
      kPanelSlot, depth, OC, [&](int64_t first, int64_t count, T* target, int64_t width) {
        copy_rows(taps + first, OC, depth, count, target, width);
      });
  correlate(in, panels,
            OutputGrid<Stored>{y.raw<Stored>(), y.dim(1) * y.dim(2) * OC, y.dim(2) * OC, OC},
            blocks, sums);
}

template <class Stored>
void forward_alone(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y) {
  const Correlation<Stored> in = forward_correlation<Stored>(x, w, config, y);
  if (y.numel() > 0) forward(in, w, y, Blocks(in, 1), NoSums());
}

template <class Stored>
void forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y,
                        const Tensor& mean, const Tensor& var) {
  const Correlation<Stored> in = forward_correlation<Stored>(x, w, config, y);
  const int64_t groups = mean.dim(0), C = mean.dim(1), partial = kStatisticsSums * C;
  const Blocks blocks(in, groups);
  float* const partials = scratch_of<float>(kSumsSlot, blocks.count * partial);
  forward(in, w, y, blocks, StripStatistics<Stored>{partials, C});
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * blocks.per_group;
    combine_statistics(
        partials + first * partial, blocks.per_group, C,
        [&](int64_t k) { return blocks.pixels(blocks.at(first + k)); }, mean.raw<float>() + g * C,
        var.raw<float>() + g * C);
  }
}

// ---- data gradient -----------------------------------------------------------------------------

// One class of the pixels of dx.
struct DataClass {
  ParityClass vertical, horizontal;

  MOCO_ALWAYS_INLINE DataClass(int64_t index, const Tensor& w, Conv2dConfig config,
                               const Tensor& dx)
      : vertical(index / config.stride, dx.dim(1), w.dim(0), config),
        horizontal(index % config.stride, dx.dim(2), w.dim(1), config) {}

  MOCO_ALWAYS_INLINE bool empty() const { return vertical.count == 0 || horizontal.count == 0; }

  template <class Stored>
  MOCO_ALWAYS_INLINE Correlation<Stored> correlation(const Tensor& dy) const {
    return {dy.raw<Stored>(), dy.dim(0),         dy.dim(1),       dy.dim(2),
            dy.dim(3),        vertical.taps,     horizontal.taps, 1,
            vertical.offset,  horizontal.offset, vertical.count,  horizontal.count};
  }
};

// The class's taps, flipped: row (th, tw, oc) of B holds w[kh][kw][·][oc].
template <class T>
PackedPanels<T> flipped_taps(const Tensor& w, const DataClass& of) {
  const ParityClass &vertical = of.vertical, &horizontal = of.horizontal;
  const int64_t s = vertical.stride, KW = w.dim(1), C = w.dim(2), OC = w.dim(3);
  const T* taps = w.raw<T>();
  return pack_panels<T>(
      kPanelSlot, vertical.taps * horizontal.taps * OC, C,
      [&](int64_t first, int64_t count, T* target, int64_t width) {
        for (int64_t th = 0; th < vertical.taps; ++th) {
          const int64_t kh = vertical.residue + (vertical.taps - 1 - th) * s;
          for (int64_t tw = 0; tw < horizontal.taps; ++tw, target += OC * width) {
            const int64_t kw = horizontal.residue + (horizontal.taps - 1 - tw) * s;
            copy_transposed(taps + ((kh * KW + kw) * C + first) * OC, OC, count, OC, target, width);
          }
        }
      });
}

template <class Stored, class Sums>
void backward_data_class(const Correlation<Stored>& in, const Tensor& w, const DataClass& of,
                         const Tensor& dx, const Blocks& blocks, const Sums& sums) {
  const int64_t s = of.vertical.stride, H = dx.dim(1), W = dx.dim(2), C = dx.dim(3);
  Stored* const first = dx.raw<Stored>() + (of.vertical.first * W + of.horizontal.first) * C;
  correlate(in, flipped_taps<Arithmetic<Stored>>(w, of),
            OutputGrid<Stored>{first, H * W * C, s * W * C, s * C}, blocks, sums);
}

template <class Stored>
void backward_data_alone(const Tensor& dy, const Tensor& w, Conv2dConfig config, const Tensor& dx) {
  for (int64_t index = 0; index < config.stride * config.stride; ++index) {
    const DataClass of(index, w, config, dx);
    const Correlation<Stored> in = of.correlation<Stored>(dy);
    if (!of.empty()) backward_data_class(in, w, of, dx, Blocks(in, 1), NoSums());
  }
}

// Requires: stride 1, of which there is one class.
template <class Stored>
void backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config, const Tensor& h,
                        const Tensor& x, const Tensor& mean, const Tensor& dz, const Tensor& sums) {
  const DataClass all(0, w, config, dz);
  const Correlation<Stored> in = all.correlation<Stored>(dy);
  const int64_t groups = mean.dim(0), C = mean.dim(1), partial = kGradientSums * C;
  const Blocks blocks(in, groups);
  float* const partials = scratch_of<float>(kSumsSlot, blocks.count * partial);
  backward_data_class(in, w, all, dz, blocks,
                      StripGradientSums<Stored>{partials, C, dz.raw<Stored>(), h.raw<Stored>(),
                                                x.raw<Stored>(), mean.raw<float>()});
  for (int64_t g = 0; g < groups; ++g) {
    combine_gradient_sums(partials + g * blocks.per_group * partial, blocks.per_group, C,
                          sums.raw<float>() + g * partial);
  }
}

}  // namespace

void CpuBackend::conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y) {
  if (winograd_pays(x, w, config)) return winograd_forward(x, w, config.stride, y);
  with_activation_type(x.dtype(),
                       [&](auto zero) { forward_alone<decltype(zero)>(x, w, config, y); });
}

void CpuBackend::conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx) {
  if (winograd_pays(dx, w, config)) return winograd_backward_data(dy, w, config.stride, dx);
  with_activation_type(dy.dtype(),
                       [&](auto zero) { backward_data_alone<decltype(zero)>(dy, w, config, dx); });
}

// In f64, which is for checking, none are taken: there a batch norm is to the bit what it is by itself.
bool CpuBackend::conv2d_forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                           const Tensor& y, const Tensor& mean, const Tensor& var) {
  if (x.dtype() == DType::f64 || y.numel() == 0) return conv2d_forward(x, w, config, y), false;
  if (winograd_pays(x, w, config)) {
    winograd_forward_statistics(x, w, config.stride, y, mean, var);
  } else {
    with_stored_type(x.dtype(), [&](auto zero) {
      forward_statistics<decltype(zero)>(x, w, config, y, mean, var);
    });
  }
  return true;
}

// With stride 2 only Winograd's kernel takes them; the networks need no others.
bool CpuBackend::conv2d_backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                           const Tensor& h, const Tensor& x, const Tensor& mean,
                                           const Tensor& dz, const Tensor& sums) {
  const bool winograd = winograd_pays(dz, w, config);
  if (dz.dtype() == DType::f64 || dz.numel() == 0 || (config.stride > 1 && !winograd))
    return conv2d_backward_data(dy, w, config, dz), false;
  if (winograd) {
    winograd_backward_data_sums(dy, w, config.stride, h, x, mean, dz, sums);
  } else {
    with_stored_type(dz.dtype(), [&](auto zero) {
      backward_data_sums<decltype(zero)>(dy, w, config, h, x, mean, dz, sums);
    });
  }
  return true;
}

}  // namespace mocograd::MOCO_ISA
