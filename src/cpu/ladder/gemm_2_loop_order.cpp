// Rung 2: the loops over k and n change places. A row of c collects multiples of rows of b,
// c_m += a_mk b_k, and everything is read and written in the order in which it lies in memory.
//
// Neighbouring numbers of c do not depend on each other, so the additions no longer wait. The
// compiler would make vectors of this loop by itself; it is kept from it, to see the order's effect
// alone.
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

[[gnu::optimize("no-tree-vectorize")]] void gemm_2_loop_order(const LadderProduct& p) {
  for (int64_t m = 0; m < p.M; ++m) {
    float* c = p.c + m * p.N;
    for (int64_t n = 0; n < p.N; ++n) c[n] = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      const float factor = p.a[m * p.K + k];
      const float* b = p.b + k * p.N;
      for (int64_t n = 0; n < p.N; ++n) c[n] += factor * b[n];
    }
  }
}

}  // namespace mocograd::MOCO_ISA
