// Rung 4: a tile of c is summed in registers over all k (register_tile.h), so that c is written
// once and each number that is loaded serves several multiply-adds.
//
// From k to k + 1 a tile of b is a whole row of b further on: a few numbers of each page are used,
// and with many columns neither the caches nor the table of pages keep up.
#include "cpu/ladder/register_tile.h"
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

void gemm_4_register_tile(const LadderProduct& p) {
  tiles_of_matrix(p.a, p.K, p.M, p.K, p.b, p.N, p.c, p.N, p.N);
}

}  // namespace mocograd::MOCO_ISA
