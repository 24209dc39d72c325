// Rung 1: the definition, c_mn = Σ_k a_mk b_kn, one number of c after the other.
//
// Each addition waits for the one before it (4 cycles), and from k to k + 1 the loop walks down a
// column of b: another cache line each time, of which one number is used.
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

void gemm_1_naive(const LadderProduct& p) {
  for (int64_t m = 0; m < p.M; ++m) {
    for (int64_t n = 0; n < p.N; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < p.K; ++k) sum += p.a[m * p.K + k] * p.b[k * p.N + n];
      p.c[m * p.N + n] = sum;
    }
  }
}

}  // namespace mocograd::MOCO_ISA
