// Kernels that change parameters in place, all parameters in one launch: SGD with momentum and weight
// decay, and the exponential moving average by which MoCo's key encoder follows its query encoder; or
// both in one pass.
#include <cmath>

#include "cuda/tensor_list.h"

namespace mocograd::MOCO_CUDA {
namespace {

// average ← m·average + (1 − m)·θ
template <class T>
struct MovingAverage {
  T keep, take;

  explicit MovingAverage(double m) : keep(static_cast<T>(m)), take(static_cast<T>(1 - m)) {}
  // The same rounding in both kernels, whatever the compiler would contract there.
  __device__ T operator()(T average, T theta) const {
    return std::fma(keep, average, take * theta);
  }
};

// list: g, v and θ of each parameter, and its average where there are four
template <class T, int kArrays>
__global__ void sgd_kernel(TensorList<T, kArrays> list, T lr, T mu, T lambda,
                           MovingAverage<T> averaged) {
  const TensorPart part = list.part();
  const T* const g = list.array(part.tensor, 0);
  T *const v = list.array(part.tensor, 1), *const theta = list.array(part.tensor, 2);
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    const T step = mu * v[i] + (g[i] + lambda * theta[i]);
    const T updated = theta[i] - lr * step;
    v[i] = step;
    theta[i] = updated;
    if constexpr (kArrays == 4) {
      T* const average = list.array(part.tensor, 3);
      average[i] = averaged(average[i], updated);
    }
  }
}

// list: θq and θk of each parameter
template <class T>
__global__ void ema_kernel(TensorList<T, 2> list, MovingAverage<T> averaged) {
  const TensorPart part = list.part();
  const T* const theta_q = list.array(part.tensor, 0);
  T* const theta_k = list.array(part.tensor, 1);
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    theta_k[i] = averaged(theta_k[i], theta_q[i]);
}

}  // namespace

// v ← mu·v + (g + lambda·θ);  θ ← θ − lr·v;  average ← m·average + (1 − m)·θ
void CudaBackend::sgd_step(std::span<const SgdUpdate> updates, double lr, double mu, double lambda,
                           double m) {
  if (updates.empty()) return;
  with_float_type(updates[0].g.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto step = [&]<int kArrays>(const auto& arrays_of) {
      for_each_list<TensorList<T, kArrays>>(
          updates.size(), [&](size_t i) { return arrays_of(updates[i]); },
          [&](const TensorList<T, kArrays>& list, size_t /*first*/) {
            launch(sgd_kernel<T, kArrays>, list.grid(), list, static_cast<T>(lr),
                   static_cast<T>(mu), static_cast<T>(lambda), MovingAverage<T>(m));
          });
    };
    if (updates[0].average.defined()) {
      step.template operator()<4>([](const SgdUpdate& update) {
        return std::array{&update.g, &update.v, &update.theta, &update.average};
      });
    } else {
      step.template operator()<3>([](const SgdUpdate& update) {
        return std::array{&update.g, &update.v, &update.theta};
      });
    }
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
          launch(ema_kernel<T>, list.grid(), list, MovingAverage<T>(m));
        });
  });
}

}  // namespace mocograd::MOCO_CUDA
