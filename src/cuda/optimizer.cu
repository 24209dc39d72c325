// Kernels that change parameters in place, one thread for each: SGD with momentum and weight decay,
// and the exponential moving average by which MoCo's key encoder follows its query encoder.
#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {
namespace {

template <class T>
__global__ void sgd_kernel(int64_t n, const T* g, T lr, T mu, T lambda, T* v, T* theta) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const T step = mu * v[i] + (g[i] + lambda * theta[i]);
  v[i] = step;
  theta[i] -= lr * step;
}

template <class T>
__global__ void ema_kernel(int64_t n, const T* theta_q, T keep, T take, T* theta_k) {
  const int64_t i = grid_index();
  if (i < n) theta_k[i] = keep * theta_k[i] + take * theta_q[i];
}

}  // namespace

// v ← mu·v + (g + lambda·θ);  θ ← θ − lr·v
void CudaBackend::sgd_step(const Tensor& g, double lr, double mu, double lambda, const Tensor& v,
                           const Tensor& theta) {
  with_float_type(g.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = g.numel();
    launch(sgd_kernel<T>, one_thread_each(n), n, g.raw<T>(), static_cast<T>(lr), static_cast<T>(mu),
           static_cast<T>(lambda), v.raw<T>(), theta.raw<T>());
  });
}

// θk ← m·θk + (1 − m)·θq
void CudaBackend::ema(const Tensor& theta_q, double m, const Tensor& theta_k) {
  with_float_type(theta_q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = theta_q.numel();
    launch(ema_kernel<T>, one_thread_each(n), n, theta_q.raw<T>(), static_cast<T>(m),
           static_cast<T>(1 - m), theta_k.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
