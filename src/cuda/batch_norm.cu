// Batch normalisation over groups of rows, statistics and normalisation (+ residual, + ReLU).
//   forward   mean, var over a group's pixels;  y = max(0, gamma·(x − mean)/√(var + eps) + beta + r)
//   backward  Σdz and Σdz·(x − mean) over the group, then dx from them
//
// T is the type of activations and their gradients, A what is computed in and what everything else is
// stored as: float where T is bf16, else T.
//
// Each is a pass over chunks of rows (columns.h) that leaves partial sums; a small kernel that combines
// them, in double, and leaves the coefficients by which a second pass maps each element. All take
// vectors of V channels. The first pass takes the chunks in reverse: what the kernel before wrote last
// may still be in the cache, and so may what the second pass begins with.
//
// Variance without cancellation: x is read once, and of each chunk deviations are summed from an element
// m that lies among them (a chunk's first),  mean_c = m + Σ(x − m)/n_c,
// M2_c = Σ(x − m)² − n_c·(mean_c − m)². Chunks are combined by the formula of Chan, Golub and LeVeque
// (1979),  M2 = Σ_chunks M2_c + n_c·(mean_c − mean)².
#include <cmath>
#include <limits>

#include "cuda/batch_sums.h"
#include "cuda/columns.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Channels of a thread. As many in f32 as in bf16, so that both add in the same order and a result in
// bf16 is the rounded one in f32.
template <class T>
constexpr int kChannels = sizeof(T) == sizeof(double) ? 2 : 8;

// Rows that a thread reads of several tensors before it uses the first: in vectors 64 bytes of each.
template <class T>
constexpr int kRowsAtOnce = sizeof(T) == sizeof(float) ? 2 : 4;

__device__ inline unsigned block_in_reverse() {
  return gridDim.x - 1 - blockIdx.x;
}

__device__ inline double inverse_deviation(double var, double eps) {
  return 1 / std::sqrt(var + eps);
}

// partials[group][chunk] = [m, Σ(x − m), Σ(x − m)²], C of each;  m: x in the chunk's first row
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    chunk_statistics_kernel(ColumnPartition<V> part, const T* x, A* partials) {
  const ColumnPlace<V> at(part, block_in_reverse());
  Vector<A, V> sum = {}, squares = {};
  if (at.rows > 0) {
    Vector<T, V> rows[kRowsOfThread];
    load_rows(at, 0, x, rows);
    const Vector<T, V> origin = load<V>(x + at.origin + at.column);
#pragma unroll
    for (int k = 0; k < kRowsOfThread; ++k) {
      if (k >= at.rows) continue;
      for (int v = 0; v < V; ++v) {
        const A deviation = A{rows[k][v]} - A{origin[v]};
        sum[v] += deviation;
        squares[v] += deviation * deviation;
      }
    }
  }
  const A own_sum = column_sums(sum, part.width), own_squares = column_sums(squares, part.width);
  if (at.sum_column < 0) return;
  A* const p = partials + (at.group * part.chunks + at.chunk) * 3 * part.C + at.sum_column;
  p[0] = x[at.origin + at.sum_column];
  p[part.C] = own_sum;
  p[2 * part.C] = own_squares;
}

// scale[group] = [mean, gamma/√(var + eps), beta], C of each
template <class A>
__device__ void write_scale(int64_t C, int64_t group, int64_t c, A mean, A var, const A* gamma,
                            const A* beta, double eps, A* scale) {
  A* const s = scale + group * 3 * C + c;
  s[0] = mean;
  s[C] = static_cast<A>(gamma[c] * inverse_deviation(var, eps));
  s[2 * C] = beta[c];
}

// mean and var from the chunks' partials, and scale from them where it is not null
template <class A>
__global__ void combine_statistics_kernel(Chunks part, const A* partials, const A* gamma,
                                          const A* beta, double eps, A* mean, A* var, A* scale) {
  const ChunkColumn at(part);
  const int64_t C = part.C;
  const A* const first = partials + int64_t{at.group} * part.chunks * 3 * C + at.column;
  const double n = static_cast<double>(part.rows);
  double total = 0;
#pragma unroll 4
  for (int k = at.chunk; k < at.chunks; k += at.kStep) {
    const A* const p = first + k * 3 * C;
    total += part.rows_of(k) * static_cast<double>(p[0]) + p[C];
  }
  __shared__ double means[kCombinedColumns];
  total = at.sum(total);
  if (at.speaks) means[threadIdx.x] = total / n;
  __syncthreads();
  const double own_mean = means[threadIdx.x % kCombinedColumns];
  double squares = 0;
#pragma unroll 4
  for (int k = at.chunk; k < at.chunks; k += at.kStep) {
    const A* const p = first + k * 3 * C;
    const double count = part.rows_of(k), rest = p[C] / count;  // the chunk's mean is p[0] + rest
    const double offset = p[0] + rest - own_mean;
    squares += p[2 * C] + count * (offset * offset - rest * rest);
  }
  squares = at.sum(squares);
  if (!at.speaks) return;
  const int64_t i = at.group * C + at.column;
  mean[i] = static_cast<A>(own_mean);
  var[i] = static_cast<A>(squares < 0 ? 0 : squares / n);  // NaN stays
  if (scale) write_scale(C, at.group, at.column, mean[i], var[i], gamma, beta, eps, scale);
}

// The same of statistics that are given.
template <class A>
__global__ void scale_kernel(Chunks part, const A* mean, const A* var, const A* gamma,
                             const A* beta, double eps, A* scale) {
  const int64_t i = grid_index(), C = part.C;
  if (i < part.groups * C) write_scale(C, i / C, i % C, mean[i], var[i], gamma, beta, eps, scale);
}

// z = (x − mean)·gamma/√(var + eps) + beta (+ residual);  y = z, or 0 where z < least, which is 0 with relu
// and else −∞. residual: or null.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(ColumnPartition<V> part, const T* x, const T* residual, A least,
                     const A* scale, T* y) {
  const ColumnPlace<V> at(part, blockIdx.x);
  if (at.rows == 0) return;
  const A* const s = scale + at.group * 3 * part.C + at.column;
  const Vector<A, V> center = load<V>(s), factor = load<V>(s + part.C),
                     shift = load<V>(s + 2 * part.C);
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

// dy, x and, where y is not null, y: of the backward passes some rows of a thread.
template <int V, class T>
struct GradientRows {
  Vector<T, V> dy[kRowsAtOnce<T>], x[kRowsAtOnce<T>], y[kRowsAtOnce<T>];
  bool relu;

  __device__ GradientRows(const ColumnPlace<V>& at, int begin, const T* all_dy, const T* all_x,
                          const T* all_y)
      : relu(all_y) {
    load_rows(at, begin, all_dy, dy);
    load_rows(at, begin, all_x, x);
    if (relu) load_rows(at, begin, all_y, y);
  }
  // dz = dy, or dy·[y > 0] where y is given
  __device__ Vector<Arithmetic<T>, V> dz(int k) const {
    Vector<Arithmetic<T>, V> dz;
    for (int v = 0; v < V; ++v) dz[v] = dy[k][v];
    if (relu)
      for (int v = 0; v < V; ++v) dz[v] = y[k][v] > 0 ? dz[v] : 0;
    return dz;
  }
};

// partials[group][chunk] = [Σdz, Σdz·(x − mean)], C of each
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    gradient_sums_kernel(ColumnPartition<V> part, const T* dy, const T* x, const T* y,
                         const A* mean, A* partials) {
  const ColumnPlace<V> at(part, block_in_reverse());
  Vector<A, V> sum = {}, sum_x = {}, center = {};
  if (at.rows > 0) center = load<V>(mean + at.group * part.C + at.column);
#pragma unroll 1
  for (int begin = 0; begin < at.rows; begin += kRowsAtOnce<T>) {
    const GradientRows<V, T> rows(at, begin, dy, x, y);
#pragma unroll
    for (int k = 0; k < kRowsAtOnce<T>; ++k) {
      if (begin + k >= at.rows) continue;
      const Vector<A, V> dz = rows.dz(k);
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

// dx by the coefficients;  dresidual = dz, or null. The first block of some columns also adds up what
// their parameters get.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(ColumnPartition<V> part, const T* dy, const T* x, const T* y,
                    const A* coefficients, const double* totals, T* dx, T* dresidual, A* dgamma,
                    A* dbeta) {
  const ColumnPlace<V> at(part, blockIdx.x);
  if (at.group == 0 && at.chunk == 0 && at.sum_column >= 0)
    write_parameter_gradients(part, totals, at.sum_column, dgamma, dbeta);
  if (at.rows == 0) return;
  const A* const from = coefficients + at.group * 4 * part.C + at.column;
  const Vector<A, V> center = load<V>(from), a = load<V>(from + part.C),
                     b = load<V>(from + 2 * part.C), c = load<V>(from + 3 * part.C);
#pragma unroll 1
  for (int begin = 0; begin < at.rows; begin += kRowsAtOnce<T>) {
    const GradientRows<V, T> rows(at, begin, dy, x, y);
#pragma unroll
    for (int k = 0; k < kRowsAtOnce<T>; ++k) {
      if (begin + k >= at.rows) continue;
      const Vector<A, V> dz = rows.dz(k);
      Vector<T, V> out;
      for (int v = 0; v < V; ++v)
        out[v] = static_cast<T>(a[v] * dz[v] + (b[v] * (rows.x[k][v] - center[v]) + c[v]));
      store(at.row(begin + k, dx), out);
      if (!dresidual) continue;
      for (int v = 0; v < V; ++v) out[v] = static_cast<T>(dz[v]);
      store(at.row(begin + k, dresidual), out);
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

// mean, var and, where it is not null, scale.
template <int V, class T, class A>
void launch_statistics(const ColumnPartition<V>& part, const Tensor& x, const A* gamma,
                       const A* beta, double eps, const Tensor& mean, const Tensor& var, A* scale) {
  const Scratch<A> partials(int64_t{part.groups} * part.chunks * 3 * part.C);
  launch(chunk_statistics_kernel<V, T, A>, part.grid(), part, x.raw<T>(), partials.data());
  launch(combine_statistics_kernel<A>, part.grid_of_combining(), part, partials.data(), gamma, beta,
         eps, mean.raw<A>(), var.raw<A>(), scale);
}

// Calls f with the partition of x, by vectors where x's channels and all these places allow it.
template <class T, class F, class... P>
void with_partition(const Tensor& x, const Tensor& mean, const F& f, const P*... places) {
  const int64_t C = mean.dim(mean.ndim() - 1), rows = x.numel() / C, groups = mean.numel() / C;
  constexpr int V = kChannels<T>;
  if (C % V == 0 && takes_vectors<V>(places...)) {
    f(ColumnPartition<V>(C, rows, groups));
  } else {
    f(ColumnPartition<1>(C, rows, groups));
  }
}

}  // namespace

void CudaBackend::batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                     const Tensor& residual, const BatchNormConfig& config,
                                     const Tensor& mean, const Tensor& var, const Tensor& y) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      const Scratch<A> scale(part.groups * 3 * part.C);
      if (config.batch_statistics) {
        launch_statistics<V, T, A>(part, x, gamma.raw<A>(), beta.raw<A>(), config.eps, mean, var,
                                   scale.data());
      } else {
        launch(scale_kernel<A>, one_thread_each(part.groups * part.C), part, mean.raw<A>(),
               var.raw<A>(), gamma.raw<A>(), beta.raw<A>(), config.eps, scale.data());
      }
      launch(normalize_kernel<V, T, A>, part.grid(), part, x.raw<T>(), raw_or_null<T>(residual),
             config.relu ? A{0} : -std::numeric_limits<A>::infinity(), scale.data(), y.raw<T>());
    };
    with_partition<T>(x, mean, run, x.raw<T>(), y.raw<T>(), raw_or_null<T>(residual));
  });
}

void CudaBackend::batch_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& y,
                                      const Tensor& gamma, const BatchNormConfig& config,
                                      const Tensor& mean, const Tensor& var, const Tensor& sums,
                                      const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta,
                                      const Tensor& dresidual) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const T* const out = config.relu ? y.raw<T>() : nullptr;
    T* const shortcut = raw_or_null<T>(dresidual);
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
        launch(gradient_sums_kernel<V, T, A>, part.grid(), part, dy.raw<T>(), x.raw<T>(), out,
               mean.raw<A>(), partials.data());
        combine(part, partials.data());
      }
      launch(gradient_kernel<V, T, A>, part.grid(), part, dy.raw<T>(), x.raw<T>(), out,
             coefficients.data(), totals.data(), dx.raw<T>(), shortcut, dgamma.raw<A>(),
             dbeta.raw<A>());
    };
    with_partition<T>(x, mean, run, dy.raw<T>(), x.raw<T>(), out, mean.raw<A>(), dx.raw<T>(),
                      shortcut);
  });
}

void take_statistics(const Tensor& x, const Statistics& to) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      launch_statistics<V, T, A>(part, x, nullptr, nullptr, 0, to.mean, to.var, nullptr);
    };
    with_partition<T>(x, to.mean, run, x.raw<T>());
  });
}

void combine_statistics(const Chunks& part, const float* partials, const Statistics& to) {
  const float* const none = nullptr;
  launch(combine_statistics_kernel<float>, part.grid_of_combining(), part, partials, none, none, 0,
         to.mean.raw<float>(), to.var.raw<float>(), nullptr);
}

void take_gradient_sums(const Tensor& dz, const GradientSums& to) {
  with_activation_type(dz.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      const Scratch<A> partials(int64_t{part.groups} * part.chunks * 2 * part.C);
      launch(gradient_sums_kernel<V, T, A>, part.grid(), part, dz.raw<T>(), to.x.raw<T>(),
             static_cast<const T*>(nullptr), to.mean.raw<A>(), partials.data());
      launch(add_gradient_sums_kernel<A>, part.grid_of_combining(), part, partials.data(),
             to.sums.raw<A>());
    };
    with_partition<T>(dz, to.mean, run, dz.raw<T>(), to.x.raw<T>(), to.mean.raw<A>());
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
