// One panel of b: the columns of one tile, copied next to each other in the order in which the tile
// reads them.
#pragma once

#include "cpu/integers.h"
#include "cpu/ladder/register_tile.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {

// Copies the columns from `first` on of b: [K][N], a tile's or what there is of them, to
// panel: [K][width]. Returns the width.
MOCO_ALWAYS_INLINE int64_t pack_panel(const float* b, int64_t K, int64_t N, int64_t first,
                                      float* panel) {
  const int64_t width = smaller(kRungColumns, N - first);
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t j = 0; j < width; ++j) panel[k * width + j] = b[k * N + first + j];
  }
  return width;
}

}  // namespace mocograd::MOCO_ISA
