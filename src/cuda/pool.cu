// Pooling kernels, NHWC: 3×3 max-pool with stride 2 and padding 1, and the average over all pixels.
// One thread computes one output element, neighbours in the block are neighbouring channels.
#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {
namespace {

// x: [N, H, W, C]; y: [N, OH, OW, C]
struct PoolShape {
  int64_t H, W, C, OH, OW;
};

// Of a pooled element: the largest of its window, and the first tap that has it. The taps that
// padding cuts off take no part; the centre tap always does. A value beats the best so far if it is
// larger, or NaN where the best is not.
template <class T>
__global__ void max_pool_forward_kernel(int64_t n, PoolShape shape, const T* x, T* y,
                                        uint8_t* tap) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const auto [H, W, C, OH, OW] = shape;
  const int64_t c = i % C, ow = i / C % OW, oh = i / C / OW % OH, image = i / C / OW / OH;
  Arithmetic<T> best{};
  int best_tap = -1;
  for (int number = 0; number < 9; ++number) {
    const int64_t h = 2 * oh - 1 + number / 3, w = 2 * ow - 1 + number % 3;
    if (h < 0 || h >= H || w < 0 || w >= W) continue;
    const Arithmetic<T> value = x[((image * H + h) * W + w) * C + c];
    if (best_tap < 0 || (!(value <= best) && best == best)) {
      best = value;
      best_tap = number;
    }
  }
  y[i] = static_cast<T>(best);
  tap[i] = static_cast<uint8_t>(best_tap);
}

// Of an input element: the gradients of the windows (at most four) that it won.
template <class T>
__global__ void max_pool_backward_kernel(int64_t n, PoolShape shape, const T* dy,
                                         const uint8_t* tap, T* dx) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const auto [H, W, C, OH, OW] = shape;
  const int64_t c = i % C, w = i / C % W, h = i / C / W % H, image = i / C / W / H;
  Arithmetic<T> sum = 0;
  for (int64_t oh = h / 2; oh <= (h + 1) / 2 && oh < OH; ++oh) {
    for (int64_t ow = w / 2; ow <= (w + 1) / 2 && ow < OW; ++ow) {
      const int64_t window = ((image * OH + oh) * OW + ow) * C + c;
      const int64_t number = (h + 1 - 2 * oh) * 3 + (w + 1 - 2 * ow);
      if (tap[window] == number) sum += dy[window];
    }
  }
  dx[i] = static_cast<T>(sum);
}

template <class T>
__global__ void avg_pool_forward_kernel(int64_t n, int64_t pixels, int64_t C, const T* x, T* y) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const T* const column = x + i / C * pixels * C + i % C;
  Arithmetic<T> sum = 0;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) sum += column[pixel * C];
  y[i] = static_cast<T>(sum * (1 / static_cast<Arithmetic<T>>(pixels)));
}

template <class T>
__global__ void avg_pool_backward_kernel(int64_t n, int64_t pixels, int64_t C, const T* dy, T* dx) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const Arithmetic<T> share = 1 / static_cast<Arithmetic<T>>(pixels);
  dx[i] = static_cast<T>(dy[i / (pixels * C) * C + i % C] * share);
}

}  // namespace

// y[n,oh,ow,c] = max over kh, kw of x[n, 2·oh − 1 + kh, 2·ow − 1 + kw, c];  tap = 3·kh + kw
void CudaBackend::max_pool_forward(const Tensor& x, const Tensor& y, const Tensor& tap) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const PoolShape shape{x.dim(1), x.dim(2), x.dim(3), y.dim(1), y.dim(2)};
    const int64_t n = y.numel();
    launch(max_pool_forward_kernel<T>, one_thread_each(n), n, shape, x.raw<T>(), y.raw<T>(),
           tap.raw<uint8_t>());
  });
}

// dx[n,h,w,c] = Σ of dy[n,oh,ow,c] over the windows that (h, w) won:
// h = 2·oh − 1 + kh, w = 2·ow − 1 + kw, tap = 3·kh + kw
void CudaBackend::max_pool_backward(const Tensor& dy, const Tensor& tap, const Tensor& dx) {
  with_activation_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const PoolShape shape{dx.dim(1), dx.dim(2), dx.dim(3), dy.dim(1), dy.dim(2)};
    const int64_t n = dx.numel();
    launch(max_pool_backward_kernel<T>, one_thread_each(n), n, shape, dy.raw<T>(),
           tap.raw<uint8_t>(), dx.raw<T>());
  });
}

// y_nc = 1/(H·W) · Σ_hw x_nhwc
void CudaBackend::global_avg_pool_forward(const Tensor& x, const Tensor& y) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(avg_pool_forward_kernel<T>, one_thread_each(n), n, x.dim(1) * x.dim(2), x.dim(3),
           x.raw<T>(), y.raw<T>());
  });
}

// dx_nhwc = dy_nc / (H·W)
void CudaBackend::global_avg_pool_backward(const Tensor& dy, const Tensor& dx) {
  with_activation_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = dx.numel();
    launch(avg_pool_backward_kernel<T>, one_thread_each(n), n, dx.dim(1) * dx.dim(2), dx.dim(3),
           dy.raw<T>(), dx.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
