// InfoNCE of Momentum Contrast (He et al. 2020, equation 1), of q against its positives k and the
// queue, as two products by tiles (tile_product.h)
//
//              A                                      B                 C
//   forward    q [N, D]                               queueᵀ [D, K]     logits·T from column 1 on
//   backward   ∂L/∂⟨q_i, queue_j⟩ from logits [N, K]  queue [K, D]      dq, without the positive's part
//
// The forward's result is divided by T on its way to the logits; the backward's A is made, element
// by element, as the tiles are loaded, and never in memory. The queue is long: blocks share it. A
// block has a row of logits for its maximum, sum and loss.
#include <cmath>

#include "cuda/row_blocks.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

// C_mn goes, times a factor, to logits[m·columns + 1 + n].
template <class T>
struct NegativeLogits {
  struct Number {
    T* at;
    T factor;
    __device__ void operator=(T sum) const { *at = factor * sum; }
  };
  struct Row {
    T* first;
    T factor;
    __device__ Number operator[](int n) const { return {first + n, factor}; }
  };

  T* logits;
  int64_t columns;
  T inverse_temperature;
  __device__ Row row(int, int m) const { return {logits + m * columns + 1, inverse_temperature}; }
};

// Of each row the positive's logit, max and sum of its softmax, and its loss; as softmax_kernel.
template <class T>
__global__ void row_softmax_kernel(int64_t columns, const T* positive, T inverse_temperature,
                                   T* logits, T* maxima, T* sums, T* losses) {
  T* const row = logits + blockIdx.x * columns;
  const T first = inverse_temperature * positive[blockIdx.x];
  if (threadIdx.x == 0) row[0] = first;  // which none but itself reads
  T max = first;
  for_each_column(columns, [&](int64_t j) { max = row[j] > max ? row[j] : max; });
  max = block_max(max);
  T sum = 0;
  for_each_column(columns, [&](int64_t j) { sum += std::exp(row[j] - max); });
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  maxima[blockIdx.x] = max;
  sums[blockIdx.x] = sum;
  losses[blockIdx.x] = std::log(sum) - (first - max);
}

// ∂L/∂⟨q_i, queue_j⟩ = dloss/(N·T) · p_i,j+1 as an operand of a product; and ∂L/∂⟨q_i, k_i⟩.
template <class T>
struct LogitGradients {
  struct Outer {
    const T* row;
    T max, share, factor;
  };
  using Inner = int64_t;
  static constexpr bool kInnerIsContiguous = true;

  const T *logits, *max, *sum, *dloss;
  int64_t N, columns;
  T inverse_temperature;

  __device__ Outer outer(int i) const {
    return {logits + i * columns, max[i], T{1} / sum[i], *dloss / static_cast<T>(N)};
  }
  __device__ Inner inner(int j) const { return j; }
  __device__ static T p(const Outer& at, int64_t column) {
    return std::exp(at.row[column] - at.max) * at.share;
  }
  __device__ T load(const Outer& at, Inner j) const {
    return p(at, 1 + j) * at.factor * inverse_temperature;
  }
  __device__ T of_positive(int i) const {
    const Outer at = outer(i);
    return at.factor * (p(at, 0) - T{1}) * inverse_temperature;
  }
};

// dq_i += ∂L/∂⟨q_i, k_i⟩ · k_i
template <class T>
__global__ void add_positive_kernel(LogitGradients<T> gradients, int64_t D, const T* k, T* dq) {
  const int64_t e = grid_index();
  if (e < gradients.N * D) dq[e] += gradients.of_positive(static_cast<int>(e / D)) * k[e];
}

}  // namespace

// logits_i = [⟨q_i, k_i⟩ | ⟨q_i, queue_j⟩] / T;  loss = 1/N Σ_i (log sum_i − (logits_i0 − max_i))
void CudaBackend::info_nce_forward(const Tensor& q, const Tensor& k, const Tensor& queue,
                                   double temperature, const Tensor& logits, const Tensor& max,
                                   const Tensor& sum, const Tensor& loss) {
  const int64_t N = q.dim(0), D = q.dim(1), K = queue.dim(0);
  const Tensor positive = Tensor::empty({N}, q.options());
  row_dot(q, k, positive);
  with_float_type(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T factor = static_cast<T>(1 / temperature);
    using Rows = MatrixOperand<T, true>;
    tile_product_to<T>(Rows{q.raw<T>(), D}, Rows{queue.raw<T>(), D},
                       NegativeLogits<T>{logits.raw<T>(), 1 + K, factor},
                       product_shape<T>(N, K, D));
    const Scratch<T> losses(N);
    launch(row_softmax_kernel<T>, one_block_a_row(q), 1 + K, positive.raw<T>(), factor,
           logits.raw<T>(), max.raw<T>(), sum.raw<T>(), losses.data());
    mean(N, losses.data(), loss.raw<T>());
  });
}

// dq_i = dloss/(N·T) · (Σ_j p_i,j+1 queue_j − (1 − p_i0) k_i)
void CudaBackend::info_nce_backward(const Tensor& logits, const Tensor& max, const Tensor& sum,
                                    const Tensor& k, const Tensor& queue, double temperature,
                                    const Tensor& dloss, const Tensor& dq) {
  const int64_t N = dq.dim(0), D = dq.dim(1), K = queue.dim(0);
  with_float_type(dq.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const LogitGradients<T> gradients{logits.raw<T>(),
                                      max.raw<T>(),
                                      sum.raw<T>(),
                                      dloss.raw<T>(),
                                      N,
                                      1 + K,
                                      static_cast<T>(1 / temperature)};
    tile_product(gradients, MatrixOperand<T, false>{queue.raw<T>(), D}, N, D, K, dq.raw<T>());
    launch(add_positive_kernel<T>, one_thread_each(N * D), gradients, D, k.raw<T>(), dq.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
