// Rung 5: the columns of b that a tile reads are copied into a panel, in the order in which they
// are read, once for all rows of a.
//
// The panel stays in the L2 cache. The rows of a do not: they all pass by for each panel.
#include "cpu/ladder/panel.h"
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

void gemm_5_packing(const LadderProduct& p) {
  float* memory =
      static_cast<float*>(scratch(0, static_cast<size_t>(p.K * kRungColumns) * sizeof(float)));
  for (int64_t n = 0; n < p.N; n += kRungColumns) {
    const RungPanel panel = pack_panel(p.b, p.K, p.N, n, memory);
    tiles_of_matrix(p.a, p.K, p.M, p.K, panel.b, panel.width, p.c + n, p.N, panel.width);
  }
}

}  // namespace mocograd::MOCO_ISA
