// Kernels of the loss and of its metrics: normalised rows, softmax with cross entropy, the target's
// rank, the k largest of a row. Each row is one task's, so there is nothing to combine but the
// losses of the rows, which are added in order.
#include "cpu/cpu_backend.h"
#include "cpu/scratch.h"
#include "cpu/softmax.h"

namespace mocograd::MOCO_ISA {
namespace {

// Puts a number into a list that is sorted from large to small, behind its equals; the last entry
// falls out. Requires: it is larger than the last entry, or that entry is free.
template <class T>
void insert_sorted(T* values, int64_t* indices, int64_t size, T value, int64_t index) {
  int64_t place = 0, end = size - 1;  // the place is in [place, end]: halve that
  while (place < end) {
    const int64_t middle = (place + end) / 2;
    if (values[middle] < value) {
      end = middle;
    } else {
      place = middle + 1;
    }
  }
  const size_t behind = static_cast<size_t>(size - 1 - place);
  __builtin_memmove(values + place + 1, values + place, behind * sizeof(T));
  __builtin_memmove(indices + place + 1, indices + place, behind * sizeof(int64_t));
  values[place] = value;
  indices[place] = index;
}

// One pass over the row: about k·(1 + log(M/k)) elements of a row in random order beat the k-th
// best so far and are inserted.
template <class T>
void top_k_of_row(const T* x, int64_t M, int64_t k, T* values, int64_t* indices) {
  for (int64_t j = 0; j < k; ++j) insert_sorted(values, indices, j + 1, x[j], j);
  for (int64_t j = k; j < M; ++j) {
    if (x[j] > values[k - 1]) insert_sorted(values, indices, k, x[j], j);
  }
}

}  // namespace

// norm_i = max(‖x_i‖₂, eps);  y_i = x_i / norm_i
void CpuBackend::l2_normalize_forward(const Tensor& x, double eps, const Tensor& y,
                                      const Tensor& norm) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(1);
    const T floor = static_cast<T>(eps);
    for_each_row(x.dim(0), C,
                 [=, in = x.raw<T>(), out = y.raw<T>(), norms = norm.raw<T>()](int64_t i) {
                   const T* const row = in + i * C;
                   const T length = square_root(sum_of_columns<T>(C, [=](auto access, int64_t j) {
                     return access.load(row + j) * access.load(row + j);
                   }));
                   const T divisor = length < floor ? floor : length;  // NaN stays
                   norms[i] = divisor;
                   for_each_column<T>(C, [&](auto access, int64_t j) {
                     access.store(out + i * C + j, access.load(row + j) / divisor);
                   });
                 });
  });
}

// dx_i = (dy_i − y_i·⟨y_i, dy_i⟩) / norm_i, without the second term where norm_i is eps
void CpuBackend::l2_normalize_backward(const Tensor& y, const Tensor& norm, double eps,
                                       const Tensor& dy, const Tensor& dx) {
  with_float_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = y.dim(1);
    const T floor = static_cast<T>(eps);
    for_each_row(y.dim(0), C,
                 [=, out = y.raw<T>(), norms = norm.raw<T>(), dout = dy.raw<T>(),
                  din = dx.raw<T>()](int64_t i) {
                   const T *const row = out + i * C, *const drow = dout + i * C;
                   const T along =
                       norms[i] <= floor ? T{0} : sum_of_columns<T>(C, [=](auto access, int64_t j) {
                         return access.load(row + j) * access.load(drow + j);
                       });
                   const T divisor = norms[i];
                   for_each_column<T>(C, [&](auto access, int64_t j) {
                     access.store(din + i * C + j,
                                  (access.load(drow + j) - access.load(row + j) * along) / divisor);
                   });
                 });
  });
}

// loss = 1/N Σ_i (log Σ_j exp(x_ij − m_i) − (x_{i,label_i} − m_i)),  m_i = max_j x_ij
void CpuBackend::cross_entropy_forward(const Tensor& x, const Tensor& label, const Tensor& p,
                                       const Tensor& loss) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = x.dim(0), C = x.dim(1);
    T* const losses = scratch_of<T>(0, N);
    for_each_row(N, C,
                 [=, in = x.raw<T>(), labels = label.raw<int64_t>(), out = p.raw<T>()](int64_t i) {
                   const T* const row = in + i * C;
                   T* const probability = out + i * C;
                   const T max = max_of_row(row, C);
                   for_each_column<T>(C, [&](auto access, int64_t j) {
                     access.store(probability + j, exponential(access.load(row + j) - max));
                   });
                   const T sum = sum_of_columns<T>(
                       C, [=](auto access, int64_t j) { return access.load(probability + j); });
                   const T share = T{1} / sum;
                   for_each_column<T>(C, [&](auto access, int64_t j) {
                     access.store(probability + j, access.load(probability + j) * share);
                   });
                   losses[i] = logarithm(sum) - (row[labels[i]] - max);
                 });
    loss.raw<T>()[0] = mean(losses, N);
  });
}

// dx_ij = dloss/N · (p_ij − [j = label_i])
void CpuBackend::cross_entropy_backward(const Tensor& p, const Tensor& label, const Tensor& dloss,
                                        const Tensor& dx) {
  with_float_type(p.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = p.dim(0), C = p.dim(1);
    const T factor = dloss.raw<T>()[0] / static_cast<T>(N);
    for_each_row(
        N, C,
        [=, probability = p.raw<T>(), labels = label.raw<int64_t>(), din = dx.raw<T>()](int64_t i) {
          for_each_column<T>(C, [&](auto access, int64_t j) {
            access.store(din + i * C + j, access.load(probability + i * C + j) * factor);
          });
          const int64_t target = i * C + labels[i];
          din[target] = factor * (probability[target] - T{1});
        });
  });
}

// rank_i = how many j ≠ label_i have !(x_ij < x_{i,label_i}), so that NaN counts against the target
void CpuBackend::rank_of_target(const Tensor& x, const Tensor& label, const Tensor& rank) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(1);
    for_each_row(x.dim(0), C,
                 [=, in = x.raw<T>(), labels = label.raw<int64_t>(),
                  ranks = rank.raw<int64_t>()](int64_t i) {
                   const T* const row = in + i * C;
                   const T target = row[labels[i]];
                   int64_t not_below = 0;
                   for (int64_t j = 0; j < C; ++j) not_below += !(row[j] < target);
                   ranks[i] = not_below - 1;  // the target is not below itself
                 });
  });
}

// The k largest of each row, largest first, the lower index first among equals
void CpuBackend::top_k(const Tensor& x, const Tensor& value, const Tensor& index) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t M = x.dim(1), k = value.dim(1);
    for_each_row(
        x.dim(0), M,
        [=, in = x.raw<T>(), values = value.raw<T>(), indices = index.raw<int64_t>()](int64_t i) {
          top_k_of_row(in + i * M, M, k, values + i * k, indices + i * k);
        });
  });
}

}  // namespace mocograd::MOCO_ISA
