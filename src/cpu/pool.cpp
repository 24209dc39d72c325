// Pooling kernels, NHWC: 3×3 max-pool with stride 2 and padding 1, and the average over all pixels.
// Channels are the vector; a task is a row of pixels, or an image.
#include "cpu/column_sums.h"
#include "cpu/cpu_backend.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {
namespace {

// A value beats the best so far if it is larger, or NaN where the best is not.
template <class T>
void keep_larger(const T* x, uint8_t tap, int64_t C, T* best, uint8_t* best_tap) {
  for (int64_t c = 0; c < C; ++c) {
    const Arithmetic<T> value = x[c], so_far = best[c];
    const bool wins = !(value <= so_far) & (so_far == so_far);
    best[c] = wins ? x[c] : best[c];
    best_tap[c] = wins ? tap : best_tap[c];
  }
}

// y[c], tap[c] of the window whose centre is pixel (h, w) of one image. The taps that padding cuts
// off take no part; the centre tap always does.
template <class T>
void max_pool_window(const T* image, int64_t H, int64_t W, int64_t C, int64_t h, int64_t w, T* y,
                     uint8_t* tap) {
  bool first = true;
  for (int kh = 0; kh < 3; ++kh) {
    for (int kw = 0; kw < 3; ++kw) {
      const int64_t ih = h - 1 + kh, iw = w - 1 + kw;
      if (ih < 0 || ih >= H || iw < 0 || iw >= W) continue;
      const T* const pixel = image + (ih * W + iw) * C;
      const uint8_t number = static_cast<uint8_t>(kh * 3 + kw);
      if (first) {
        __builtin_memcpy(y, pixel, static_cast<size_t>(C) * sizeof(T));
        __builtin_memset(tap, number, static_cast<size_t>(C));
        first = false;
      } else {
        keep_larger(pixel, number, C, y, tap);
      }
    }
  }
}

}  // namespace

// y[n,oh,ow,c] = max over kh, kw of x[n, 2·oh − 1 + kh, 2·ow − 1 + kw, c];  tap = 3·kh + kw
void CpuBackend::max_pool_forward(const Tensor& x, const Tensor& y, const Tensor& tap) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t H = x.dim(1), W = x.dim(2), C = x.dim(3), OH = y.dim(1), OW = y.dim(2);
    for_each_row(x.dim(0) * OH, OW * C,
                 [=, in = x.raw<T>(), out = y.raw<T>(), taps = tap.raw<uint8_t>()](int64_t row) {
                   const T* const image = in + row / OH * (H * W * C);
                   for (int64_t ow = 0; ow < OW; ++ow) {
                     const int64_t pixel = (row * OW + ow) * C;
                     max_pool_window(image, H, W, C, 2 * (row % OH), 2 * ow, out + pixel,
                                     taps + pixel);
                   }
                 });
  });
}

// dx[n,h,w,c] = Σ of dy[n,oh,ow,c] over the windows (at most four) that (h, w) won:
// h = 2·oh − 1 + kh, w = 2·ow − 1 + kw, tap = 3·kh + kw
void CpuBackend::max_pool_backward(const Tensor& dy, const Tensor& tap, const Tensor& dx) {
  with_activation_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const int64_t H = dx.dim(1), W = dx.dim(2), C = dx.dim(3), OH = dy.dim(1), OW = dy.dim(2);
    for_each_row(
        dx.dim(0) * H, W * C,
        [=, dout = dy.raw<T>(), taps = tap.raw<uint8_t>(), din = dx.raw<T>()](int64_t row) {
          const int64_t n = row / H, h = row % H;
          A* const sum = scratch_of<A>(0, C);
          for (int64_t w = 0; w < W; ++w) {
            T* const gradient = din + (row * W + w) * C;
            for (int64_t c = 0; c < C; ++c) sum[c] = 0;
            for (int64_t oh = h / 2; oh <= (h + 1) / 2 && oh < OH; ++oh) {
              for (int64_t ow = w / 2; ow <= (w + 1) / 2 && ow < OW; ++ow) {
                const int64_t window = ((n * OH + oh) * OW + ow) * C;
                const T* const part = dout + window;
                const uint8_t* const winner = taps + window;
                const uint8_t number =
                    static_cast<uint8_t>((h + 1 - 2 * oh) * 3 + (w + 1 - 2 * ow));
#pragma GCC ivdep
                for (int64_t c = 0; c < C; ++c) sum[c] += winner[c] == number ? A{part[c]} : A{0};
              }
            }
            for (int64_t c = 0; c < C; ++c) gradient[c] = static_cast<T>(sum[c]);
          }
        });
  });
}

// y_nc = 1/(H·W) · Σ_hw x_nhwc
void CpuBackend::global_avg_pool_forward(const Tensor& x, const Tensor& y) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const int64_t C = x.dim(3), elements = x.dim(1) * x.dim(2) * C;  // of one image
    const int64_t fold = fold_of<A>(C), period = fold * C;
    const A share = A{1} / static_cast<A>(x.dim(1) * x.dim(2));
    for_each_row(x.dim(0), elements, [=, in = x.raw<T>(), out = y.raw<T>()](int64_t n) {
      const T* const image = in + n * elements;
      A* const sums = scratch_of<A>(0, period);
      sum_columns<1, kStreamed>(
          elements, period, sums,
          [=](auto access, int64_t i, int64_t, auto* s) { s[0] += access.load(image + i); });
      add_folds(sums, fold, C, sums);
      for (int64_t c = 0; c < C; ++c) out[n * C + c] = static_cast<T>(sums[c] * share);
    });
  });
}

// dx_nhwc = dy_nc / (H·W)
void CpuBackend::global_avg_pool_backward(const Tensor& dy, const Tensor& dx) {
  with_activation_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t pixels = dx.dim(1) * dx.dim(2), C = dx.dim(3);
    const auto share = 1 / static_cast<Arithmetic<T>>(pixels);
    for_each_row(dx.dim(0) * pixels, C, [=, dout = dy.raw<T>(), din = dx.raw<T>()](int64_t pixel) {
      const T* const gradient = dout + pixel / pixels * C;
      for_each_column<Arithmetic<T>>(C, [&](auto access, int64_t j) {
        access.store(din + pixel * C + j, access.load(gradient + j) * share);
      });
    });
  });
}

}  // namespace mocograd::MOCO_ISA
