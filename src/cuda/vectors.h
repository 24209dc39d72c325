// Neighbouring numbers that a thread reads or writes at once: 16 bytes, as many as one instruction
// moves. What memory delivers a second depends on it.
#pragma once

#include <algorithm>

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Vector {
  T of[N];

  __device__ T& operator[](int k) { return of[k]; }
  __device__ const T& operator[](int k) const { return of[k]; }
};

// How many numbers of each of these types a thread takes, so that 16 bytes are the most it moves at
// once.
template <class... T>
inline constexpr int kVectorSize = static_cast<int>(16 / std::max({sizeof(T)...}));

// Whether vectors of N numbers can lie there. So they can at a null pointer.
template <int N, class... T>
__host__ __device__ bool takes_vectors(const T*... p) {
  return ((reinterpret_cast<uintptr_t>(p) % alignof(Vector<T, N>) == 0) && ...);
}

template <int N, class T>
__device__ Vector<T, N> load(const T* x) {
  return *reinterpret_cast<const Vector<T, N>*>(x);
}
template <class T, int N>
__device__ void store(T* y, const Vector<T, N>& vector) {
  *reinterpret_cast<Vector<T, N>*>(y) = vector;
}

// y_i = f(x_i, …) for i < n and any number of x, y among them or not. One thread a vector:
//   launch(kernel, one_thread_a_vector<Y, X…>(n), …), and the kernel does no more than call this.
template <class Y, class F, class... X>
__device__ void map(int64_t n, const F& f, Y* y, const X*... x) {
  constexpr int N = kVectorSize<Y, X...>;
  const int64_t begin = grid_index() * N;
  if (begin + N <= n && takes_vectors<N>(y, x...)) {
    const auto f_of_vectors = [&](const Vector<X, N>&... in) {
      Vector<Y, N> out;
#pragma unroll
      for (int k = 0; k < N; ++k) out[k] = f(in[k]...);
      return out;
    };
    store(y + begin, f_of_vectors(load<N>(x + begin)...));
  } else {
    for (int64_t i = begin; i < begin + N && i < n; ++i) y[i] = f(x[i]...);
  }
}
template <class... T>
Grid one_thread_a_vector(int64_t n) {
  return one_thread_each(ceil_div(n, kVectorSize<T...>));
}

}  // namespace mocograd::MOCO_CUDA
