// InfoNCE of Momentum Contrast (He et al. 2020, equation 1), of q against its positives k and the
// queue.
//   logits_i = [⟨q_i, k_i⟩ | ⟨q_i, queue_j⟩] / T;  p_ij = exp(logits_ij − max_i) / sum_i
//   loss = 1/N Σ_i −log p_i0;  dq_i = dloss/(N·T) · (Σ_j p_i,j+1 queue_j − (1 − p_i0) k_i)
//
// Forward, the product goes where its logits belong, and one task then has a whole row of them: it
// divides by T on the pass that looks for the maximum. Backward, a task has a few rows of q: it
// makes their ∂L/∂logits in its scratch, where the product finds them in the cache (up to some 10⁴
// keys), so that no such matrix is in memory. Each number is computed as by row_dot, gemm, scale and
// cross_entropy one by one, rounded where they round: they come to the same bits.
#include "cpu/cpu_backend.h"
#include "cpu/matrix_product.h"
#include "cpu/softmax.h"

namespace mocograd::MOCO_ISA {
namespace {

enum ScratchSlot { kPanelSlot, kLossSlot, kGradientSlot, kPositiveSlot };
constexpr int64_t kRowsPerTask = 2 * kTileRows;  // backward

template <class T>
void forward(const Tensor& q, const Tensor& k, const Tensor& queue, T inverse_temperature,
             const Tensor& logits, const Tensor& max, const Tensor& sum, const Tensor& loss) {
  const int64_t N = q.dim(0), D = q.dim(1), K = queue.dim(0), C = 1 + K;
  const T *const queries = q.raw<T>(), *const positives = k.raw<T>();
  const Rows<T> rows{logits.raw<T>(), C};
  multiply_matrix<T>({queries, D}, pack_matrix(kPanelSlot, queue.raw<T>(), true, D, K), N,
                     {rows.first + 1, C});
  T* const losses = scratch_of<T>(kLossSlot, N);
  for_each_row(N, C, [=, maxima = max.raw<T>(), sums = sum.raw<T>()](int64_t i) {
    T* const row = rows.row(i);
    row[0] = sum_of_columns<T>(D, [=](auto access, int64_t d) {
      return access.load(queries + i * D + d) * access.load(positives + i * D + d);
    });
    for_each_column<T>(C, [=](auto access, int64_t j) {
      access.store(row + j, access.load(row + j) * inverse_temperature);
    });
    const T largest = maxima[i] = max_of_row(row, C);
    sums[i] = sum_of_columns<T>(
        C, [=](auto access, int64_t j) { return exponential(access.load(row + j) - largest); });
    losses[i] = logarithm(sums[i]) - (row[0] - largest);
  });
  loss.raw<T>()[0] = mean(losses, N);
}

// From a row of logits ∂L/∂⟨q_i, queue_j⟩ = factor · p_i,j+1 / T, to `negatives`, and p_i0.
template <class T>
T logit_gradient(const T* logits, int64_t K, T max, T sum, T factor, T inverse_temperature,
                 T* negatives) {
  const T share = T{1} / sum;
  for_each_column<T>(K, [=](auto access, int64_t j) {
    const auto p = exponential(access.load(logits + 1 + j) - max) * share;
    access.store(negatives + j, p * factor * inverse_temperature);
  });
  return exponential(logits[0] - max) * share;
}

template <class T>
void backward(const Tensor& logits, const Tensor& max, const Tensor& sum, const Tensor& k,
              const Tensor& queue, T inverse_temperature, const Tensor& dloss, const Tensor& dq) {
  const int64_t N = dq.dim(0), D = dq.dim(1), K = queue.dim(0);
  const T factor = dloss.raw<T>()[0] / static_cast<T>(N);
  const PackedPanels<T> panels = pack_matrix(kPanelSlot, queue.raw<T>(), false, K, D);
  const EvenParts tasks{N, ceil_div(N, kRowsPerTask)};
  const int64_t stride = K + kLanes<T>;  // no power of two, which would send all rows to one set
  parallel_tasks(tasks.count, [&](int64_t task) {
    const int64_t begin = tasks.begin(task), count = tasks.size(task);
    T* const negatives = scratch_of<T>(kGradientSlot, kRowsPerTask * stride);
    T* const of_positive = scratch_of<T>(kPositiveSlot, D);
    const T* a_row[kRowsPerTask];
    T *c_row[kRowsPerTask], p_positive[kRowsPerTask];
    for (int64_t i = 0; i < count; ++i) {
      T* const row = negatives + i * stride;
      p_positive[i] =
          logit_gradient(logits.raw<T>() + (begin + i) * (1 + K), K, max.raw<T>()[begin + i],
                         sum.raw<T>()[begin + i], factor, inverse_temperature, row);
      a_row[i] = row;
      c_row[i] = dq.raw<T>() + (begin + i) * D;
    }
    for (int64_t panel = 0; panel < panels.panels(); ++panel)
      multiply_panel(TileRows<T>{a_row, c_row, 1, K, 0}, count, panels, panel);
    // In loops of their own p and the product below are rounded, as they are one by one: within one
    // the compiler would make a multiply-add of each and what comes next.
    for (int64_t i = 0; i < count; ++i) {
      const T* const key = k.raw<T>() + (begin + i) * D;
      const T weight = factor * (p_positive[i] - T{1}) * inverse_temperature;
      for_each_column<T>(D, [=](auto access, int64_t d) {
        access.store(of_positive + d, access.load(key + d) * weight);
      });
      for_each_column<T>(D, [=, y = c_row[i]](auto access, int64_t d) {
        access.store(y + d, access.load(y + d) + access.load(of_positive + d));
      });
    }
  });
}

}  // namespace

// logits_i = [⟨q_i, k_i⟩ | ⟨q_i, queue_j⟩] / T;  loss = 1/N Σ_i (log sum_i − (logits_i0 − max_i))
void CpuBackend::info_nce_forward(const Tensor& q, const Tensor& k, const Tensor& queue,
                                  double temperature, const Tensor& logits, const Tensor& max,
                                  const Tensor& sum, const Tensor& loss) {
  with_float_type(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    forward(q, k, queue, static_cast<T>(1 / temperature), logits, max, sum, loss);
  });
}

// dq_i = dloss/(N·T) · (Σ_j p_i,j+1 queue_j − (1 − p_i0) k_i)
void CpuBackend::info_nce_backward(const Tensor& logits, const Tensor& max, const Tensor& sum,
                                   const Tensor& k, const Tensor& queue, double temperature,
                                   const Tensor& dloss, const Tensor& dq) {
  with_float_type(dq.dtype(), [&](auto zero) {
    using T = decltype(zero);
    backward(logits, max, sum, k, queue, static_cast<T>(1 / temperature), dloss, dq);
  });
}

}  // namespace mocograd::MOCO_ISA
