// The convolution's image, weights and output as the operands of products (conv2d.cu): which number of
// x stands in a row and a column, or that it is a zero of the padding. Nothing is copied into a matrix.
#pragma once

#include <algorithm>

#include "cuda/tile_loader.h"
#include "tensor/parity_class.h"

namespace mocograd::MOCO_CUDA {

// Output pixel (i, j) of an image reads KH rows of x from top + i·stride on, and KW columns from
// left + j·stride on. Requires: x and the output have fewer than 2^31 pixels.
template <class T>
struct Correlation {
  const T* x;
  int H, W, C;
  int KW, stride, top, left;
  int OH, OW;

  struct Position {  // of an output pixel
    int image, i, j;
  };
  struct Pixel {  // the first that it reads, which may lie outside: its number, and where it is
    int number, row, column;
  };
  struct Tap {
    int kh, kw, c;
  };

  __device__ Position position(int i) const { return {i / OW / OH, i / OW % OH, i % OW}; }
  __device__ void advance(Position& at, int steps) const {
    at.j += steps;
    while (at.j >= OW) {
      at.j -= OW;
      if (++at.i == OH) at.i = 0, ++at.image;
    }
  }
  __device__ Pixel pixel(const Position& at) const {
    const int row = at.i * stride + top, column = at.j * stride + left;
    return {(at.image * H + row) * W + column, row, column};
  }

  __device__ Tap tap(int k) const { return {k / C / KW, k / C % KW, k % C}; }
  __device__ void advance(Tap& tap, int steps) const {
    tap.c += steps;
    while (tap.c >= C) {
      tap.c -= C;
      if (++tap.kw == KW) tap.kw = 0, ++tap.kh;
    }
  }

  __device__ Source<T> at(const Pixel& pixel, const Tap& tap) const {
    const int h = pixel.row + tap.kh, w = pixel.column + tap.kw;
    return {x + int64_t{pixel.number + tap.kh * W + tap.kw} * C + tap.c,
            0 <= h && h < H && 0 <= w && w < W};
  }
};

// Row i is an output pixel, column k a tap.
template <class T>
struct PixelsByTaps {
  using Outer = typename Correlation<T>::Pixel;
  using Inner = typename Correlation<T>::Tap;
  static constexpr bool kInnerIsContiguous = true;
  Correlation<T> in;

  __device__ Outer outer(int i) const { return in.pixel(in.position(i)); }
  __device__ Inner inner(int k) const { return in.tap(k); }
  __device__ void advance(Inner& tap, int steps) const { in.advance(tap, steps); }
  __device__ Source<T> at(const Outer& pixel, const Inner& tap) const { return in.at(pixel, tap); }
  __device__ T load(const Outer& pixel, const Inner& tap) const { return at(pixel, tap).load(); }
};

// Row i is a tap, column k an output pixel.
template <class T>
struct TapsByPixels {
  using Outer = typename Correlation<T>::Tap;
  using Inner = typename Correlation<T>::Position;
  static constexpr bool kInnerIsContiguous = false;
  Correlation<T> in;

  __device__ Outer outer(int i) const { return in.tap(i); }
  __device__ Inner inner(int k) const { return in.position(k); }
  __device__ void advance(Inner& position, int steps) const { in.advance(position, steps); }
  __device__ Source<T> at(const Outer& tap, const Inner& position) const {
    return in.at(in.pixel(position), tap);
  }
  __device__ T load(const Outer& tap, const Inner& position) const {
    return at(tap, position).load();
  }
};

// The weights' taps: row k = (kh, kw, c) and column oc hold w[kh][kw][c][oc], zero for the channels c
// that C is short of whole_C (whole_pieces.h).
template <class T>
struct Taps {
  using Outer = int64_t;
  using Inner = int64_t;
  static constexpr bool kInnerIsContiguous = false;
  const T* w;
  int C, whole_C, OC;

  __device__ Outer outer(int oc) const { return oc; }
  __device__ Inner inner(int k) const {
    if (C == whole_C) return int64_t{k} * OC;
    const int c = k % whole_C;
    return c < C ? int64_t{k / whole_C * C + c} * OC : -1;
  }
  __device__ T load(Outer oc, Inner k) const { return k < 0 ? T(0) : w[k + oc]; }
};

// The taps of one parity class, flipped: row k = (th, tw, oc) and column c hold w[kh][kw][c][oc], zero
// for the channels oc that OC is short of whole_OC, and behind the last tap, where kh is negative.
template <class T>
struct FlippedTaps {
  using Outer = int64_t;
  using Inner = int64_t;
  static constexpr bool kInnerIsContiguous = true;
  const T* w;
  int KW, C, OC, whole_OC;
  int vertical_residue, vertical_taps, horizontal_residue, horizontal_taps, stride;

  __device__ Outer outer(int c) const { return int64_t{c} * OC; }
  __device__ Inner inner(int k) const {
    const int oc = k % whole_OC, tap = k / whole_OC;
    if (oc >= OC) return -1;
    const int th = tap / horizontal_taps, tw = tap % horizontal_taps;
    const int kh = vertical_residue + (vertical_taps - 1 - th) * stride;
    const int kw = horizontal_residue + (horizontal_taps - 1 - tw) * stride;
    return int64_t{kh * KW + kw} * C * OC + oc;
  }
  __device__ T load(Outer c, Inner k) const { return k < 0 ? T(0) : w[c + k]; }
};

constexpr int kMostClasses = 16;  // of a launch

// The taps of several classes, one after the other along k, each from a multiple of `step` on and with
// zeros up to the next.
template <class T>
class ClassTaps {
 public:
  using Outer = typename FlippedTaps<T>::Outer;
  using Inner = typename FlippedTaps<T>::Inner;
  static constexpr bool kInnerIsContiguous = true;

  explicit ClassTaps(int step) : step_(step) {}
  // Of the first K columns.
  void add(const FlippedTaps<T>& taps, int64_t K) {
    taps_[size_] = taps;
    begin_[size_ + 1] = begin_[size_] + static_cast<int>(ceil_div(K, step_)) * step_;
    ++size_;
  }
  int begin(int i) const { return begin_[i]; }
  int end() const { return begin_[size_]; }

  __device__ Outer outer(int c) const { return taps_[0].outer(c); }
  __device__ Inner inner(int k) const {
    int i = 0;
    while (k >= begin_[i + 1]) ++i;
    return taps_[i].inner(k - begin_[i]);
  }
  __device__ T load(Outer c, Inner k) const { return taps_[0].load(c, k); }

 private:
  const int step_;
  int size_ = 0;
  FlippedTaps<T> taps_[kMostClasses];
  int begin_[kMostClasses + 1] = {};  // those of class i begin with this k
};

// The pixels of an image y: [N, H, W, C] that a product writes, numbered row by row: those of one
// parity class, or with stride 1 all of them. Blocks that share K write parts instead (MatrixOutput):
// the split is 0.
template <class T>
struct PixelOutput {
  using Element = T;
  T* y;
  int H, W, C;
  int first_row, first_column, stride, rows, columns;

  __host__ __device__ T* row(int /*split*/, int m) const {
    if (stride == 1) return y + int64_t{m} * C;
    const int n = m / columns / rows;
    const int h = first_row + m / columns % rows * stride;
    const int w = first_column + m % columns * stride;
    return y + ((int64_t{n} * H + h) * W + w) * C;
  }
};

// ---- made from tensors ------------------------------------------------------------------------------

inline int narrow(int64_t x) {
  return static_cast<int>(x);
}

// x as an image whose pixels have numbers.
template <class T>
Correlation<T> correlation(const Tensor& x, int64_t KW, int64_t stride, int64_t top, int64_t left,
                           int64_t OH, int64_t OW) {
  MOCO_CHECK(x.dim(0) * x.dim(1) * x.dim(2) < int64_t{1} << 31, "cuda: conv2d of ",
             x.shape().to_string(), ": the pixels may not reach 2^31");
  return {x.raw<T>(),     narrow(x.dim(1)), narrow(x.dim(2)), narrow(x.dim(3)), narrow(KW),
          narrow(stride), narrow(top),      narrow(left),     narrow(OH),       narrow(OW)};
}

// As the forward pass reads x.
template <class T>
Correlation<T> forward_correlation(const Tensor& x, int64_t KW, Conv2dConfig config,
                                   const Tensor& y) {
  return correlation<T>(x, KW, config.stride, -config.padding, -config.padding, y.dim(1), y.dim(2));
}

template <class T>
PixelOutput<T> all_pixels(const Tensor& y, T* raw) {
  const int H = narrow(y.dim(1)), W = narrow(y.dim(2));
  return {raw, H, W, narrow(y.dim(3)), 0, 0, 1, H, W};
}

// One parity class of the data gradient: a product of dy's taps (a: of storage type T) and w's.
template <class T, class Weight>
struct DataGradientClass {
  Correlation<T> dy;
  FlippedTaps<Weight> w;
  PixelOutput<T> dx;
  int64_t M, N, K;
};

// Calls f with each; one without taps has K = 0.
template <class T, class Weight, class F>
void for_each_class(const Tensor& dy, const Tensor& w, Conv2dConfig config, const Tensor& dx,
                    const F& f) {
  for (int64_t index = 0; index < config.stride * config.stride; ++index) {
    const ParityClass rows(index / config.stride, dx.dim(1), w.dim(0), config);
    const ParityClass columns(index % config.stride, dx.dim(2), w.dim(1), config);
    const int64_t OC = dy.dim(3), C = dx.dim(3);
    const FlippedTaps<Weight> taps{
        w.raw<Weight>(),      narrow(w.dim(1)),     narrow(C),         narrow(OC),
        narrow(OC),           narrow(rows.residue), narrow(rows.taps), narrow(columns.residue),
        narrow(columns.taps), narrow(config.stride)};
    PixelOutput<T> output = all_pixels<T>(dx, dx.raw<T>());
    output.first_row = narrow(rows.first), output.first_column = narrow(columns.first);
    output.stride = narrow(config.stride);
    output.rows = narrow(rows.count), output.columns = narrow(columns.count);
    f(DataGradientClass<T, Weight>{
        correlation<T>(dy, std::max<int64_t>(1, columns.taps), 1, rows.offset, columns.offset,
                       rows.count, columns.count),
        taps, output, dx.dim(0) * rows.count * columns.count, C, rows.taps * columns.taps * OC});
  }
}

}  // namespace mocograd::MOCO_CUDA
