// Batch normalisation over groups of rows, statistics and normalisation (+ residual, + ReLU).
//   forward   mean, var over a group's pixels;  y = max(0, gamma·(x − mean)/√(var + eps) + beta + r)
//   backward  Σdz and Σdz·(x − mean) over the group, then dx from them
//
// Each is a pass over chunks of rows (columns.h) that leaves partial sums, a small kernel with one
// thread a channel that combines them in order and in double, and a second pass that normalises.
//
// Variance without cancellation: a chunk, small enough to be in the cache the second time, is read
// twice, for its mean and for the squared deviations from it; chunks are combined by the formula of
// Chan, Golub and LeVeque (1979),  M2 = Σ_chunks M2_c + n_c·(mean_c − mean)².
#include <cmath>

#include "cuda/columns.h"

namespace mocograd::MOCO_CUDA {
namespace {

__device__ inline double inverse_deviation(double var, double eps) {
  return 1 / std::sqrt(var + eps);
}

// partials[group][chunk] = [m, Σ(x − m), Σ(x − m)²], C of each; m: the chunk's mean as rounded.
template <class T>
__global__ void chunk_statistics_kernel(ColumnPartition part, const T* x, T* partials) {
  const ColumnPlace at(part);
  T sum = 0;
  for (int row = at.row; row < at.rows; row += at.row_step) sum += x[at.first + row * part.C];
  const T mean = column_sum(sum, part.width) * (T{1} / static_cast<T>(at.rows));
  T rest = 0, squares = 0;
  for (int row = at.row; row < at.rows; row += at.row_step) {
    const T deviation = x[at.first + row * part.C] - mean;
    rest += deviation;
    squares += deviation * deviation;
  }
  rest = column_sum(rest, part.width);
  squares = column_sum(squares, part.width);
  if (!at.speaks) return;
  T* const p = partials + (at.group * part.chunks + at.chunk) * 3 * part.C + at.column;
  p[0] = mean;
  p[part.C] = rest;
  p[2 * part.C] = squares;
}

// mean and var of one channel of one group from its chunks' partials.
template <class T>
__global__ void combine_statistics_kernel(ColumnPartition part, const T* partials, T* mean,
                                          T* var) {
  const int64_t i = grid_index(), C = part.C;
  if (i >= part.groups * C) return;
  const T* const first = partials + i / C * part.chunks * 3 * C + i % C;
  const double n = static_cast<double>(part.rows);
  const auto rows_of = [&](int64_t k) {
    const int64_t left = part.rows - k * kChunkRows;
    return static_cast<double>(left < kChunkRows ? left : kChunkRows);
  };
  double total = 0;
  for (int64_t k = 0; k < part.chunks; ++k) {
    const T* const p = first + k * 3 * C;
    total += rows_of(k) * p[0] + p[C];
  }
  double squares = 0;
  for (int64_t k = 0; k < part.chunks; ++k) {
    const T* const p = first + k * 3 * C;
    const double rest = p[C] / rows_of(k);  // the chunk's mean is p[0] + rest
    const double offset = p[0] + rest - total / n;
    squares += p[2 * C] + rows_of(k) * (offset * offset - rest * rest);
  }
  mean[i] = static_cast<T>(total / n);
  var[i] = static_cast<T>(squares < 0 ? 0 : squares / n);  // NaN stays
}

// y = (x − mean)·gamma/√(var + eps) + beta (+ residual), max(0, ·) with relu. residual: or null.
template <class T>
__global__ void normalize_kernel(ColumnPartition part, const T* x, const T* gamma, const T* beta,
                                 const T* residual, double eps, bool relu, const T* mean,
                                 const T* var, T* y) {
  const ColumnPlace at(part);
  if (at.rows == 0) return;
  const int64_t channel = at.group * part.C + at.column;
  const T center = mean[channel], shift = beta[at.column];
  const T factor = static_cast<T>(gamma[at.column] * inverse_deviation(var[channel], eps));
  for (int row = at.row; row < at.rows; row += at.row_step) {
    const int64_t i = at.first + row * part.C;
    T z = (x[i] - center) * factor + shift;
    if (residual) z += residual[i];
    y[i] = relu && z < T{0} ? T{0} : z;  // NaN stays
  }
}

// dz = dy, or dy·[y > 0] where y is given
template <class T>
__device__ T gradient_of_z(const T* dy, const T* y, int64_t i) {
  return !y || y[i] > T{0} ? dy[i] : T{0};
}

// partials[group][chunk] = [Σdz, Σdz·(x − mean)], C of each
template <class T>
__global__ void gradient_sums_kernel(ColumnPartition part, const T* dy, const T* x, const T* y,
                                     const T* mean, T* partials) {
  const ColumnPlace at(part);
  T sum = 0, sum_x = 0;
  if (at.rows > 0) {
    const T center = mean[at.group * part.C + at.column];
    for (int row = at.row; row < at.rows; row += at.row_step) {
      const int64_t i = at.first + row * part.C;
      const T dz = gradient_of_z(dy, y, i);
      sum += dz;
      sum_x += dz * (x[i] - center);
    }
  }
  sum = column_sum(sum, part.width);
  sum_x = column_sum(sum_x, part.width);
  if (!at.speaks) return;
  T* const p = partials + (at.group * part.chunks + at.chunk) * 2 * part.C + at.column;
  p[0] = sum;
  p[part.C] = sum_x;
}

// totals[group] = [Σdz, Σdz·x̂], C of each
template <class T>
__global__ void combine_gradient_sums_kernel(ColumnPartition part, const T* partials, double eps,
                                             const T* var, double* totals) {
  const int64_t i = grid_index(), C = part.C;
  if (i >= part.groups * C) return;
  const int64_t group = i / C, c = i % C;
  double sum = 0, sum_x = 0;
  for (int64_t k = 0; k < part.chunks; ++k) {
    const T* const p = partials + (group * part.chunks + k) * 2 * C + c;
    sum += p[0];
    sum_x += p[C];
  }
  totals[group * 2 * C + c] = sum;
  totals[group * 2 * C + C + c] = sum_x * inverse_deviation(var[i], eps);
}

// dgamma and dbeta of one channel: the groups' totals, added.
template <class T>
__global__ void parameter_gradients_kernel(ColumnPartition part, const double* totals, T* dgamma,
                                           T* dbeta) {
  const int64_t c = grid_index();
  if (c >= part.C) return;
  double sum = 0, sum_x = 0;
  for (int64_t g = 0; g < part.groups; ++g) {
    sum += totals[g * 2 * part.C + c];
    sum_x += totals[g * 2 * part.C + part.C + c];
  }
  dbeta[c] = static_cast<T>(sum);
  dgamma[c] = static_cast<T>(sum_x);
}

// dx = a·dz + (b·(x − mean) + c),  a = gamma/√(var + eps), b = −a·Σ(dz·x̂)/(n·√(var + eps)),
// c = −a·Σdz/n; b = c = 0 where the statistics were given.  dresidual = dz, or null.
template <class T>
__global__ void gradient_kernel(ColumnPartition part, const T* dy, const T* x, const T* y,
                                const T* gamma, BatchNormConfig config, const T* mean, const T* var,
                                const double* totals, T* dx, T* dresidual) {
  const ColumnPlace at(part);
  if (at.rows == 0) return;
  const int64_t channel = at.group * part.C + at.column;
  const double* const total = totals + at.group * 2 * part.C + at.column;
  const double share = config.batch_statistics ? 1 / static_cast<double>(part.rows) : 0;
  const double inverse = inverse_deviation(var[channel], config.eps);
  const double factor = gamma[at.column] * inverse;
  const T center = mean[channel], a = static_cast<T>(factor),
          b = static_cast<T>(-share * factor * total[part.C] * inverse),
          c = static_cast<T>(-share * factor * total[0]);
  for (int row = at.row; row < at.rows; row += at.row_step) {
    const int64_t i = at.first + row * part.C;
    const T dz = gradient_of_z(dy, y, i);
    dx[i] = a * dz + (b * (x[i] - center) + c);
    if (dresidual) dresidual[i] = dz;
  }
}

template <class T>
__global__ void update_running_kernel(int64_t S, int64_t C, const T* mean, const T* var,
                                      double unbiased, double momentum, T* running_mean,
                                      T* running_var) {
  const int64_t c = grid_index();
  if (c >= C) return;
  double mean_sum = 0, var_sum = 0;
  for (int64_t g = 0; g < S; ++g) {
    mean_sum += mean[g * C + c];
    var_sum += var[g * C + c];
  }
  const double share = momentum / static_cast<double>(S);
  running_mean[c] = static_cast<T>((1 - momentum) * running_mean[c] + share * mean_sum);
  running_var[c] = static_cast<T>((1 - momentum) * running_var[c] + share * unbiased * var_sum);
}

ColumnPartition partition(const Tensor& x, const Tensor& mean) {
  const int64_t C = mean.dim(mean.ndim() - 1);
  return ColumnPartition(C, x.numel() / C, mean.numel() / C);
}

template <class T>
T* raw_or_null(const Tensor& x) {
  return x.defined() ? x.raw<T>() : nullptr;
}

}  // namespace

void CudaBackend::batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                     const Tensor& residual, const BatchNormConfig& config,
                                     const Tensor& mean, const Tensor& var, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const ColumnPartition part = partition(x, mean);
    if (config.batch_statistics) {
      const Scratch<T> partials(part.groups * part.chunks * 3 * part.C);
      launch(chunk_statistics_kernel<T>, part.grid(), part, x.raw<T>(), partials.data());
      launch(combine_statistics_kernel<T>, part.one_thread_a_column_of_each_group(), part,
             partials.data(), mean.raw<T>(), var.raw<T>());
    }
    launch(normalize_kernel<T>, part.grid(), part, x.raw<T>(), gamma.raw<T>(), beta.raw<T>(),
           raw_or_null<T>(residual), config.eps, config.relu, mean.raw<T>(), var.raw<T>(),
           y.raw<T>());
  });
}

void CudaBackend::batch_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& y,
                                      const Tensor& gamma, const BatchNormConfig& config,
                                      const Tensor& mean, const Tensor& var, const Tensor& dx,
                                      const Tensor& dgamma, const Tensor& dbeta,
                                      const Tensor& dresidual) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const ColumnPartition part = partition(x, mean);
    const T* const out = config.relu ? y.raw<T>() : nullptr;
    const Scratch<T> partials(part.groups * part.chunks * 2 * part.C);
    const Scratch<double> totals(part.groups * 2 * part.C);
    launch(gradient_sums_kernel<T>, part.grid(), part, dy.raw<T>(), x.raw<T>(), out, mean.raw<T>(),
           partials.data());
    launch(combine_gradient_sums_kernel<T>, part.one_thread_a_column_of_each_group(), part,
           partials.data(), config.eps, var.raw<T>(), totals.data());
    launch(parameter_gradients_kernel<T>, part.one_thread_a_column(), part, totals.data(),
           dgamma.raw<T>(), dbeta.raw<T>());
    launch(gradient_kernel<T>, part.grid(), part, dy.raw<T>(), x.raw<T>(), out, gamma.raw<T>(),
           config, mean.raw<T>(), var.raw<T>(), totals.data(), dx.raw<T>(),
           raw_or_null<T>(dresidual));
  });
}

// r ← (1 − momentum)·r + momentum · 1/S·Σ_g (mean_g, var_g·n/(n − 1))
void CudaBackend::batch_norm_update_running(const Tensor& mean, const Tensor& var, int64_t n,
                                            double momentum, const Tensor& running_mean,
                                            const Tensor& running_var) {
  with_float_type(mean.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t S = mean.dim(0), C = mean.dim(1);
    const double unbiased = static_cast<double>(n) / static_cast<double>(n - 1);
    launch(update_running_kernel<T>, one_thread_each(C), S, C, mean.raw<T>(), var.raw<T>(),
           unbiased, momentum, running_mean.raw<T>(), running_var.raw<T>());
  });
}

}  // namespace mocograd::MOCO_CUDA
