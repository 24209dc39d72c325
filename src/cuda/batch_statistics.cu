// Mean and variance of each channel over groups of rows, for batch normalisation (batch_norm.cu).
//
// T is the type of x, A what is computed in and stored: float where T is bf16, else T.
//
// Variance without cancellation: x is read once, and of each chunk of rows (columns.h) deviations are summed
// from an element m that lies among them (a chunk's first),  mean_c = m + Σ(x − m)/n_c,
// M2_c = Σ(x − m)² − n_c·(mean_c − m)². Chunks are combined, in double, by the formula of Chan, Golub and
// LeVeque (1979),  M2 = Σ_chunks M2_c + n_c·(mean_c − mean)². Kernels that write x can leave the same of
// chunks of their own (result_sums.h).
#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {
namespace {

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

// mean and var from the chunks' partials
template <class A>
__global__ void combine_statistics_kernel(Chunks part, const A* partials, A* mean, A* var) {
  const ChunkColumn at(part);
  const int64_t C = part.C;
  const A* const first = partials + int64_t{at.group} * part.chunks * 3 * C + at.column;
  const double n = static_cast<double>(part.rows);
  double total = 0;
#pragma unroll 8
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
#pragma unroll 8
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
}

}  // namespace

void take_statistics(const Tensor& x, const Statistics& to) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using A = Arithmetic<T>;
    const auto run = [&]<int V>(const ColumnPartition<V>& part) {
      const Scratch<A> partials(int64_t{part.groups} * part.chunks * 3 * part.C);
      launch(chunk_statistics_kernel<V, T, A>, part.grid(), part, x.raw<T>(), partials.data());
      launch(combine_statistics_kernel<A>, part.grid_of_combining(), part, partials.data(),
             to.mean.raw<A>(), to.var.raw<A>());
    };
    with_partition<T>(x, to.mean, run, x.raw<T>());
  });
}

void combine_statistics(const Chunks& part, const float* partials, const Statistics& to) {
  launch(combine_statistics_kernel<float>, part.grid_of_combining(), part, partials,
         to.mean.raw<float>(), to.var.raw<float>());
}

}  // namespace mocograd::MOCO_CUDA
