// Batch normalisation over groups of rows, statistics and normalisation (+ residual, + ReLU).
//   forward   mean, var over a group's pixels;  y = max(0, gamma·(x − mean)/√(var + eps) + beta + r)
//   backward  dz, Σdz and Σdz·(x − mean) over the group, then dx from them
//
// T is the type of activations and their gradients, A what is computed in and what everything else is
// stored as: float where T is bf16, else T.
//
// Each is a pass over chunks of rows (columns.h) that leaves partial sums, forward those of
// batch_statistics.cu; a small kernel that combines them, in double; and a second pass that maps each element.
// All take vectors of V channels. The first pass takes the chunks in reverse: what the kernel before wrote
// last may still be in the cache, and so may what the second pass begins with.
#include <cmath>
#include <limits>

#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Rows that a thread reads of several tensors before it uses the first: in vectors 64 bytes of each.
template <class T>
constexpr int kRowsAtOnce = sizeof(T) == sizeof(float) ? 2 : 4;

__device__ inline double inverse_deviation(double var, double eps) {
  return 1 / std::sqrt(var + eps);
}

// z = (x − mean)·gamma/√(var + eps) + beta (+ residual);  y = z, or 0 where z < least, which is 0 with relu
// and else −∞. residual: or null.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(ColumnPartition<V> part, const T* x, const T* residual, A least, const A* mean,
                     const A* var, const A* gamma, const A* beta, double eps, T* y) {
  const ColumnPlace<V> at(part, blockIdx.x);
  __shared__ Vector<A, V> centers[kMostVectors], factors[kMostVectors], shifts[kMostVectors];
  if (const int64_t c = at.sum_column; c >= 0) {
    const int64_t i = at.group * part.C + c;
    const unsigned vector = threadIdx.x / V, v = threadIdx.x % V;
    centers[vector][v] = mean[i];
    factors[vector][v] = static_cast<A>(gamma[c] * inverse_deviation(var[i], eps));
    shifts[vector][v] = beta[c];
  }
  __syncthreads();
  if (at.rows == 0) return;
  const unsigned own = threadIdx.x % part.width;
  const Vector<A, V> center = centers[own], factor = factors[own], shift = shifts[own];
#pragma unroll 1
  for (int begin = 0; begin < at.rows; begin += kRowsAtOnce<T>) {
    Vector<T, V> in[kRowsAtOnce<T>], shortcut[kRowsAtOnce<T>];
    load_rows(at, begin, x, in);
    if (residual) load_rows(at, begin, residual, shortcut);
#pragma unroll
    for (int k = 0; k < kRowsAtOnce<T>; ++k) {
      Vector<A, V> z;
      Vector<T, V> out;
      for (int v = 0; v < V; ++v) z[v] = (in[k][v] - center[v]) * factor[v] + shift[v];
      if (residual)
        for (int v = 0; v < V; ++v) z[v] += shortcut[k][v];
      for (int v = 0; v < V; ++v) out[v] = static_cast<T>(z[v] < least ? 0 : z[v]);  // NaN stays
      if (begin + k < at.rows) store(at.row(begin + k, y), out);
    }
  }
}

// What dz is made of: dy (+ more), masked by y > 0. more and y: or null.
template <class T>
struct OutputGradient {
  const T *dy, *more, *y;
};

// Of the backward passes some rows of a thread.
template <int V, class T>
struct GradientRows {
  Vector<T, V> dy[kRowsAtOnce<T>], more[kRowsAtOnce<T>], x[kRowsAtOnce<T>], y[kRowsAtOnce<T>];
  bool two_parts, relu;

  __device__ GradientRows(const ColumnPlace<V>& at, int begin, const OutputGradient<T>& gradient,
                          const T* all_x)
      : two_parts(gradient.more), relu(gradient.y) {
    load_rows(at, begin, gradient.dy, dy);
    if (two_parts) load_rows(at, begin, gradient.more, more);
    load_rows(at, begin, all_x, x);
    if (relu) load_rows(at, begin, gradient.y, y);
  }
  // As it is stored.
  __device__ Vector<T, V> dz(int k) const {
    Vector<T, V> dz = dy[k];
    if (two_parts)
      for (int v = 0; v < V; ++v) dz[v] = static_cast<T>(Arithmetic<T>{dz[v]} + more[k][v]);
    if (relu)
      for (int v = 0; v < V; ++v) dz[v] = y[k][v] > 0 ? dz[v] : T(0);
    return dz;
  }
};

// partials[group][chunk] = [Σdz, Σdz·(x − mean)], C of each. kept_dz: dz, or null.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    gradient_sums_kernel(ColumnPartition<V> part, OutputGradient<T> gradient, const T* x,
                         const A* mean, A* partials, T* kept_dz) {
  const ColumnPlace<V> at(part, block_in_reverse());
  Vector<A, V> sum = {}, sum_x = {}, center = {};
  if (at.rows > 0) center = load<V>(mean + at.group * part.C + at.column);
#pragma unroll 1
  for (int begin = 0; begin < at.rows; begin += kRowsAtOnce<T>) {
    const GradientRows<V, T> rows(at, begin, gradient, x);
#pragma unroll
    for (int k = 0; k < kRowsAtOnce<T>; ++k) {
      if (begin + k >= at.rows) continue;
      const Vector<T, V> dz = rows.dz(k);
      if (kept_dz) store(at.row(begin + k, kept_dz), dz);
      for (int v = 0; v < V; ++v) {
        sum[v] += dz[v];
        sum_x[v] += dz[v] * (rows.x[k][v] - center[v]);
      }
    }
  }
  const A own_sum = column_sums(sum, part.width), own_sum_x = column_sums(sum_x, part.width);
  if (at.sum_column < 0) return;
  A* const p = partials + (at.group * part.chunks + at.chunk) * 2 * part.C + at.sum_column;
  p[0] = own_sum;
  p[part.C] = own_sum_x;
}

// Σ over the chunks of both of their partials. Every thread of the block must call.
template <class A>
__device__ Vector<double, 2> add_gradient_sums(const Chunks& part, const ChunkColumn& at,
                                               const A* partials) {
  const A* const first = partials + int64_t{at.group} * part.chunks * 2 * part.C + at.column;
  double sum = 0, sum_x = 0;
#pragma unroll 8
  for (int k = at.chunk; k < at.chunks; k += at.kStep) {
    sum += first[k * 2 * part.C];
    sum_x += first[k * 2 * part.C + part.C];
  }
  return {at.sum(sum), at.sum(sum_x)};
}

// totals[group] = [Σdz, Σdz·x̂], and the coefficients of
//   dx = a·dz + (b·(x − mean) + c),  a = gamma/√(var + eps), b = −a·Σ(dz·x̂)/(n·√(var + eps)),
//   c = −a·Σdz/n; b = c = 0 where the statistics were given:
// coefficients[group] = [mean, a, b, c]. C of each.
template <class A>
__global__ void combine_gradient_sums_kernel(Chunks part, const A* partials, const A* gamma,
                                             BatchNormConfig config, const A* mean, const A* var,
                                             double* totals, A* coefficients) {
  const ChunkColumn at(part);
  const int64_t C = part.C;
  const Vector<double, 2> sums = add_gradient_sums(part, at, partials);
  if (!at.speaks) return;
  const int64_t channel = at.group * C + at.column;
  const double inverse = inverse_deviation(var[channel], config.eps);
  double* const total = totals + at.group * 2 * C + at.column;
  total[0] = sums[0];
  total[C] = sums[1] * inverse;
  const double share = config.batch_statistics ? 1 / static_cast<double>(part.rows) : 0;
  const double factor = gamma[at.column] * inverse;
  A* const to = coefficients + at.group * 4 * C + at.column;
  to[0] = mean[channel];
  to[C] = static_cast<A>(factor);
  to[2 * C] = static_cast<A>(-share * factor * total[C] * inverse);
  to[3 * C] = static_cast<A>(-share * factor * total[0]);
}

// sums[group] = [Σdz, Σdz·(x − mean)], C of each, from the chunks' partials
template <class A>
__global__ void add_gradient_sums_kernel(Chunks part, const A* partials, A* sums) {
  const ChunkColumn at(part);
  const int64_t C = part.C;
  const Vector<double, 2> total = add_gradient_sums(part, at, partials);
  if (!at.speaks) return;
  A* const to = sums + at.group * 2 * C + at.column;
  to[0] = static_cast<A>(total[0]);
  to[C] = static_cast<A>(total[1]);
}

// dgamma and dbeta of channel c: the groups' totals, added.
template <class A>
__device__ void write_parameter_gradients(const Chunks& part, const double* totals, int64_t c,
                                          A* dgamma, A* dbeta) {
  double sum = 0, sum_x = 0;
#pragma unroll 4
  for (int g = 0; g < part.groups; ++g) {
    sum += totals[g * 2 * part.C + c];
    sum_x += totals[g * 2 * part.C + part.C + c];
  }
  dbeta[c] = static_cast<A>(sum);
  dgamma[c] = static_cast<A>(sum_x);
}

// dx by the coefficients. The first block of some columns also adds up what their parameters get.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(ColumnPartition<V> part, OutputGradient<T> gradient, const T* x,
                    const A* coefficients, const double* totals, T* dx, A* dgamma, A* dbeta) {
  const ColumnPlace<V> at(part, blockIdx.x);
  if (at.group == 0 && at.chunk == 0 && at.sum_column >= 0)
    write_parameter_gradients(part, totals, at.sum_column, dgamma, dbeta);
  if (at.rows == 0) return;
  const A* const from = coefficients + at.group * 4 * part.C + at.column;
  const Vector<A, V> center = load<V>(from), a = load<V>(from + part.C),
                     b = load<V>(from + 2 * part.C), c = load<V>(from + 3 * part.C);
#pragma unroll 1
  for (int begin = 0; begin < at.rows; begin += kRowsAtOnce<T>) {
    const GradientRows<V, T> rows(at, begin, gradient, x);
#pragma unroll
    for (int k = 0; k < kRowsAtOnce<T>; ++k) {
      if (begin + k >= at.rows) continue;
      const Vector<T, V> dz = rows.dz(k);
      Vector<T, V> out;
      for (int v = 0; v < V; ++v)
        out[v] = static_cast<T>(a[v] * dz[v] + (b[v] * (rows.x[k][v] - center[v]) + c[v]));
      store(at.row(begin + k, dx), out);
    }
  }
}

template <class T>
__global__ void update_running_kernel(int64_t S, int64_t C, const T* mean, const T* var,
                                      double unbiased, double momentum, T* running_mean,
                                      T* running_var) {
  const int64_t c = grid_index();
  if (c >= C) return;
  double mean_sum = 0, var_sum = 0;
#pragma unroll 8
  for (int64_t g = 0; g < S; ++g) {
    mean_sum += mean[g * C + c];
    var_sum += var[g * C + c];
  }
  const double share = momentum / static_cast<double>(S);
  running_mean[c] = static_cast<T>((1 - momentum) * running_mean[c] + share * mean_sum);
  running_var[c] = static_cast<T>((1 - momentum) * running_var[c] + share * unbiased * var_sum);
}

template <class T>
T* raw_or_null(const Tensor& x) {
  return x.defined() ? x.raw<T>() : nullptr;
}

}  // namespace

void CudaBackend::batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                     const Tensor& residual, const BatchNormConfig& config,
                                     const Tensor& mean, const Tensor& var, const Tensor& y) {
  if (config.batch_statistics) take_statistics(x, {mean, var});
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      launch(normalize_kernel<V, T, A>, part.grid(), part, x.raw<T>(), raw_or_null<T>(residual),
             config.relu ? A{0} : -std::numeric_limits<A>::infinity(), mean.raw<A>(), var.raw<A>(),
             gamma.raw<A>(), beta.raw<A>(), config.eps, y.raw<T>());
    };
    with_partition<T>(x, mean, run, x.raw<T>(), y.raw<T>(), raw_or_null<T>(residual));
  });
}

void CudaBackend::batch_norm_backward(const Tensor& dy, const Tensor& more_dy, const Tensor& x,
                                      const Tensor& y, const Tensor& gamma,
                                      const BatchNormConfig& config, const Tensor& mean,
                                      const Tensor& var, const Tensor& sums, const Tensor& dx,
                                      const Tensor& dgamma, const Tensor& dbeta,
                                      const Tensor& dresidual) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const OutputGradient<T> gradient{dy.raw<T>(), raw_or_null<T>(more_dy),
                                     config.relu ? y.raw<T>() : nullptr};
    T* const kept_dz = raw_or_null<T>(dresidual);
    // What the second pass reads.
    const OutputGradient<T> rest =
        kept_dz ? OutputGradient<T>{kept_dz, nullptr, nullptr} : gradient;
    if (x.numel() == 0) return fill(dgamma, 0), fill(dbeta, 0);  // sums over no pixel
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      const Scratch<A> coefficients(part.groups * 4 * part.C);
      const Scratch<double> totals(part.groups * 2 * part.C);
      const auto combine = [&](const Chunks& chunks, const A* partials) {
        launch(combine_gradient_sums_kernel<A>, part.grid_of_combining(), chunks, partials,
               gamma.raw<A>(), config, mean.raw<A>(), var.raw<A>(), totals.data(),
               coefficients.data());
      };
      if (sums.defined()) {
        Chunks one = part;
        one.chunks = 1;
        combine(one, sums.raw<A>());
      } else {
        const Scratch<A> partials(int64_t{part.groups} * part.chunks * 2 * part.C);
        launch(gradient_sums_kernel<V, T, A>, part.grid(), part, gradient, x.raw<T>(),
               mean.raw<A>(), partials.data(), kept_dz);
        combine(part, partials.data());
      }
      launch(gradient_kernel<V, T, A>, part.grid(), part, rest, x.raw<T>(), coefficients.data(),
             totals.data(), dx.raw<T>(), dgamma.raw<A>(), dbeta.raw<A>());
    };
    with_partition<T>(x, mean, run, gradient.dy, gradient.more, x.raw<T>(), gradient.y,
                      mean.raw<A>(), dx.raw<T>(), kept_dz);
  });
}

void combine_gradient_sums(const Chunks& part, const float* partials, const GradientSums& to) {
  launch(add_gradient_sums_kernel<float>, part.grid_of_combining(), part, partials,
         to.sums.raw<float>());
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
