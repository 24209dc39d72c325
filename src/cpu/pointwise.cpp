// Pointwise kernels: one output element from the input elements at the same place. All of them are
// bound by memory; the compiler vectorises the loops. (The backend object lives here too.)
#include <new>
#include <type_traits>

#include "cpu/cpu_backend.h"
#include "cpu/loops.h"

namespace mocograd::MOCO_ISA {
namespace {

// By the bits, because a loop over integers is vectorised. In an infinity and in a NaN, and in
// nothing else, the exponent is all ones: adding a one to it then carries into the sign's place.
template <class T>
bool all_finite(const T* x, int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits kExponent = __builtin_bit_cast(Bits, static_cast<T>(__builtin_inf()));
  constexpr Bits kOne = kExponent & (~kExponent + 1), kSign = kExponent + kOne;
  Bits carries = 0;
  for (int64_t i = 0; i < n; ++i) carries |= (__builtin_bit_cast(Bits, x[i]) & kExponent) + kOne;
  return !(carries & kSign);
}

}  // namespace

CpuBackend::~CpuBackend() = default;

Backend& cpu_backend() {
  // Never destroyed: tensors may outlive main. (Plain `new` could throw, and handling that would
  // leave a shared symbol in this file.)
  alignas(CpuBackend) static char memory[sizeof(CpuBackend)];
  static CpuBackend* const backend = new (memory) CpuBackend;
  return *backend;
}

// y_i = value
void CpuBackend::fill(const Tensor& y, double value) {
  with_element_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* const out = y.raw<T>();
    const T number = static_cast<T>(value);
    for_each_element(y.numel(), [=](int64_t i) { out[i] = number; });
  });
}

// y_i = x_i, by C++'s conversion from one type to the other
void CpuBackend::convert(const Tensor& x, const Tensor& y) {
  with_element_type(x.dtype(), [&](auto from) {
    with_element_type(y.dtype(), [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const From* const in = x.raw<From>();
      To* const out = y.raw<To>();
      for_each_element(y.numel(), [=](int64_t i) {
        out[i] = static_cast<To>(static_cast<Arithmetic<From>>(in[i]));
      });
    });
  });
}

// y_i = a_i + b_i
void CpuBackend::add(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const T *const left = a.raw<T>(), *const right = b.raw<T>();
    T* const out = y.raw<T>();
    for_each_element(y.numel(),
                     [=](int64_t i) { out[i] = static_cast<T>(A{left[i]} + A{right[i]}); });
  });
}

// y_i = a_i · b_i
void CpuBackend::multiply(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *const left = a.raw<T>(), *const right = b.raw<T>();
    T* const out = y.raw<T>();
    for_each_element(y.numel(), [=](int64_t i) { out[i] = left[i] * right[i]; });
  });
}

// y_i = factor · x_i
void CpuBackend::scale(const Tensor& x, double factor, const Tensor& y) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.raw<T>();
    T* const out = y.raw<T>();
    const T number = static_cast<T>(factor);
    for_each_element(y.numel(), [=](int64_t i) { out[i] = number * in[i]; });
  });
}

// y_i = max(0, x_i). Written so that NaN, which is not below zero, stays.
void CpuBackend::relu_forward(const Tensor& x, const Tensor& y) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.raw<T>();
    T* const out = y.raw<T>();
    for_each_element(y.numel(),
                     [=](int64_t i) { out[i] = Arithmetic<T>{in[i]} < 0 ? T(0) : in[i]; });
  });
}

// dx_i = dy_i where y_i > 0, else 0
void CpuBackend::relu_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *const forward = y.raw<T>(), *const dout = dy.raw<T>();
    T* const din = dx.raw<T>();
    for_each_element(y.numel(), [=](int64_t i) {
      const Arithmetic<T> output = forward[i];
      const T gradient = dout[i];
      din[i] = output > 0 ? gradient : T(0);
    });
  });
}

// y_i = [some number of x_i is NaN or infinite]
void CpuBackend::find_non_finite(const Tensor* x, const Tensor& y) {
  for (int64_t i = 0; i < y.numel(); ++i) {
    int64_t* const found = y.raw<int64_t>() + i;
    *found = 0;
    with_float_type(x[i].dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* const numbers = x[i].raw<T>();
      parallel_chunks(x[i].numel(), kChunk, [&](int64_t begin, int64_t end) {
        if (!all_finite(numbers + begin, end - begin)) __atomic_store_n(found, 1, __ATOMIC_RELAXED);
      });
    });
  }
}

}  // namespace mocograd::MOCO_ISA
