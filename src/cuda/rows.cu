// Kernels over the rows of a matrix: bias, sums over rows, products of rows, columns put side by
// side, rows picked by index. One thread for each output element, except where something is summed.
#include "cuda/columns.h"
#include "cuda/warp.h"

namespace mocograd::MOCO_CUDA {
namespace {

template <class T>
__global__ void add_bias_kernel(int64_t n, int64_t C, const T* x, const T* b, T* y) {
  const int64_t i = grid_index();
  if (i < n) y[i] = x[i] + b[i % C];
}

template <class T>
__global__ void scale_rows_kernel(int64_t n, int64_t C, const T* x, const T* s, T* y) {
  const int64_t i = grid_index();
  if (i < n) y[i] = x[i] * s[i / C];
}

// partial: [chunks, C]
template <class T>
__global__ void sum_chunks_kernel(ColumnPartition<1> part, const T* x, T* partial) {
  const ColumnPlace<1> at(part, blockIdx.x);
  Vector<T, 1> sum = {};
  for (int k = 0; k < at.rows; ++k) sum[0] += *at.row(k, x);
  const T of_chunk = column_sums(sum, part.width);
  if (at.own_column >= 0) partial[at.chunk * part.C + at.own_column] = of_chunk;
}

// `lanes` threads of a warp for each row, a power of two.
template <class T>
__global__ void row_dot_kernel(int64_t N, int64_t C, int lanes, const T* a, const T* b, T* y) {
  const int64_t row = grid_index() / lanes, lane = grid_index() % lanes;
  T sum = 0;
  if (row < N) {
    for (int64_t j = lane; j < C; j += lanes) sum += a[row * C + j] * b[row * C + j];
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (row < N && lane == 0) y[row] = sum;
}

template <class T>
__global__ void concat_columns_kernel(int64_t n, int64_t A, int64_t B, const T* a, const T* b,
                                      T* y) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const int64_t row = i / (A + B), j = i % (A + B);
  y[i] = j < A ? a[row * A + j] : b[row * B + j - A];
}

template <class T>
__global__ void split_columns_kernel(int64_t n, int64_t A, int64_t B, const T* y, T* a, T* b) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const int64_t row = i / (A + B), j = i % (A + B);
  (j < A ? a[row * A + j] : b[row * B + j - A]) = y[i];
}

template <class T>
__global__ void gather_rows_kernel(int64_t n, int64_t columns, const T* x, const int64_t* index,
                                   T* y) {
  const int64_t i = grid_index();
  if (i < n) y[i] = x[index[i / columns] * columns + i % columns];
}

}  // namespace

// y_ij = x_ij + b_j
void CudaBackend::add_bias(const Tensor& x, const Tensor& b, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = x.numel();
    launch(add_bias_kernel<T>, one_thread_each(n), n, x.dim(1), x.raw<T>(), b.raw<T>(), y.raw<T>());
  });
}

// y_j = Σ_i x_ij: partial sums over chunks of rows, then the partial sums in order.
void CudaBackend::sum_rows(const Tensor& x, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(1);
    const ColumnPartition<1> part(C, x.dim(0), 1);
    const Scratch<T> partial(part.chunks * C);
    launch(sum_chunks_kernel<T>, part.grid(), part, x.raw<T>(), partial.data());
    add_parts(C, part.chunks, partial.data(), y.raw<T>());
  });
}

// y_ij = s_i · x_ij
void CudaBackend::scale_rows(const Tensor& x, const Tensor& s, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = x.numel();
    launch(scale_rows_kernel<T>, one_thread_each(n), n, x.dim(1), x.raw<T>(), s.raw<T>(),
           y.raw<T>());
  });
}

// y_i = Σ_j a_ij b_ij
void CudaBackend::row_dot(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_float_type(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = a.dim(0), C = a.dim(1);
    int lanes = 32;
    while (lanes > 1 && lanes / 2 >= C) lanes /= 2;
    launch(row_dot_kernel<T>, one_thread_each(N * lanes), N, C, lanes, a.raw<T>(), b.raw<T>(),
           y.raw<T>());
  });
}

// y = [a | b], row by row
void CudaBackend::concat_columns(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(concat_columns_kernel<T>, one_thread_each(n), n, a.dim(1), b.dim(1), a.raw<T>(),
           b.raw<T>(), y.raw<T>());
  });
}

// a and b from y = [a | b]
void CudaBackend::split_columns(const Tensor& y, const Tensor& a, const Tensor& b) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    launch(split_columns_kernel<T>, one_thread_each(n), n, a.dim(1), b.dim(1), y.raw<T>(),
           a.raw<T>(), b.raw<T>());
  });
}

// y_i = x_{index_i}
void CudaBackend::gather_rows(const Tensor& x, const Tensor& index, const Tensor& y) {
  with_element_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = y.numel();
    if (n == 0) return;
    launch(gather_rows_kernel<T>, one_thread_each(n), n, n / index.numel(), x.raw<T>(),
           index.raw<int64_t>(), y.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
