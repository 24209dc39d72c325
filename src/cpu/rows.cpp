// Kernels over the rows of a matrix: bias, sums over rows, products of rows, columns put side by
// side, rows picked by index.
#include "cpu/column_sums.h"
#include "cpu/cpu_backend.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {

// y_ij = x_ij + b_j
void CpuBackend::add_bias(const Tensor& x, const Tensor& b, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(1);
    const T *const in = x.raw<T>(), *const bias = b.raw<T>();
    T* const out = y.raw<T>();
    for_each_row(x.dim(0), C, [=](int64_t i) {
      for_each_column<T>(C, [&](auto access, int64_t j) {
        access.store(out + i * C + j, access.load(in + i * C + j) + access.load(bias + j));
      });
    });
  });
}

// y_j = Σ_i x_ij: partial sums over chunks of rows, then the partial sums in order.
void CpuBackend::sum_rows(const Tensor& x, const Tensor& y) {
  if (y.numel() == 0) return;
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = x.dim(0), C = x.dim(1), fold = fold_of<T>(C), period = fold * C;
    const int64_t chunk = C < kChunk / 64 ? kChunk / C : 64;  // rows
    const int64_t chunks = (N + chunk - 1) / chunk;
    const T* const in = x.raw<T>();
    T* const out = y.raw<T>();
    T* const partial = scratch_of<T>(0, (chunks + 1) * period);
    parallel_chunks(N, chunk, [&](int64_t begin, int64_t end) {
      const T* const rows = in + begin * C;
      sum_columns<1, kStreamed>(
          (end - begin) * C, period, partial + begin / chunk * period,
          [=](auto access, int64_t i, int64_t, auto* s) { s[0] += access.load(rows + i); });
    });
    T* const total = partial + chunks * period;
    sum_columns<1, kStreamed>(
        chunks * period, period, total,
        [=](auto access, int64_t i, int64_t, auto* s) { s[0] += access.load(partial + i); });
    add_folds(total, fold, C, out);
  });
}

// y_ij = s_i · x_ij
void CpuBackend::scale_rows(const Tensor& x, const Tensor& s, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(1);
    const T *const in = x.raw<T>(), *const factor = s.raw<T>();
    T* const out = y.raw<T>();
    for_each_row(x.dim(0), C, [=](int64_t i) {
      const T row_factor = factor[i];
      for_each_column<T>(C, [&](auto access, int64_t j) {
        access.store(out + i * C + j, access.load(in + i * C + j) * row_factor);
      });
    });
  });
}

// y_i = Σ_j a_ij b_ij
void CpuBackend::row_dot(const Tensor& a, const Tensor& b, const Tensor& y) {
  with_float_type(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = a.dim(1);
    const T *const left = a.raw<T>(), *const right = b.raw<T>();
    T* const out = y.raw<T>();
    for_each_row(a.dim(0), C, [=](int64_t i) {
      out[i] = sum_of_columns<T>(C, [&](auto access, int64_t j) {
        return access.load(left + i * C + j) * access.load(right + i * C + j);
      });
    });
  });
}

// y = [a | b], row by row
void CpuBackend::concat_columns(const Tensor& a, const Tensor& b, const Tensor& y) {
  const size_t element = size_of(y.dtype());
  const size_t A = a.dim(1) * element, B = b.dim(1) * element;  // bytes a row
  const char *const left = a.raw<char>(), *const right = b.raw<char>();
  char* const out = y.raw<char>();
  for_each_row(y.dim(0), y.dim(1), [=](int64_t i) {
    __builtin_memcpy(out + i * (A + B), left + i * A, A);
    __builtin_memcpy(out + i * (A + B) + A, right + i * B, B);
  });
}

// a and b from y = [a | b]
void CpuBackend::split_columns(const Tensor& y, const Tensor& a, const Tensor& b) {
  const size_t element = size_of(y.dtype());
  const size_t A = a.dim(1) * element, B = b.dim(1) * element;  // bytes a row
  const char* const in = y.raw<char>();
  char *const left = a.raw<char>(), *const right = b.raw<char>();
  for_each_row(y.dim(0), y.dim(1), [=](int64_t i) {
    __builtin_memcpy(left + i * A, in + i * (A + B), A);
    __builtin_memcpy(right + i * B, in + i * (A + B) + A, B);
  });
}

// y_i = x_{index_i}
void CpuBackend::gather_rows(const Tensor& x, const Tensor& index, const Tensor& y) {
  const int64_t N = index.numel();
  if (N == 0) return;
  const int64_t columns = y.numel() / N;
  const size_t row = columns * size_of(y.dtype());  // bytes
  const char* const in = x.raw<char>();
  const int64_t* const source = index.raw<int64_t>();
  char* const out = y.raw<char>();
  for_each_row(N, columns,
               [=](int64_t i) { __builtin_memcpy(out + i * row, in + source[i] * row, row); });
}

}  // namespace mocograd::MOCO_ISA
