// Kernels of the loss and of its metrics: normalised rows, softmax with cross entropy, the target's
// rank, the k largest of a row. A warp normalises a row; softmax, rank and the k largest have a block of
// 128 threads for one, whose threads take every 128th element. The losses of the rows are added in a
// fixed order by a kernel of one block: each thread its own, then the lanes of a warp, then the warps.
#include <cmath>
#include <limits>

#include "cuda/row_blocks.h"

namespace mocograd::MOCO_CUDA {
namespace {

Grid one_warp_a_row(const Tensor& x) {
  return one_thread_each(32 * x.dim(0));
}

// Of a kernel with one warp a row: the row, and f(j) for this thread's elements of it.
__device__ int64_t row_of_warp() {
  return grid_index() / 32;
}
template <class F>
__device__ void for_each_column_of_warp(int64_t C, const F& f) {
  for (int64_t j = threadIdx.x % 32; j < C; j += 32) f(j);
}

template <class T>
__global__ void l2_normalize_forward_kernel(int64_t N, int64_t C, const T* x, T eps, T* y,
                                            T* norm) {
  const int64_t i = row_of_warp();
  if (i >= N) return;
  T squares = 0;
  for_each_column_of_warp(C, [&](int64_t j) { squares += x[i * C + j] * x[i * C + j]; });
  const T length = std::sqrt(warp_sum(squares));
  const T divisor = length < eps ? eps : length;  // NaN stays
  if (threadIdx.x % 32 == 0) norm[i] = divisor;
  for_each_column_of_warp(C, [&](int64_t j) { y[i * C + j] = x[i * C + j] / divisor; });
}

template <class T>
__global__ void l2_normalize_backward_kernel(int64_t N, int64_t C, const T* y, const T* norm, T eps,
                                             const T* dy, T* dx) {
  const int64_t i = row_of_warp();
  if (i >= N) return;
  const T divisor = norm[i];
  T dot = 0;
  for_each_column_of_warp(C, [&](int64_t j) { dot += y[i * C + j] * dy[i * C + j]; });
  dot = warp_sum(dot);
  const T along = divisor <= eps ? T{0} : dot;
  for_each_column_of_warp(
      C, [&](int64_t j) { dx[i * C + j] = (dy[i * C + j] - y[i * C + j] * along) / divisor; });
}

// p of one row and its loss, log Σ_j exp(x_j − m) − (x_label − m). The maximum passes over NaN,
// which shows in exp(NaN − m) then.
template <class T>
__global__ void softmax_kernel(int64_t C, const T* x, const int64_t* label, T* p, T* losses) {
  const T* const row = x + blockIdx.x * C;
  T* const probability = p + blockIdx.x * C;
  T max = row[0];
  for_each_column(C, [&](int64_t j) { max = row[j] > max ? row[j] : max; });
  max = block_max(max);
  T sum = 0;
  for_each_column(C, [&](int64_t j) { sum += probability[j] = std::exp(row[j] - max); });
  sum = block_sum(sum);
  const T share = T{1} / sum;
  for_each_column(C, [&](int64_t j) { probability[j] *= share; });
  if (threadIdx.x == 0) losses[blockIdx.x] = std::log(sum) - (row[label[blockIdx.x]] - max);
}

template <class T>
__global__ void cross_entropy_backward_kernel(int64_t N, int64_t C, const T* p,
                                              const int64_t* label, const T* dloss, T* dx) {
  const int64_t i = grid_index();
  if (i >= N * C) return;
  const T factor = *dloss / static_cast<T>(N);
  dx[i] = factor * (i % C == label[i / C] ? p[i] - T{1} : p[i]);
}

template <class T>
__global__ void rank_of_target_kernel(int64_t C, const T* x, const int64_t* label, int64_t* rank) {
  const T* const row = x + blockIdx.x * C;
  const T target = row[label[blockIdx.x]];
  int64_t not_below = 0;
  for_each_column(C, [&](int64_t j) { not_below += !(row[j] < target); });
  not_below = block_sum(not_below);
  if (threadIdx.x == 0) rank[blockIdx.x] = not_below - 1;  // the target is not below itself
}

// An element of a row. Larger values come first, lower indices first among equals; `none`, which is
// behind all of them, has the index of no element.
template <class T>
struct Candidate {
  T value;
  int64_t index;

  __device__ bool before(const Candidate& other) const {
    return value > other.value || (value == other.value && index < other.index);
  }
};

// The first of the block's candidates, to every thread.
template <class T>
__device__ Candidate<T> first_of_block(const Candidate<T>& own) {
  __shared__ T value[kRowThreads];
  __shared__ int64_t index[kRowThreads];
  const int thread = threadIdx.x;
  value[thread] = own.value;
  index[thread] = own.index;
  __syncthreads();
  for (int half = kRowThreads / 2; half > 0; half /= 2) {
    if (thread < half) {
      const Candidate<T> other{value[thread + half], index[thread + half]};
      if (other.before({value[thread], index[thread]})) {
        value[thread] = other.value;
        index[thread] = other.index;
      }
    }
    __syncthreads();
  }
  const Candidate<T> first{value[0], index[0]};
  __syncthreads();  // before the next call writes
  return first;
}

// Each thread keeps the first of its own elements that are not taken yet. k times the block takes
// the first of those, and the thread that had it looks through its elements for the next.
template <class T>
__global__ void top_k_kernel(int64_t M, int64_t k, const T* x, T minus_infinity, T* values,
                             int64_t* indices) {
  const T* const row = x + blockIdx.x * M;
  const Candidate<T> none{minus_infinity, M};
  Candidate<T> own = none;
  for_each_column(M, [&](int64_t j) {
    const Candidate<T> element{row[j], j};
    if (element.before(own)) own = element;
  });
  for (int64_t place = 0; place < k; ++place) {
    const Candidate<T> taken = first_of_block(own);
    if (threadIdx.x == 0) {
      values[blockIdx.x * k + place] = taken.value;
      indices[blockIdx.x * k + place] = taken.index;
    }
    if (own.index != taken.index) continue;
    own = none;
    for_each_column(M, [&](int64_t j) {
      const Candidate<T> element{row[j], j};
      if (taken.before(element) && element.before(own)) own = element;
    });
  }
}

}  // namespace

// norm_i = max(‖x_i‖₂, eps);  y_i = x_i / norm_i
void CudaBackend::l2_normalize_forward(const Tensor& x, double eps, const Tensor& y,
                                       const Tensor& norm) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(l2_normalize_forward_kernel<T>, one_warp_a_row(x), x.dim(0), x.dim(1), x.raw<T>(),
           static_cast<T>(eps), y.raw<T>(), norm.raw<T>());
  });
}

// dx_i = (dy_i − y_i·⟨y_i, dy_i⟩) / norm_i, without the second term where norm_i is eps
void CudaBackend::l2_normalize_backward(const Tensor& y, const Tensor& norm, double eps,
                                        const Tensor& dy, const Tensor& dx) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(l2_normalize_backward_kernel<T>, one_warp_a_row(y), y.dim(0), y.dim(1), y.raw<T>(),
           norm.raw<T>(), static_cast<T>(eps), dy.raw<T>(), dx.raw<T>());
  });
}

// loss = 1/N Σ_i (log Σ_j exp(x_ij − m_i) − (x_{i,label_i} − m_i)),  m_i = max_j x_ij
void CudaBackend::cross_entropy_forward(const Tensor& x, const Tensor& label, const Tensor& p,
                                        const Tensor& loss) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = x.dim(0);
    const Scratch<T> losses(N);
    launch(softmax_kernel<T>, one_block_a_row(x), x.dim(1), x.raw<T>(), label.raw<int64_t>(),
           p.raw<T>(), losses.data());
    mean(N, losses.data(), loss.raw<T>());
  });
}

// dx_ij = dloss/N · (p_ij − [j = label_i])
void CudaBackend::cross_entropy_backward(const Tensor& p, const Tensor& label, const Tensor& dloss,
                                         const Tensor& dx) {
  with_float_type(p.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(cross_entropy_backward_kernel<T>, one_thread_each(p.numel()), p.dim(0), p.dim(1),
           p.raw<T>(), label.raw<int64_t>(), dloss.raw<T>(), dx.raw<T>());
  });
}

// rank_i = how many j ≠ label_i have !(x_ij < x_{i,label_i}), so that NaN counts against the target
void CudaBackend::rank_of_target(const Tensor& x, const Tensor& label, const Tensor& rank) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(rank_of_target_kernel<T>, one_block_a_row(x), x.dim(1), x.raw<T>(), label.raw<int64_t>(),
           rank.raw<int64_t>());
  });
}

// The k largest of each row, largest first, the lower index first among equals
void CudaBackend::top_k(const Tensor& x, const Tensor& value, const Tensor& index) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(top_k_kernel<T>, one_block_a_row(x), x.dim(1), value.dim(1), x.raw<T>(),
           -std::numeric_limits<T>::infinity(), value.raw<T>(), index.raw<int64_t>());
  });
}

}  // namespace mocograd::MOCO_CUDA
