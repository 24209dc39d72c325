// conv2d: forward, data gradient and weight gradient, all as products by tiles (tile_product.h)
//
//                     A                             B                        C
//   forward           pixels × taps of x            w [KH·KW·C, OC]          y  [pixels, OC]
//   data gradient     pixels × taps of dy           w's taps, flipped        dx [pixels, C]
//   weight gradient   taps × pixels of x            dy [pixels, OC]          dw [KH·KW·C, OC]
//
// A is never in memory: Correlation says which number of the image stands in its row and column, or
// that it is a zero of the padding. With stride s the data gradient is s² correlations of stride 1
// (tensor/parity_class.h). The weight gradient is a long sum, over all pixels of the batch, for few
// results: blocks share it.
#include "cuda/tile_product.h"
#include "tensor/parity_class.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Output pixel (i, j) of an image reads KH rows of x from top + i·stride on, and KW columns from
// left + j·stride on.
template <class T>
struct Correlation {
  const T* x;
  int H, W, C;
  int KH, KW, stride, top, left;
  int OH, OW;

  struct Pixel {
    int64_t image;  // its first number
    int row, column;
  };
  struct Tap {
    int kh, kw, c;
  };

  __device__ Pixel pixel(int i) const {
    return {int64_t{i / OW / OH} * H * W * C, i / OW % OH * stride + top, i % OW * stride + left};
  }
  __device__ Tap tap(int k) const { return {k / C / KW, k / C % KW, k % C}; }
  __device__ T load(const Pixel& pixel, const Tap& tap) const {
    const int h = pixel.row + tap.kh, w = pixel.column + tap.kw;
    const bool inside = 0 <= h && h < H && 0 <= w && w < W;
    return inside ? x[pixel.image + (int64_t{h} * W + w) * C + tap.c] : T{0};
  }
};

template <class T>
struct PixelsByTaps {
  using Outer = typename Correlation<T>::Pixel;
  using Inner = typename Correlation<T>::Tap;
  static constexpr bool kInnerIsContiguous = true;
  Correlation<T> in;

  __device__ Outer outer(int i) const { return in.pixel(i); }
  __device__ Inner inner(int k) const { return in.tap(k); }
  __device__ T load(const Outer& pixel, const Inner& tap) const { return in.load(pixel, tap); }
};

template <class T>
struct TapsByPixels {
  using Outer = typename Correlation<T>::Tap;
  using Inner = typename Correlation<T>::Pixel;
  static constexpr bool kInnerIsContiguous = false;
  Correlation<T> in;

  __device__ Outer outer(int i) const { return in.tap(i); }
  __device__ Inner inner(int k) const { return in.pixel(k); }
  __device__ T load(const Outer& tap, const Inner& pixel) const { return in.load(pixel, tap); }
};

// The taps of one parity class, flipped: row k = (th, tw, oc) and column c hold w[kh][kw][c][oc].
template <class T>
struct FlippedTaps {
  using Outer = int64_t;
  using Inner = int64_t;
  static constexpr bool kInnerIsContiguous = true;
  const T* w;
  int KW, C, OC;
  int vertical_residue, vertical_taps, horizontal_residue, horizontal_taps, stride;

  __device__ Outer outer(int c) const { return int64_t{c} * OC; }
  __device__ Inner inner(int k) const {
    const int th = k / OC / horizontal_taps, tw = k / OC % horizontal_taps;
    const int kh = vertical_residue + (vertical_taps - 1 - th) * stride;
    const int kw = horizontal_residue + (horizontal_taps - 1 - tw) * stride;
    return int64_t{kh * KW + kw} * C * OC + k % OC;
  }
  __device__ T load(Outer c, Inner k) const { return w[c + k]; }
};

// The pixels of dx that belong to one parity class, numbered row by row.
template <class T>
struct ClassOutput {
  T* dx;
  int H, W, C;
  int first_row, first_column, stride, rows, columns;

  __device__ T* row(int /*split*/, int m) const {
    const int n = m / columns / rows;
    const int h = first_row + m / columns % rows * stride;
    const int w = first_column + m % columns * stride;
    return dx + ((int64_t{n} * H + h) * W + w) * C;
  }
};

int narrow(int64_t x) {
  return static_cast<int>(x);
}

template <class T>
Correlation<T> forward_correlation(const Tensor& x, int64_t KH, int64_t KW, Conv2dConfig config,
                                   const Tensor& y) {
  const int padding = narrow(config.padding);
  return {x.raw<T>(), narrow(x.dim(1)), narrow(x.dim(2)),      narrow(x.dim(3)),
          narrow(KH), narrow(KW),       narrow(config.stride), -padding,
          -padding,   narrow(y.dim(1)), narrow(y.dim(2))};
}

int64_t pixels_of(const Tensor& y) {
  return y.dim(0) * y.dim(1) * y.dim(2);
}

template <class T>
void backward_data_class(const Tensor& dy, const Tensor& w, const ParityClass& vertical,
                         const ParityClass& horizontal, const Tensor& dx) {
  const int64_t C = dx.dim(3), OC = dy.dim(3);
  const Correlation<T> in{dy.raw<T>(),
                          narrow(dy.dim(1)),
                          narrow(dy.dim(2)),
                          narrow(OC),
                          narrow(vertical.taps),
                          narrow(horizontal.taps),
                          1,
                          narrow(vertical.offset),
                          narrow(horizontal.offset),
                          narrow(vertical.count),
                          narrow(horizontal.count)};
  const FlippedTaps<T> taps{w.raw<T>(),
                            narrow(w.dim(1)),
                            narrow(C),
                            narrow(OC),
                            narrow(vertical.residue),
                            narrow(vertical.taps),
                            narrow(horizontal.residue),
                            narrow(horizontal.taps),
                            narrow(vertical.stride)};
  const ClassOutput<T> output{dx.raw<T>(),
                              narrow(dx.dim(1)),
                              narrow(dx.dim(2)),
                              narrow(C),
                              narrow(vertical.first),
                              narrow(horizontal.first),
                              narrow(vertical.stride),
                              in.OH,
                              in.OW};
  tile_product_to<T>(PixelsByTaps<T>{in}, taps, output,
                     product_shape<T>(dx.dim(0) * vertical.count * horizontal.count, C,
                                      vertical.taps * horizontal.taps * OC));
}

}  // namespace

void CudaBackend::conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                 const Tensor& y) {
  const int64_t K = w.dim(0) * w.dim(1) * w.dim(2), OC = w.dim(3);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    tile_product(PixelsByTaps<T>{forward_correlation<T>(x, w.dim(0), w.dim(1), config, y)},
                 MatrixOperand<T, false>{w.raw<T>(), OC}, pixels_of(y), OC, K, y.raw<T>());
  });
}

void CudaBackend::conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                       const Tensor& dx) {
  with_float_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < config.stride; ++i) {
      for (int64_t j = 0; j < config.stride; ++j) {
        backward_data_class<T>(dy, w, ParityClass(i, dx.dim(1), w.dim(0), config),
                               ParityClass(j, dx.dim(2), w.dim(1), config), dx);
      }
    }
  });
}

void CudaBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                         const Tensor& dw) {
  const int64_t taps = dw.dim(0) * dw.dim(1) * dw.dim(2), OC = dw.dim(3);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    tile_product(TapsByPixels<T>{forward_correlation<T>(x, dw.dim(0), dw.dim(1), config, dy)},
                 MatrixOperand<T, false>{dy.raw<T>(), OC}, taps, OC, pixels_of(dy), dw.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
