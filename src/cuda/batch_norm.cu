// Batch normalisation over groups of rows, statistics and normalisation (+ residual, + ReLU).
//   forward   mean, var over a group's pixels;  y = max(0, gamma·(x − mean)/√(var + eps) + beta + r)
//   backward  dz, Σdz and Σdz·(x − mean) over the group, then dx from them
//
// T is the type of activations and their gradients, A what is computed in and what everything else is
// stored as: float where T is bf16, else T.
//
// Each is a pass over chunks of rows (columns.h) that leaves partial sums, forward those of
// batch_statistics.cu; a small kernel that combines them, in double; and a second pass, whose blocks
// work out their channels' coefficients in double and map each element. All take vectors of V
// channels. The first pass takes the chunks in reverse: what the kernel before wrote last may still
// be in the cache, and so may what the second pass begins with.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/batch_sums.h"
#include "cuda/tensor_list.h"

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
  if (const int64_t c = at.own_column; c >= 0) {
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
  if (at.own_column < 0) return;
  A* const p = partials + (at.group * part.chunks + at.chunk) * 2 * part.C + at.own_column;
  p[0] = own_sum;
  p[part.C] = own_sum_x;
}

// sums[group] = [Σdz, Σdz·(x − mean)], C of each, from the chunks' partials
template <class A>
__global__ void __launch_bounds__(kMostCombining)
    add_gradient_sums_kernel(Chunks part, const A* partials, A* sums) {
  const ChunkColumn at(part);
  double sum = 0, sum_x = 0;
  at.for_each_chunk<2>(part, partials, [&](int /*k*/, const A(&p)[2]) {
    sum += p[0];
    sum_x += p[1];
  });
  const Vector<double, 2> total = at.sums(sum, sum_x);
  if (!at.speaks) return;
  A* const to = sums + int64_t{at.group} * 2 * part.C + at.column;
  to[0] = static_cast<A>(total[0]);
  to[part.C] = static_cast<A>(total[1]);
}

// What dx is made from, beside dz and x.
template <class A>
struct GradientInputs {
  const A *mean, *var, *gamma;
  const A* sums;  // [group] = [Σdz, Σdz·(x − mean)]
  double eps;
  double share;  // 1/n; 0 where the statistics were given
};

// dgamma and dbeta of channel c, over all groups.
template <class A>
__device__ void write_parameter_gradients(const Chunks& part, const GradientInputs<A>& in,
                                          int64_t c, A* dgamma, A* dbeta) {
  double sum = 0, sum_x = 0;
#pragma unroll 4
  for (int g = 0; g < part.groups; ++g) {
    const A* const sums = in.sums + int64_t{g} * 2 * part.C + c;
    sum += sums[0];
    sum_x += sums[part.C] * inverse_deviation(in.var[g * part.C + c], in.eps);
  }
  dbeta[c] = static_cast<A>(sum);
  dgamma[c] = static_cast<A>(sum_x);
}

// dx = a·dz + (b·(x − mean) + c),  a = gamma/√(var + eps),  b = −a·Σ(dz·(x − mean))/(n·(var + eps)),
// c = −a·Σdz/n. dx may be where dz comes from. The first block of some columns also adds up what their
// parameters get.
template <int V, class T, class A>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(ColumnPartition<V> part, OutputGradient<T> gradient, const T* x,
                    GradientInputs<A> in, T* dx, A* dgamma, A* dbeta) {
  const ColumnPlace<V> at(part, blockIdx.x);
  __shared__ Vector<A, V> centers[kMostVectors], as[kMostVectors], bs[kMostVectors],
      cs[kMostVectors];
  if (const int64_t c = at.own_column; c >= 0) {
    const int64_t i = at.group * part.C + c;
    const unsigned vector = threadIdx.x / V, v = threadIdx.x % V;
    const A* const sums = in.sums + int64_t{at.group} * 2 * part.C + c;
    const double inverse = inverse_deviation(in.var[i], in.eps), a = in.gamma[c] * inverse;
    centers[vector][v] = in.mean[i];
    as[vector][v] = static_cast<A>(a);
    bs[vector][v] = static_cast<A>(-in.share * a * sums[part.C] * inverse * inverse);
    cs[vector][v] = static_cast<A>(-in.share * a * sums[0]);
    if (at.group == 0 && at.chunk == 0) write_parameter_gradients(part, in, c, dgamma, dbeta);
  }
  __syncthreads();
  if (at.rows == 0) return;
  const unsigned own = threadIdx.x % part.width;
  const Vector<A, V> center = centers[own], a = as[own], b = bs[own], c = cs[own];
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

// The updates of one launch; a row of blocks takes one.
template <class T>
class RunningList {
 public:
  static constexpr int kMost = 70;  // arguments of a launch: 4 KiB at most
  struct Update {
    const T *mean, *var;
    T *running_mean, *running_var;
    int64_t S, C;
    double unbiased;  // n/(n − 1)
  };

  int size() const { return size_; }
  void add(const RunningUpdate& update) {
    MOCO_CHECK(update.mean.dtype() == dtype_of<T>, "cuda: running statistics of ",
               name_of(dtype_of<T>), " and of ", name_of(update.mean.dtype()));
    const int64_t S = update.mean.dim(0), C = update.mean.dim(1);
    const double n = static_cast<double>(update.n);
    update_[size_++] = {update.mean.raw<T>(),
                        update.var.raw<T>(),
                        update.running_mean.raw<T>(),
                        update.running_var.raw<T>(),
                        S,
                        C,
                        n / (n - 1)};
    most_C_ = std::max(most_C_, C);
  }
  Grid grid() const {
    Grid grid = one_thread_each(most_C_);
    grid.blocks.y = static_cast<unsigned>(size_);
    return grid;
  }
  __device__ const Update& own() const { return update_[blockIdx.y]; }

 private:
  int size_ = 0;
  int64_t most_C_ = 0;
  Update update_[kMost];
};
static_assert(sizeof(RunningList<float>) <= 4056);

template <class T>
__global__ void update_running_kernel(RunningList<T> list, double momentum) {
  const auto& [mean, var, running_mean, running_var, S, C, unbiased] = list.own();
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
    // Of two parts the sum is kept, where nothing else is yet.
    T* const kept_dz = raw_or_null<T>(more_dy.defined() && !dresidual.defined() ? dx : dresidual);
    // What the second pass reads.
    const OutputGradient<T> rest =
        kept_dz ? OutputGradient<T>{kept_dz, nullptr, nullptr} : gradient;
    if (x.numel() == 0) return fill(dgamma, 0), fill(dbeta, 0);  // sums over no pixel
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      const double share = config.batch_statistics ? 1 / static_cast<double>(part.rows) : 0;
      GradientInputs<A> in{mean.raw<A>(),        var.raw<A>(), gamma.raw<A>(),
                           raw_or_null<A>(sums), config.eps,   share};
      const Scratch<A> own_sums(sums.defined() ? 0 : int64_t{part.groups} * 2 * part.C);
      if (!sums.defined()) {
        const Scratch<A> partials(int64_t{part.groups} * part.chunks * 2 * part.C);
        launch(gradient_sums_kernel<V, T, A>, part.grid(), part, gradient, x.raw<T>(), in.mean,
               partials.data(), kept_dz);
        launch(add_gradient_sums_kernel<A>, part.grid_of_combining(), part, partials.data(),
               own_sums.data());
        in.sums = own_sums.data();
      }
      launch(gradient_kernel<V, T, A>, part.grid(), part, rest, x.raw<T>(), in, dx.raw<T>(),
             dgamma.raw<A>(), dbeta.raw<A>());
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
void CudaBackend::batch_norm_update_running(std::span<const RunningUpdate> updates,
                                            double momentum) {
  if (updates.empty()) return;
  with_float_type(updates[0].mean.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_list<RunningList<T>>(
        updates.size(), [&](size_t i) -> const RunningUpdate& { return updates[i]; },
        [&](const RunningList<T>& list, size_t /*first*/) {
          launch(update_running_kernel<T>, list.grid(), list, momentum);
        });
  });
}

}  // namespace mocograd::MOCO_CUDA
