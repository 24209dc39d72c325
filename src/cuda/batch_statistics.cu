// Mean and variance of each channel over groups of rows, for batch normalisation (batch_norm.cu).
//
// T is the type of x, A what is computed in and stored: float where T is bf16, else T.
//
// Variance without cancellation: x is read once, and of each chunk of rows (columns.h) deviations are
// summed from an element m that lies among them, its first. Kernels that write x can leave the same
// of chunks of their own (result_sums.h). Chunks are combined in double and read once, around the
// mean o of the group's first: of a chunk of n_c rows, with d = m − o,
//   Σ(x − o) = Σ(x − m) + n_c·d,   Σ(x − o)² = Σ(x − m)² + 2d·Σ(x − m) + n_c·d²,
// and of the group  mean = o + Σ(x − o)/n,  var = Σ(x − o)²/n − (mean − o)². What cancels is bounded: as o is
// the mean of n_c of the n numbers, (mean − o)² ≤ (n/n_c − 1)·var.
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
  if (at.own_column < 0) return;
  A* const p = partials + (at.group * part.chunks + at.chunk) * 3 * part.C + at.own_column;
  p[0] = x[at.origin + at.own_column];
  p[part.C] = own_sum;
  p[2 * part.C] = own_squares;
}

// mean and var from the chunks' partials
template <class A>
__global__ void __launch_bounds__(kMostCombining)
    combine_statistics_kernel(Chunks part, const A* partials, A* mean, A* var) {
  const ChunkColumn at(part);
  const double n = static_cast<double>(part.rows), first_share = 1.0 / part.rows_of(0);
  const A* const first = partials + int64_t{at.group} * part.chunks * 3 * part.C + at.column;
  const double origin = at.chunks > 0 ? first[0] + first_share * first[part.C] : 0;
  double sum = 0, squares = 0;
  at.for_each_chunk<3>(part, partials, [&](int k, const A(&p)[3]) {
    const double count = part.rows_of(k), d = p[0] - origin;
    sum += p[1] + count * d;
    squares += p[2] + d * (2 * double{p[1]} + count * d);
  });
  const Vector<double, 2> total = at.sums(sum, squares);
  if (!at.speaks) return;
  const int64_t i = at.group * part.C + at.column;
  const double distance = total[0] / n, scatter = total[1] / n - distance * distance;
  mean[i] = static_cast<A>(origin + distance);
  var[i] = static_cast<A>(scatter < 0 ? 0 : scatter);  // NaN stays
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
