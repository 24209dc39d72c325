// Kernels that change parameters in place: SGD with momentum and weight decay, and the exponential
// moving average by which MoCo's key encoder follows its query encoder; or both in one pass.
#include "cpu/cpu_backend.h"
#include "cpu/loops.h"

namespace mocograd::MOCO_ISA {
namespace {

#if defined(__FMA__)
MOCO_ALWAYS_INLINE float multiply_add(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
MOCO_ALWAYS_INLINE double multiply_add(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
#endif

// average ← m·average + (1 − m)·θ
template <class T>
struct MovingAverage {
  T keep, take;

  explicit MovingAverage(double m) : keep(static_cast<T>(m)), take(static_cast<T>(1 - m)) {}
  // The same rounding in every loop, whatever the compiler would contract there.
  MOCO_ALWAYS_INLINE T operator()(T average, T theta) const {
#if defined(__FMA__)
    return multiply_add(keep, average, take * theta);
#else
    return keep * average + take * theta;
#endif
  }
};

}  // namespace

// v ← mu·v + (g + lambda·θ);  θ ← θ − lr·v;  average ← m·average + (1 − m)·θ
void CpuBackend::sgd_step(std::span<const SgdUpdate> updates, double lr, double mu, double lambda,
                          double m) {
  for (const SgdUpdate& update : updates) {
    with_float_type(update.g.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* const gradient = update.g.raw<T>();
      T *const velocity = update.v.raw<T>(), *const parameter = update.theta.raw<T>();
      const T rate = static_cast<T>(lr), momentum = static_cast<T>(mu),
              decay = static_cast<T>(lambda);
      const auto step = [=](int64_t i) {
        const T step = momentum * velocity[i] + (gradient[i] + decay * parameter[i]);
        velocity[i] = step;
        parameter[i] -= rate * step;
      };
      if (!update.average.defined()) return for_each_element(update.g.numel(), step);
      T* const average = update.average.raw<T>();
      for_each_element(update.g.numel(), [=, averaged = MovingAverage<T>(m)](int64_t i) {
        step(i);
        average[i] = averaged(average[i], parameter[i]);
      });
    });
  }
}

// θk ← m·θk + (1 − m)·θq
void CpuBackend::ema(std::span<const EmaUpdate> updates, double m) {
  for (const EmaUpdate& update : updates) {
    with_float_type(update.theta_q.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* const query = update.theta_q.raw<T>();
      T* const key = update.theta_k.raw<T>();
      for_each_element(update.theta_q.numel(), [=, averaged = MovingAverage<T>(m)](int64_t i) {
        key[i] = averaged(key[i], query[i]);
      });
    });
  }
}

}  // namespace mocograd::MOCO_ISA
