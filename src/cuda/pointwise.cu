// Pointwise kernels: one output element from the input elements at the same place, one thread for each
// vector of them (vectors.h). All are bound by memory.
#include "cuda/tensor_list.h"
#include "cuda/vectors.h"

namespace mocograd::MOCO_CUDA {
namespace {

template <class T>
__global__ void fill_kernel(int64_t n, T value, T* y) {
  map(
      n, [&] { return value; }, y);
}

template <class From, class To>
__global__ void convert_kernel(int64_t n, const From* x, To* y) {
  map(
      n, [](From x) { return static_cast<To>(static_cast<Arithmetic<From>>(x)); }, y, x);
}

template <class T>
__global__ void add_kernel(int64_t n, const T* a, const T* b, T* y) {
  using A = Arithmetic<T>;
  map(
      n, [](A a, A b) { return static_cast<T>(a + b); }, y, a, b);
}

template <class T>
__global__ void multiply_kernel(int64_t n, const T* a, const T* b, T* y) {
  map(
      n, [](T a, T b) { return a * b; }, y, a, b);
}

template <class T>
__global__ void scale_kernel(int64_t n, const T* x, T factor, T* y) {
  map(
      n, [&](T x) { return factor * x; }, y, x);
}

template <class T>
__global__ void relu_forward_kernel(int64_t n, const T* x, T* y) {
  map(
      n, [](T x) { return Arithmetic<T>{x} < 0 ? T(0) : x; }, y, x);
}

template <class T>
__global__ void relu_backward_kernel(int64_t n, const T* y, const T* dy, T* dx) {
  map(
      n, [](T y, T dy) { return Arithmetic<T>{y} > 0 ? dy : T(0); }, dx, y, dy);
}

template <class T>
__global__ void find_non_finite_kernel(TensorList<T, 1> list, int64_t* y) {
  const TensorPart part = list.part();
  const T* const x = list.array(part.tensor, 0);
  bool finite = true;
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    finite &= x[i] - x[i] == 0;
  if (!finite) y[part.tensor] = 1;  // whoever else writes, writes the same
}

}  // namespace

// y_i = value
void CudaBackend::fill(const Tensor& y, double value) {
  with_element_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(fill_kernel<T>, one_thread_a_vector<T>(n), n, static_cast<T>(value), y.raw<T>());
  });
}

// y_i = x_i, by C++'s conversion from one type to the other
void CudaBackend::convert(const Tensor& x, const Tensor& y) {
  with_element_type(x.dtype(), [&](auto from) {
    with_element_type(y.dtype(), [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const int64_t n = y.numel();
      launch(convert_kernel<From, To>, one_thread_a_vector<From, To>(n), n, x.raw<From>(),
             y.raw<To>());
    });
  });
}

// y_i = a_i + b_i
void CudaBackend::add(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(add_kernel<T>, one_thread_a_vector<T>(n), n, a.raw<T>(), b.raw<T>(), y.raw<T>());
  });
}

// y_i = a_i · b_i
void CudaBackend::multiply(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(multiply_kernel<T>, one_thread_a_vector<T>(n), n, a.raw<T>(), b.raw<T>(), y.raw<T>());
  });
}

// y_i = factor · x_i
void CudaBackend::scale(const Tensor& x, double factor, const Tensor& y) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(scale_kernel<T>, one_thread_a_vector<T>(n), n, x.raw<T>(), static_cast<T>(factor),
           y.raw<T>());
  });
}

// y_i = max(0, x_i). Written so that NaN, which is not below zero, stays.
void CudaBackend::relu_forward(const Tensor& x, const Tensor& y) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(relu_forward_kernel<T>, one_thread_a_vector<T>(n), n, x.raw<T>(), y.raw<T>());
  });
}

// dx_i = dy_i where y_i > 0, else 0
void CudaBackend::relu_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  with_activation_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(relu_backward_kernel<T>, one_thread_a_vector<T>(n), n, y.raw<T>(), dy.raw<T>(),
           dx.raw<T>());
  });
}

// y_i = [some number of x_i is NaN or infinite]
void CudaBackend::find_non_finite(const Tensor* x, const Tensor& y) {
  fill(y, 0);
  if (y.numel() == 0) return;
  with_float_type(x[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_list<TensorList<T, 1>>(
        static_cast<size_t>(y.numel()), [&](size_t i) { return std::array{&x[i]}; },
        [&](const TensorList<T, 1>& list, size_t first) {
          launch(find_non_finite_kernel<T>, list.grid(), list, y.raw<int64_t>() + first);
        });
  });
}

}  // namespace mocograd::MOCO_CUDA
