// Rung 3: the same loops, a vector of 4, 8 or 16 columns at once (simd.h).
//
// What limits now is not the arithmetic: each multiply-add loads a vector of b and one of c and
// stores one of c.
#include "cpu/ladder/rungs.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

void gemm_3_vectors(const LadderProduct& p) {
  constexpr int64_t L = kLanes<float>;
  for (int64_t m = 0; m < p.M; ++m) {
    float* c = p.c + m * p.N;
    for (int64_t n = 0; n < p.N; ++n) c[n] = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      const float factor = p.a[m * p.K + k];
      const float* b = p.b + k * p.N;
      int64_t n = 0;
      for (; n + L <= p.N; n += L)
        store<float>(c + n, load(c + n) + broadcast(factor) * load(b + n));
      for (; n < p.N; ++n) c[n] += factor * b[n];
    }
  }
}

}  // namespace mocograd::MOCO_ISA
