// Kernels that change parameters in place, all parameters in one launch: SGD with momentum and weight
// decay, and the exponential moving average by which MoCo's key encoder follows its query encoder.
#include "cuda/tensor_list.h"

namespace mocograd::MOCO_CUDA {
namespace {

// list: g, v and θ of each parameter
template <class T>
__global__ void sgd_kernel(TensorList<T, 3> list, T lr, T mu, T lambda) {
  const TensorPart part = list.part();
  const T* const g = list.array(part.tensor, 0);
  T *const v = list.array(part.tensor, 1), *const theta = list.array(part.tensor, 2);
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    const T step = mu * v[i] + (g[i] + lambda * theta[i]);
    v[i] = step;
    theta[i] -= lr * step;
  }
}

// list: θq and θk of each parameter
template <class T>
__global__ void ema_kernel(TensorList<T, 2> list, T keep, T take) {
  const TensorPart part = list.part();
  const T* const theta_q = list.array(part.tensor, 0);
  T* const theta_k = list.array(part.tensor, 1);
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    theta_k[i] = keep * theta_k[i] + take * theta_q[i];
}

}  // namespace

// v ← mu·v + (g + lambda·θ);  θ ← θ − lr·v
void CudaBackend::sgd_step(std::span<const SgdUpdate> updates, double lr, double mu,
                           double lambda) {
  if (updates.empty()) return;
  with_float_type(updates[0].g.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_list<TensorList<T, 3>>(
        updates.size(),
        [&](size_t i) {
          return std::array{&updates[i].g, &updates[i].v, &updates[i].theta};
        },
        [&](const TensorList<T, 3>& list, size_t /*first*/) {
          launch(sgd_kernel<T>, list.grid(), list, static_cast<T>(lr), static_cast<T>(mu),
                 static_cast<T>(lambda));
        });
  });
}

// θk ← m·θk + (1 − m)·θq
void CudaBackend::ema(std::span<const EmaUpdate> updates, double m) {
  if (updates.empty()) return;
  with_float_type(updates[0].theta_q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_list<TensorList<T, 2>>(
        updates.size(),
        [&](size_t i) {
          return std::array{&updates[i].theta_q, &updates[i].theta_k};
        },
        [&](const TensorList<T, 2>& list, size_t /*first*/) {
          launch(ema_kernel<T>, list.grid(), list, static_cast<T>(m), static_cast<T>(1 - m));
        });
  });
}

}  // namespace mocograd::MOCO_CUDA
