// The tile that the upper rungs share: MR rows and NV vectors of c, whose sums stay in registers
// while k runs.
//
//   c_i[j] = Σ_r Σ_k  a_{r,i}[k] · b[(r · length + k) · ldb + j]
//   i < MR rows, r < runs, k < length
//
// For each k, NV vectors of b are loaded and MR numbers of a broadcast, for MR · NV multiply-adds:
// with 12 × 2 a load for two of them. 24 sums in flight also hide the latency of the adder. The
// rows of a are pointers, so that they may lie anywhere; a matrix has one run.
#pragma once

#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

#if defined(__AVX512F__)
constexpr int kRungRows = 12;  // 24 of 32 registers
#elif defined(__AVX2__)
constexpr int kRungRows = 6;  // 12 of 16
#else
constexpr int kRungRows = 4;
#endif
constexpr int64_t kRungColumns = 2 * kLanes<float>;

// a: runs × MR pointers
template <int MR, int NV>
[[gnu::noinline]] void register_tile(const float* const* a, int64_t runs, int64_t length,
                                     const float* b, int64_t ldb, float* c, int64_t ldc) {
  Vec<float> sum[MR][NV] = {};
  for (int64_t r = 0; r < runs; ++r, a += MR) {
    const float* row[MR];
    for (int i = 0; i < MR; ++i) row[i] = a[i];
    for (int64_t k = 0; k < length; ++k, b += ldb) {
      Vec<float> columns[NV];
      for (int j = 0; j < NV; ++j) columns[j] = load(b + j * kLanes<float>);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        for (int j = 0; j < NV; ++j) sum[i][j] += broadcast(row[i][k]) * columns[j];
      }
    }
  }
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NV; ++j) store<float>(c + i * ldc + j * kLanes<float>, sum[i][j]);
  }
}

// MR rows and all N columns: two vectors at a time, then one, then what is left singly.
template <int MR>
[[gnu::noinline]] void row_of_tiles(const float* const* a, int64_t runs, int64_t length,
                                    const float* b, int64_t ldb, float* c, int64_t ldc, int64_t N) {
  constexpr int64_t L = kLanes<float>;
  int64_t n = 0;
  for (; n + 2 * L <= N; n += 2 * L) register_tile<MR, 2>(a, runs, length, b + n, ldb, c + n, ldc);
  for (; n + L <= N; n += L) register_tile<MR, 1>(a, runs, length, b + n, ldb, c + n, ldc);
  for (; n < N; ++n) {
    for (int i = 0; i < MR; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < runs * length; ++k)
        sum += a[k / length * MR + i][k % length] * b[k * ldb + n];
      c[i * ldc + n] = sum;
    }
  }
}

// All tiles of `rows` rows of the matrix a, lda apart.
MOCO_ALWAYS_INLINE void tiles_of_matrix(const float* a, int64_t lda, int64_t rows, int64_t K,
                                        const float* b, int64_t ldb, float* c, int64_t ldc,
                                        int64_t N) {
  const float* row[kRungRows];
  int64_t m = 0;
  for (; m + kRungRows <= rows; m += kRungRows) {
    for (int i = 0; i < kRungRows; ++i) row[i] = a + (m + i) * lda;
    row_of_tiles<kRungRows>(row, 1, K, b, ldb, c + m * ldc, ldc, N);
  }
  for (; m < rows; ++m) {
    row[0] = a + m * lda;
    row_of_tiles<1>(row, 1, K, b, ldb, c + m * ldc, ldc, N);
  }
}

}  // namespace mocograd::MOCO_ISA
