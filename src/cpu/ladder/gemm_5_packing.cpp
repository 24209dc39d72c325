// Rung 5: the columns of b that a tile reads are copied into a panel, in the order in which they are
// read. The loop over the columns comes first: the panel stays in the L2 cache while all rows of a
// pass by, and is copied once for all of them.
//
// gemm.cpp packs all panels first and cuts c into blocks of rows and groups of panels, which are the
// tasks of its threads.
#include "cpu/ladder/panel.h"
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

void gemm_5_packing(const LadderProduct& p) {
  constexpr int kPanelSlot = 0;
  float* panel = scratch_of<float>(kPanelSlot, p.K * kRungColumns);
  for (int64_t n = 0; n < p.N; n += kRungColumns) {
    const int64_t width = pack_panel(p.b, p.K, p.N, n, panel);
    tiles_of_matrix(p.a, p.K, p.M, p.K, panel, width, p.c + n, p.N, width);
  }
}

}  // namespace mocograd::MOCO_ISA
